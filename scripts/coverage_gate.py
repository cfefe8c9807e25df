"""Fail when lines or branches of the last coverage run are below a percentage: coverage_gate.py PERCENT.

pytest-cov's --cov-fail-under mixes the two into one figure, in which many lines can hide few branches.
"""

from __future__ import annotations

import json
import subprocess
import sys


def read_totals() -> dict[str, float]:
    """Percent covered, of lines and of branches."""
    command = [sys.executable, "-m", "coverage", "json", "-q", "-o", "-"]
    report = subprocess.run(command, capture_output=True, check=True)
    totals = json.loads(report.stdout)["totals"]
    return {
        "line": 100 * totals["covered_lines"] / totals["num_statements"],
        "branch": 100 * totals["covered_branches"] / totals["num_branches"],
    }


def main(least_percent: float) -> int:
    totals = read_totals()
    for kind, percent in totals.items():
        sys.stdout.write(f"{kind} coverage {percent:.1f} %, at least {least_percent:g} % is asked\n")
    return int(min(totals.values()) < least_percent)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
