"""Keeps secrets out of Kafka; see `redactor.py` for what that means."""

from ebbflow.redaction.masks import Masker, mask_arguments
from ebbflow.redaction.redactor import Redactor

__all__ = ["Masker", "Redactor", "mask_arguments"]
