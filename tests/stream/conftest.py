"""`totals` and `harness` are imported by tests and run by the scripts that they start: modules beside them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    """A broker of these tests' own, since they kill it."""
    from ebbflow.broker import LocalKafka, free_port

    kafka = LocalKafka(tmp_path_factory.mktemp("kafka"), free_port(), free_port())
    kafka.start()
    kafka.wait_ready()
    yield kafka
    kafka.stop()


@pytest.fixture
def harness(broker, tmp_path, request):
    from harness import Harness

    harness = Harness(broker.bootstrap, tmp_path, re.sub(r"\W+", "-", request.node.name.removeprefix("test_"))[:60])
    harness.create_topics()
    yield harness
    harness.close()
