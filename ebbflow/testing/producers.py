"""One producer on the real kernel, without a runner and without Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from ebbflow.component import Producer
from ebbflow.config import Config
from ebbflow.producing.shared import Shared, attach

P = TypeVar("P", bound=Producer)


@contextmanager
def attached(kind: type[P], config: Config) -> Iterator[P]:
    """A producer that watches what the configuration says; in the end nothing of it is left in the kernel."""
    with ExitStack() as stack:
        shared = Shared(config)
        stack.callback(shared.close)
        producer = kind.from_config(config, shared)
        attach([producer], shared, stack)
        yield producer
