"""The ledger as it stands in Kafka now."""

from __future__ import annotations

from functools import partial

from ebbflow.config import KafkaConfig
from ebbflow.errors import DependencyError
from ebbflow.kafka import check_reachable, make_consumer
from ebbflow.ledger import Ledger
from ebbflow.log_reader import read_topic
from ebbflow.topics import LEDGER


async def read_ledger(config: KafkaConfig) -> Ledger:
    """Every entry, the last of each key.

    Raises:
        NetworkError: Kafka cannot be reached.
        DependencyError: there is no ledger yet.
    """
    cluster = await check_reachable(config)
    if LEDGER not in cluster.topics:
        raise DependencyError(f"Kafka has no topic {LEDGER}", hint="start the pipeline first, or run `ebbflow topics`")
    ledger = Ledger()
    async for record in read_topic(partial(make_consumer, config), LEDGER):
        ledger.add(record.value)
    return ledger
