"""The oldest of Debian's kernels, in QEMU: every program loads, attaches, gives exact counts (all: `make test-vm`)."""

from __future__ import annotations

import pytest
from vm.checks import FEATURES, is_known
from vm.kernels import choose, fetched
from vm.matrix import try_kernel
from vm.results import Check, Result

from ebbflow.kernel.check import MECHANISMS

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def found() -> Result:
    """What the kernel can do: it boots once."""
    (kernel,) = choose(fetched(), ["oldest"])
    return try_kernel(kernel)


def problem(result: Result, check: Check) -> str:
    return check.detail if check.status == "failed" and not is_known(result.name, check) else ""


@pytest.mark.parametrize("name", MECHANISMS)
def test_kind_of_program_runs(found, name):
    assert found.of("mechanism")[name].status == "ok", found.of("mechanism")[name].detail


@pytest.mark.parametrize("name", FEATURES)
def test_feature_gives_exact_counts(found, name):
    assert problem(found, found.of("feature")[name]) == ""


def test_tracepoints_are_there(found):
    assert [check.name for check in found.of("tracepoint").values() if check.status != "ok"] == []
