"""Runs the test processor in the foreground, as `ebbflow processor` does: run_totals.py SUFFIX KEY=VALUE..."""

from __future__ import annotations

import sys

from totals import named

from ebbflow.config import load
from ebbflow.errors import EbbflowError
from ebbflow.stream.worker import run_processors
from ebbflow.telemetry import setup_logging


def main() -> int:
    config = load(flags=dict(argument.split("=", 1) for argument in sys.argv[2:])).config
    setup_logging(config.log, "totals")
    try:
        return run_processors([named(sys.argv[1])], config)
    except EbbflowError as error:
        sys.stderr.write(f"error: {error}\nhint: {error.hint}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
