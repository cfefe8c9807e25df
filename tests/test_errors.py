from __future__ import annotations

import re

import pytest

from ebbflow import errors
from ebbflow.errors import Category, EbbflowError, RateLimited, Scope, Severity


def all_classes(base: type[EbbflowError] = EbbflowError) -> list[type[EbbflowError]]:
    own = [base] if base.__module__ == errors.__name__ else []
    return own + [cls for child in base.__subclasses__() for cls in all_classes(child)]


def drawn_tree() -> dict[str, str]:
    """Class to parent, from the drawing in the module's docstring."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"( *(?:\| *)*)(?:\+- )?([A-Z]\w+)(?: {2,}|$)", line):
            depth = len(match[0].rstrip()) - len(match[0].split("+- ")[-1].rstrip())
            above = [entry for entry in above if entry[0] < depth]
            parents[match[2]] = above[-1][1] if above else ""
            above.append((depth, match[2]))
    return parents


def make(cls: type[EbbflowError]) -> EbbflowError:
    return cls("what happened", **({"retry_after_s": 1.5} if issubclass(cls, RateLimited) else {}))


def test_docstring_draws_the_tree_as_it_is():
    real = {cls.__name__: cls.__bases__[0].__name__ if cls is not EbbflowError else "" for cls in all_classes()}
    assert drawn_tree() == real


def test_codes_are_unique():
    codes = [cls.code for cls in all_classes()]
    assert sorted(codes) == sorted(set(codes))


@pytest.mark.parametrize("cls", all_classes(), ids=lambda cls: cls.__name__)
def test_class_decides_by_attributes(cls):
    error = make(cls)
    assert re.fullmatch(r"EBB\d{3}", error.code)
    assert isinstance(error.category, Category)
    assert isinstance(error.severity, Severity)
    assert isinstance(error.scope, Scope)
    assert (str(error), error.hint) == ("what happened", "")


def test_hint_is_not_part_of_the_message():
    error = EbbflowError("what happened", hint="do this")
    assert (str(error), error.hint) == ("what happened", "do this")


def test_rate_limited_says_how_long():
    assert RateLimited("slow down", retry_after_s=2.5).retry_after_s == 2.5


@pytest.mark.parametrize(
    ("cls", "retriable", "scope"),
    [
        (errors.NetworkError, True, Scope.PROCESS),
        (errors.RateLimited, True, Scope.PROCESS),
        (errors.BatchInvalid, False, Scope.RECORD),
        (errors.RowInvalid, False, Scope.ROW),
        (errors.ConfigError, False, Scope.PROCESS),
    ],
)
def test_boundaries_find_what_they_decide_on(cls, retriable, scope):
    assert (cls.retriable, cls.scope) == (retriable, scope)
