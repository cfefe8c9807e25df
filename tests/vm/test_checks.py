"""What is expected, against rows made up."""

from __future__ import annotations

import numpy as np
import pytest
from vm.checks import FEATURES, Expected, Feature, Seen, measure

ROW = np.zeros(1, [("pid", "<u4")])[0]


def seen(kind: str, **fields: int) -> Seen:
    names = [(name, "<u8") for name in fields]
    return Seen(kind, ROW, np.array([tuple(fields.values())], names)[0] if fields else None)


ROWS = [seen("calls", number=110, calls=1000), seen("calls", number=110, calls=9), seen("calls", number=1, calls=5)]


@pytest.mark.parametrize(
    ("expected", "count"),
    [
        (Expected("calls", None), 3),
        (Expected("calls", None, where={"number": 110}), 2),
        (Expected("calls", None, "calls", {"number": 110}), 1009),
        (Expected("calls", None, where={"pid": 1}), 0),
        (Expected("slow", None), 0),
    ],
)
def test_expected_counts_rows_or_sums_a_field(expected, count):
    assert expected.count(ROWS) == count


def test_measure_says_what_is_not_as_expected():
    feature = Feature(
        "f",
        "does",
        print,
        (Expected("calls", 1009, "calls", {"number": 110}), Expected("calls", 23), Expected("x", None)),
    )
    assert measure(feature, ROWS) == (True, "calls.calls 1009; calls 3, not 23; x 0, not any")
    assert measure(Feature("f", "does", print, feature.expected[:1]), ROWS) == (False, "calls.calls 1009")


def test_every_feature_has_its_checks():
    from ebbflow.topics import CATALOGUE

    raw = {topic.name.removeprefix("ebbflow.raw.") for topic in CATALOGUE if topic.name.startswith("ebbflow.raw.")}
    assert set(FEATURES) == raw
