"""A tier that cannot run says so in one line, and fails in CI (tests/conftest.py)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
LINE = "tier kafka did not run: this machine lacks Java"


def run_without_java(**environ: str) -> subprocess.CompletedProcess[str]:
    """pytest on one test of the tier kafka, where no java is on PATH."""
    without = {name: value for name, value in os.environ.items() if name != "CI"} | {"PATH": "/nowhere"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_services.py", "-m", "kafka"]
    return subprocess.run(
        command, cwd=CHECKOUT, env=without | environ, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.slow
def test_tier_that_cannot_run_is_left_out_and_says_so_in_one_line():
    done = run_without_java()
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert [line for line in done.stdout.splitlines() if "tier" in line] == [LINE]


@pytest.mark.slow
def test_tier_that_cannot_run_in_ci_is_a_failure():
    done = run_without_java(CI="true")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "the tier kafka cannot run: this machine lacks Java" in done.stdout
    assert re.search(r"=+ 1 deselected, 1 error in ", done.stdout)
