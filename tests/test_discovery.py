from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from ebbflow import discovery
from ebbflow.component import Processor, Result
from ebbflow.errors import ConfigError


class Echo(Processor):
    name = "echo"
    inputs = ("a",)

    @classmethod
    def from_config(cls, config):
        return cls()

    def process(self, record):
        return Result()

    def snapshot(self):
        return b""

    def restore(self, state):
        return None


@dataclass
class Entry:
    """An entry point whose target is at hand, or fails to be."""

    name: str
    target: object
    value: str = "package.module:Name"
    dist: object = field(default_factory=lambda: SimpleNamespace(name="their-package"))

    def load(self):
        if isinstance(self.target, Exception):
            raise self.target
        return self.target


@pytest.fixture
def entries(monkeypatch):
    found: list[Entry] = []
    monkeypatch.setattr(discovery, "entry_points", lambda group: found if group == "ebbflow.processors" else [])
    return found


def forget_modules():
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "processors"}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `processors` of the test's own, in place of the checkout's."""
    saved = forget_modules()
    folder = tmp_path / "processors"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    forget_modules()
    sys.modules.update(saved)


PART = """
from ebbflow.component import Processor, Result

class Base(Processor):
    name = "base"

class Mine(Base):
    name = "mine"
    inputs = ("a",)
    from_config = classmethod(lambda cls, config: cls())
    process = lambda self, record: Result()
    snapshot = lambda self: b""
    restore = lambda self, state: None

class Helper:
    name = "helper"

anything = 3
"""


def test_find_entry_point_gives_its_class_by_name(entries, package):
    entries.append(Entry("echo", Echo))
    assert discovery.find("processors") == {"echo": Echo}


def test_find_module_gives_concrete_named_classes_only(entries, package):
    (package / "mine.py").write_text(PART)
    found = discovery.find("processors")
    assert [(name, part.__name__) for name, part in found.items()] == [("mine", "Mine")]


def test_find_private_module_is_left_out(entries, package):
    (package / "_mine.py").write_text(PART)
    assert discovery.find("processors") == {}


def test_find_name_known_twice_takes_the_checkouts(entries, package):
    (package / "mine.py").write_text(PART)
    entries.append(Entry("mine", Echo))
    assert discovery.find("processors")["mine"].__name__ == "Mine"


def test_find_result_is_sorted_by_name(entries, package):
    (package / "mine.py").write_text(PART)
    entries.extend([Entry("zebra", Echo), Entry("aardvark", Echo)])
    assert list(discovery.find("processors")) == ["aardvark", "mine", "zebra"]


@pytest.mark.parametrize("fault", [ImportError("no such thing"), RuntimeError("at import"), AttributeError("Name")])
def test_find_broken_entry_point_is_a_warning_with_its_name(entries, package, fault):
    entries.extend([Entry("broken", fault), Entry("echo", Echo)])
    with capture_logs() as logs:
        assert discovery.find("processors") == {"echo": Echo}
    (line,) = logs
    assert (line["log_level"], line["name"], line["package"]) == ("warning", "broken", "their-package")


def test_find_broken_entry_point_without_distribution_names_its_value(entries, package):
    entries.append(Entry("broken", ImportError("x"), dist=None))
    with capture_logs() as logs:
        assert discovery.find("processors") == {}
    assert logs[0]["package"] == "package.module:Name"


def test_find_entry_point_that_is_no_class_is_a_warning(entries, package):
    entries.append(Entry("function", len))
    with capture_logs() as logs:
        assert discovery.find("processors") == {}
    assert logs[0]["event"] == "part is not a class"


def test_find_module_that_cannot_be_imported_is_a_warning(entries, package):
    (package / "needs.py").write_text("import nowhere_to_be_found")
    (package / "mine.py").write_text(PART)
    with capture_logs() as logs:
        assert list(discovery.find("processors")) == ["mine"]
    assert [line["name"] for line in logs] == ["processors.needs"]


def test_find_without_package_gives_entry_points_only(entries, monkeypatch):
    def no_package(name):
        raise ImportError(name)

    monkeypatch.setattr(discovery.importlib, "import_module", no_package)
    entries.append(Entry("echo", Echo))
    assert discovery.find("processors") == {"echo": Echo}


def test_get_known_name_gives_its_class(entries, package):
    entries.append(Entry("echo", Echo))
    assert discovery.get("processors", "echo") is Echo


def test_get_unknown_name_lists_the_known_ones(entries, package):
    entries.append(Entry("echo", Echo))
    with pytest.raises(ConfigError, match="there is no processor named 'ecko'") as caught:
        discovery.get("processors", "ecko")
    assert caught.value.hint == "known processors: echo"


def test_get_empty_group_says_so(entries, package):
    with pytest.raises(ConfigError) as caught:
        discovery.get("processors", "echo")
    assert caught.value.hint == "known processors: none is installed"
