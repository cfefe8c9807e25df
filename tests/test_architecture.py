"""Who may import whom, and the other rules of the house that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebbflow.topics import CATALOGUE

CHECKOUT = Path(__file__).parents[1]
COMPONENTS = ("producers", "processors", "sinks")
PACKAGES = ("ebbflow", *COMPONENTS)
FAUST = {"faust", "mode"}
# What touches the world outside: pure code gets bytes, times and numbers as arguments.
IMPURE = {
    "aiokafka", "asyncio", "bcc", "concurrent", "confluent_kafka", "duckdb", "fastapi", "fileinput", "grpc", "httpx",
    "io", "logging", "multiprocessing", "os", "pathlib", "random", "requests", "sched", "secrets", "select",
    "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "structlog", "subprocess", "sys", "tempfile",
    "threading", "time", "urllib3", "uvicorn",
}  # fmt: skip
IMPURE_CALLS = {"open", "print", "input", "datetime.now", "datetime.utcnow", "date.today"}
# Names of package registries, put together here so that this file does not name one either.
REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"), ("pythonhosted", "org"), ("proxy", "golang", "org"), ("sum", "golang", "org"),
        ("repo", "maven", "apache", "org"), ("repo1", "maven", "org"), ("registry", "npmjs", "org"), ("crates", "io"),
        ("deb", "debian", "org"), ("security", "debian", "org"), ("archive", "ubuntu", "com"),
    )
]  # fmt: skip
# Directories that exist on one machine only: home of root or of a person, scratch and work directories.
MACHINE_PATH = re.compile(r"(?<![\w.$}>)-])/(?:root|work|opt/wheels|tmp/boot|home/(?!user\b|app\b|alice\b)\w+)/")


def sources(package: str) -> list[Path]:
    return sorted((CHECKOUT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = path.relative_to(CHECKOUT).with_suffix("").parts[: -node.level]
                base = ".".join([*package, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def calls(path: Path) -> set[str]:
    """Functions that a file calls, as they are written."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}


def committed() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, check=True).stdout
    return [CHECKOUT / name for name in listed.decode().split("\0") if name and (CHECKOUT / name).is_file()]


def component_of(path: Path) -> str:
    """`processors.requests` for processors/requests.py and for everything in processors/requests/."""
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:2])


@pytest.mark.parametrize("path", [p for package in COMPONENTS for p in sources(package)], ids=name_of)
def test_component_imports_no_other_component(path):
    own = component_of(path)
    others = {name for name in imports(path) if name.partition(".")[0] in COMPONENTS}
    assert {name for name in others if name != own and not name.startswith(f"{own}.")} == set()


@pytest.mark.parametrize("path", sources("ebbflow"), ids=name_of)
def test_core_imports_no_component(path):
    assert roots(path) & set(COMPONENTS) == set()


@pytest.mark.parametrize("path", [p for package in PACKAGES for p in sources(package)], ids=name_of)
def test_nothing_imports_tests_or_bench(path):
    assert roots(path) & {"tests", "bench", "pytest", "hypothesis"} == set()


@pytest.mark.parametrize("path", [p for package in PACKAGES for p in sources(package)], ids=name_of)
def test_faust_is_known_to_the_stream_alone(path):
    if name_of(path) != "ebbflow/stream.py" and not name_of(path).startswith("ebbflow/stream/"):
        assert roots(path) & FAUST == set()


@pytest.mark.parametrize("path", sources("ebbflow/protocols") + sources("processors"), ids=name_of)
def test_pure_code_imports_and_calls_nothing_of_the_world_outside(path):
    assert roots(path) & IMPURE == set()
    assert calls(path) & IMPURE_CALLS == set()


@pytest.mark.parametrize("path", sources("ebbflow/protocols"), ids=name_of)
def test_protocols_know_of_no_batch_no_kafka_and_no_otlp(path):
    own = {name.split(".")[1] for name in imports(path) if name.startswith("ebbflow.")}
    assert own <= {"protocols", "errors"}


@pytest.mark.parametrize("feature", [p.stem for p in (CHECKOUT / "producers").glob("[a-z]*.py")])
def test_feature_has_one_stem_everywhere(feature):
    for path in (f"bpf/{feature}.c", f"bpf/{feature}.h"):
        assert (CHECKOUT / path).exists(), path
    assert f"ebbflow.raw.{feature}" in {topic.name for topic in CATALOGUE}


def test_committed_files_name_no_registry_and_no_path_of_one_machine():
    found = []
    for path in committed():
        text = path.read_bytes().decode("utf-8", "replace")
        found += [f"{name_of(path)}: {host}" for host in REGISTRIES if host in text]
        found += [f"{name_of(path)}: {match[0]}" for match in MACHINE_PATH.finditer(text)]
    assert found == []


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock", "compose/collector/go.lock"])
def test_lock_has_hashes_for_everything_and_no_place(lock):
    text = (CHECKOUT / lock).read_text("utf-8")
    pins = re.findall(r"^[\w.-]+==[^\s\\]+ \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", text, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[\w.-]+\s*(?:==|@)", text, re.MULTILINE)) > 0
    assert re.findall(r"://|--(?:index-url|extra-index-url|find-links|trusted-host)", text) == []


def test_locks_pin_every_dependency_that_is_declared():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[^\w-]", requirement)[0] for requirement in declared}
    pinned = set(re.findall(r"^([\w.-]+)==", (CHECKOUT / "requirements-dev.lock").read_text("utf-8"), re.MULTILINE))
    assert names - pinned == set(), "run: make lock"


def test_generated_files_say_so_on_line_one():
    generated = [*(CHECKOUT / "ebbflow/v1").glob("*_pb2.py*"), CHECKOUT / "docs/topics.md"]
    assert len(generated) == 3
    assert all("enerated" in path.read_text("utf-8").splitlines()[0] for path in generated)
