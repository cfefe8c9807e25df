"""Measures everything and writes bench/results/latest.json: `python -m bench.run [--rounds N] [NAME ...]`.

Every module of this folder with a function `figures(rounds)` takes part. Targets are printed with met or MISSED; a
missed target is no error, a measurement that cannot be made is.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from bench.figures import Figure

MODULES = ("probes", "capture", "processor", "stream", "sink", "store", "maps", "flush", "overhead")
RESULTS = Path(__file__).parent / "results" / "latest.json"


def machine() -> dict[str, Any]:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "kernel": platform.release(),
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / (1 << 20), 1),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "time_unix_s": int(time.time()),
    }


def measure(name: str, rounds: int) -> list[Figure]:
    print(f"{name}:", flush=True)
    made: list[Figure] = []
    for figure in importlib.import_module(f"bench.{name}").figures(rounds):
        made.append(figure)
        print("  " + figure.line(), flush=True)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("names", nargs="*", default=MODULES, metavar="NAME", help=", ".join(MODULES))
    options = parser.parse_args()
    about = machine()
    figures = [figure for name in options.names for figure in measure(name, options.rounds)]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps({"machine": about, "figures": [figure.to_json() for figure in figures]}, indent=2) + "\n"
    )
    missed = [figure.name for figure in figures if figure.met is False]
    print(f"wrote {RESULTS.relative_to(Path.cwd()) if RESULTS.is_relative_to(Path.cwd()) else RESULTS}")
    print(f"targets missed: {', '.join(missed) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
