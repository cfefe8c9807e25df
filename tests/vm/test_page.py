"""docs/kernels.md is what the committed results give."""

from __future__ import annotations

from vm import page, results
from vm.results import Check, Result


def result(name: str, *checks: Check, version: str = "1-1") -> Result:
    return Result(name, f"{name}.0-1-amd64", version, 8.5, 40.0, checks)


def test_page_committed_is_what_the_results_give():
    assert page.PAGE.read_text("utf-8") == page.page(results.read()), "run: make docs"


def test_page_has_a_row_for_every_check_and_a_column_for_every_kernel():
    text = page.page(
        [
            result("6.1", Check("mechanism", "kprobe", "ok"), Check("feature", "tcp", "absent")),
            result(
                "6.12",
                Check("mechanism", "kprobe", "failed", "no such file"),
                Check("feature", "tcp", "ok"),
                Check("hook", "raw_tracepoint x", "ok", "cpu, tcp"),
            ),
        ]
    )
    assert "| kind | 6.1 | 6.12 |" in text
    assert "| `kprobe` | yes | no |" in text
    assert "| `raw_tracepoint x` | cpu, tcp | — | yes |" in text
    assert "- 6.12, kprobe: no such file" in text


def test_results_are_read_back_as_they_were_written(tmp_path):
    written = [result("6.1", Check("feature", "sockets", "ok", "open 46"))]
    results.write(written, tmp_path / "results.json")
    assert results.read(tmp_path / "results.json") == written
