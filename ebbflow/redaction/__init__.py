"""Keeps secrets out of Kafka; see `redactor.py` for what that means."""

from ebbflow.redaction.arguments import ArgumentMasker, mask_arguments
from ebbflow.redaction.masks import Masker
from ebbflow.redaction.redactor import Redactor

__all__ = ["ArgumentMasker", "Masker", "Redactor", "mask_arguments"]
