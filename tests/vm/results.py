"""What the matrix found, kept in results.json beside this file: it is what docs/kernels.md is made from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = Path(__file__).with_name("results.json")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a kernel can do, or not.

    Attributes:
        group: mechanism, feature, or hook: where programs of the features named in detail are attached.
        status: ok; failed, and detail says how; absent: this checkout has no such thing.
    """

    group: str
    name: str
    status: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """One kernel's column.

    Attributes:
        name: the column's heading.
        release: as `uname -r` says.
        version: of the package; empty for the machine's own kernel.
        boot_s, total_s: to the first word of the guest, and to power-off.
    """

    name: str
    release: str
    version: str
    boot_s: float
    total_s: float
    checks: tuple[Check, ...]

    def of(self, group: str) -> dict[str, Check]:
        return {check.name: check for check in self.checks if check.group == group}

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if check.status == "failed"]


def read(path: Path = FILE) -> list[Result]:
    """Every kernel's result, in the order of the columns."""
    found = json.loads(path.read_text("utf-8"))["kernels"]
    return [Result(**one | {"checks": tuple(Check(**check) for check in one["checks"])}) for one in found]


def write(results: list[Result], path: Path = FILE) -> None:
    about = "written by `make test-vm`; docs/kernels.md is made from it"
    text = json.dumps({"about": about, "kernels": [asdict(result) for result in results]}, indent=1)
    path.write_text(text + "\n", "utf-8")
