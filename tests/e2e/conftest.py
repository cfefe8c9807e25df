"""`e2e.harness` and its neighbours are modules beside the tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))


@pytest.fixture
def pipeline(tmp_path) -> Iterator:
    """A pipeline in which nothing runs yet."""
    from e2e.harness import Pipeline

    with Pipeline(tmp_path / "pipeline") as pipeline:
        pipeline.directory.mkdir()
        yield pipeline


@pytest.fixture
def nginx(tmp_path) -> Iterator[Callable]:
    """Start an nginx: `nginx(keepalive_requests=…)`."""
    from contextlib import ExitStack

    from e2e.nginx import nginx as run

    with ExitStack() as stack:
        number = iter(range(10))
        yield lambda **options: stack.enter_context(run(tmp_path / f"nginx-{next(number)}", **options))


@pytest.fixture
def measured(record_property) -> Callable:
    """Keep figures with the test's result, and print them: `measured(requests_per_s=…)`."""

    def note(**figures: object) -> None:
        for name, figure in figures.items():
            record_property(name, figure)
            sys.stdout.write(f"{name}: {figure}\n")

    return note
