from __future__ import annotations

import pytest

from ebbflow import reference
from ebbflow.topics import CATALOGUE, Topic


def test_topics_page_committed_is_what_the_catalogue_gives():
    assert (reference.DOCS / "topics.md").read_text("utf-8") == reference.topics_page(), "run: make docs"


def test_configuration_page_committed_is_what_the_tree_gives():
    page = (reference.DOCS / "configuration.md").read_text("utf-8")
    assert reference.configuration_page(page) == page, "run: make docs"


def test_topics_page_has_a_row_for_every_topic():
    page = reference.topics_page()
    assert [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")] == [t.name for t in CATALOGUE]


def test_topics_page_escapes_the_column_mark():
    topic = Topic("t", key="a|b", value="v", writer="w", readers="r", sensitivity="low", retention_ms=0)
    assert "a\\|b" in reference.topics_page([topic])


def test_configuration_page_keeps_what_stands_around_the_markers():
    page = reference.configuration_page(f"before\n{reference.BEGIN}\nstale text\n{reference.END}\nafter\n")
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert "stale text" not in page
    assert "| `ring_bytes` | `67108864` |" in page


@pytest.mark.parametrize("page", ["", reference.BEGIN, reference.END])
def test_configuration_page_without_both_markers_is_refused(page):
    with pytest.raises(ValueError, match="lost its markers"):
        reference.configuration_page(page)


def test_write_brings_both_pages_up_to_date(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "DOCS", tmp_path)
    (tmp_path / "configuration.md").write_text(f"{reference.BEGIN}{reference.END}")
    reference.write()
    assert "`ebbflow.dlq`" in (tmp_path / "topics.md").read_text()
    assert "### [kafka]" in (tmp_path / "configuration.md").read_text()
