import pytest

from ebbflow.errors import NetworkError
from ebbflow.troubles import Troubles


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def troubles(lines) -> Troubles:
    return Troubles(
        warn=lambda event, **fields: lines.append(f"{event} [{fields['code']}] {fields['hint']}"),
        inform=lines.append,
    )


def test_report_many_with_the_same_trouble_tells_once_and_ends_once(troubles, lines):
    error = NetworkError("away", hint="start it")
    for who in ("p0", "p1", "p0"):
        troubles.report("kafka", who, error)
    troubles.report("kafka", "p0", None)
    assert lines == ["kafka: away [EBB400] start it"]
    troubles.report("kafka", "p1", None)
    assert lines[1:] == ["kafka: works again"]


def test_report_none_without_trouble_is_silent(troubles, lines):
    troubles.report("kafka", "p0", None)
    assert (lines, troubles.problems()) == ([], [])


def test_problems_lists_each_subject_once(troubles):
    troubles.report("kafka", "p0", NetworkError("away"))
    troubles.report("kafka", "p1", NetworkError("away too"))
    troubles.report("backend", "p0", NetworkError("gone"))
    assert troubles.problems() == ["kafka: away", "backend: gone"]


def test_problems_names_the_subject_once(troubles):
    troubles.report("kafka", "p0", NetworkError("Kafka: away"))
    assert troubles.problems() == ["Kafka: away"]


def test_forget_ends_ones_troubles_without_a_word(troubles, lines):
    troubles.report("kafka", "p0", NetworkError("away"))
    troubles.forget("p0")
    assert (troubles.problems(), len(lines)) == ([], 1)
