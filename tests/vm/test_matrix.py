"""How columns come together."""

from __future__ import annotations

from vm.matrix import checks_of, merged, unexpected
from vm.results import Check, Result


def result(name: str, release: str, *checks: Check, version: str = "1") -> Result:
    return Result(name, release, version, 8.5, 40.0, checks)


OLD = [
    result("6.12", "6.12.9+deb12-amd64"),
    result("6.1", "6.1.0-9-amd64"),
    result("6.5 (this machine's)", "6.5.1", version=""),
]


def test_merged_replaces_the_same_kernel_and_the_machine_and_keeps_others():
    new = [result("6.18 (this machine's)", "6.18.44", version=""), result("6.1", "6.1.0-56-amd64")]
    assert [one.release for one in merged(OLD, new)] == ["6.1.0-56-amd64", "6.12.9+deb12-amd64", "6.18.44"]


def test_checks_come_in_a_fixed_order():
    reports = [
        {"group": group, "name": "n", "status": "ok", "detail": ""}
        for group in ("start", "hook", "feature", "mechanism", "end")
    ]
    assert [check.group for check in checks_of(reports)] == ["mechanism", "feature", "hook"]


def test_hook_of_several_features_is_one_check():
    reports = [{"group": "hook", "name": "x", "status": "ok", "detail": feature} for feature in ("tcp", "cpu")]
    assert checks_of(reports) == (Check("hook", "x", "ok", "cpu, tcp"),)


def test_failures_count_on_debians_kernels_only():
    failed = Check("feature", "sockets", "failed")
    assert unexpected(result("6.1", "6.1.0-9-amd64", failed)) == [failed]
    assert unexpected(result("6.18", "6.18.44", failed, version="")) == []
