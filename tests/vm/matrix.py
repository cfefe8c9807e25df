"""Boots every kernel, tells what each can do, and writes results.json and docs/kernels.md.

    python -m vm.matrix [KERNEL...]     as in kernels.py; without any: all

Kernels that were not asked for keep their columns. Ends with status 1 when a check failed that no one knows of.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from vm import page
from vm.checks import is_known
from vm.errors import Unavailable
from vm.kernels import CHECKOUT, Kernel, age_of, choose, fetched
from vm.machine import Report, boot, parse
from vm.results import FILE, Check, Result, read, write
from vm.workloads import build

_GUEST = Path(__file__).with_name("guest.py")
_HOST_TIMEOUT_S = 300


def try_kernel(kernel: Kernel, checks: Sequence[str] = ()) -> Result:
    """Boot one kernel and run its checks, all of them if none are named.

    Raises:
        Unavailable: it did not come to its end.
    """
    booted = boot(kernel, tell, checks)
    found = checks_of(booted.reports)
    return Result(kernel.name, kernel.release, kernel.version, booted.boot_s, booted.total_s, found)


def try_host() -> Result:
    """The same checks on the kernel that runs here."""
    build()
    started_s = time.monotonic()
    command = [str(CHECKOUT / ".venv/bin/python"), str(_GUEST)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=_HOST_TIMEOUT_S, check=True)
    reports = list(parse(iter(done.stdout.splitlines(keepends=True))))
    for report in reports:
        tell(report)
    release = os.uname().release
    name = ".".join(release.split(".")[:2])
    total_s = round(time.monotonic() - started_s, 1)
    return Result(f"{name} (this machine's)", release, "", 0.0, total_s, checks_of(reports))


def checks_of(reports: list[Report]) -> tuple[Check, ...]:
    """The checks in a fixed order, however they came; a hook once, with all features that have it."""
    found = [Check(**report) for report in reports if report["group"] in {"mechanism", "feature"}]
    users: dict[str, list[str]] = {}
    for report in reports:
        if report["group"] == "hook":
            users.setdefault(report["name"], []).append(report["detail"])
    hooks = [Check("hook", name, "ok", ", ".join(sorted(users[name]))) for name in sorted(users)]
    return (*sorted(found, key=lambda check: (check.group != "mechanism", check.name)), *hooks)


def merged(old: list[Result], new: list[Result]) -> list[Result]:
    """New columns in the place of those of the same kernel; others stay, but another machine's own. Ours is last."""
    kept = [result for result in old if result.version]
    by_name = {result.name: result for result in (*kept, *new)}
    return sorted(by_name.values(), key=lambda result: (not result.version, age_of(result.release), result.name))


def tell(report: Report) -> None:
    if report["group"] == "hook":
        return
    words = (report["group"], report["name"], report["status"], report["detail"])
    sys.stdout.write("  " + " ".join(word for word in words if word) + "\n")
    sys.stdout.flush()


def main(*names: str) -> int:
    results = []
    try:
        for kernel in choose(fetched(), names or ("all",)):
            sys.stdout.write(f"{kernel.release}, emulated:\n")
            results.append(try_kernel(kernel))
    except Unavailable as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if os.geteuid() == 0:
        sys.stdout.write("this machine:\n")
        results.append(try_host())
    write(merged(read() if FILE.exists() else [], results))
    page.main()
    failed = [check for result in results for check in unexpected(result)]
    sys.stdout.write(f"{page.PAGE.relative_to(CHECKOUT)} is written; {len(failed)} checks failed that should not\n")
    return 1 if failed else 0


def unexpected(result: Result) -> list[Check]:
    """What failed on a kernel that should be able to do it. Of other machines' kernels nothing is expected."""
    return [check for check in result.failed if result.version and not is_known(result.name, check)]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
