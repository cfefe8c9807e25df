"""The oldest of Debian's kernels, in QEMU: every program loads, attaches, gives exact counts (all: `make test-vm`)."""

from __future__ import annotations

import pytest
from vm.checks import FEATURES, is_known
from vm.kernels import choose, fetched
from vm.matrix import try_kernel
from vm.results import Check, Result

# Other kinds of programs are tried by the tier bpf, on the machine itself, which may lack kprobes.
ASKED = ("kprobe", "feature")
pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def found() -> Result:
    """What the kernel can do: it boots once."""
    (kernel,) = choose(fetched(), ["oldest"])
    return try_kernel(kernel, ASKED)


def problem(result: Result, check: Check) -> str:
    return check.detail if check.status == "failed" and not is_known(result.name, check) else ""


def test_kprobe_runs(found):
    assert found.of("mechanism")["kprobe"].status == "ok", found.of("mechanism")["kprobe"].detail


@pytest.mark.parametrize("name", FEATURES)
def test_feature_gives_exact_counts(found, name):
    assert problem(found, found.of("feature")[name]) == ""
