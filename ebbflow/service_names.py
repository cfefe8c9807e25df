"""Which service a process is, from what /proc says of it.

In this order: OTEL_SERVICE_NAME; service.name of OTEL_RESOURCE_ATTRIBUTES; the container; the executable's base name,
or for an interpreter the script, module or jar it runs; the thread name (comm). All functions are pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from pathlib import PurePosixPath
from urllib.parse import unquote

from ebbflow.containers import short_id


class ServiceNameSource(IntEnum):
    """Values are those of `ServiceNameSource` in proto/ebbflow/v1/raw.proto."""

    OTEL_ENV = 1
    CONTAINER = 2
    EXE = 3
    COMM = 4


@dataclass(frozen=True, slots=True)
class ServiceName:
    name: str
    source: ServiceNameSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """How a family of interpreters reads its command line, as far as finding the script needs it.

    Letters may stand together (`-Im pkg`) and carry their value at once (`-mpkg`); options are whole words.
    """

    value_letters: str = ""
    code_letters: str = ""
    name_letters: str = ""
    value_options: frozenset[str] = frozenset()
    code_options: frozenset[str] = frozenset()
    name_options: frozenset[str] = frozenset()
    clusters: bool = True


_NODE = Interpreter(
    value_letters="rC",
    code_letters="ep",
    value_options=frozenset({"--require", "--import", "--loader", "--experimental-loader", "--conditions"}),
    code_options=frozenset({"--eval", "--print"}),
)
_JAVA = Interpreter(
    value_options=frozenset(
        {"-cp", "-classpath", "--class-path", "-p", "--module-path", "--upgrade-module-path", "--add-modules"}
        | {"--add-opens", "--add-exports", "--add-reads", "--limit-modules", "--patch-module", "--source"}
        | {"--enable-native-access"}
    ),
    name_options=frozenset({"-jar", "-m", "--module"}),
    clusters=False,
)
_SHELL = Interpreter(value_letters="oO", code_letters="c", value_options=frozenset({"--rcfile", "--init-file"}))
_PYTHON = Interpreter(value_letters="WX", code_letters="c", name_letters="m")
INTERPRETERS = {
    "python": _PYTHON,
    "pypy": _PYTHON,
    "node": _NODE,
    "nodejs": _NODE,
    "java": _JAVA,
    "ruby": Interpreter(value_letters="rICE", code_letters="e"),
    "perl": Interpreter(value_letters="I", code_letters="eE"),
    "php": Interpreter(value_letters="dcStzg", code_letters="rBRE", name_letters="fF"),
    "sh": _SHELL,
    "bash": _SHELL,
    "dash": _SHELL,
    "ksh": _SHELL,
    "zsh": _SHELL,
}
# Programs and scripts that only exist as open files: their paths name nothing.
_NAMELESS = ("/memfd:", "/dev/fd/", "/proc/self/fd/")
_VERSION = re.compile(r"[\d.]*[a-z]?$")
_SUFFIX = re.compile(r"\.(?:py|pyc|pyz|js|mjs|cjs|ts|rb|pl|php|phar|sh|jar|war)$")
_MAIN = re.compile(r"(?P<package>.+)[./]__main__$")


def choose(*, environ: Mapping[str, str], container_id: str, exe: str, argv: Sequence[str], comm: str) -> ServiceName:
    """Name a service; `argv` includes the program's own name, `exe` is empty when it could not be read."""
    if named := from_environ(environ):
        return ServiceName(named, ServiceNameSource.OTEL_ENV)
    if container_id:
        return ServiceName(short_id(container_id), ServiceNameSource.CONTAINER)
    if exe and not exe.startswith(_NAMELESS):
        return ServiceName(from_program(exe, argv), ServiceNameSource.EXE)
    return ServiceName(comm, ServiceNameSource.COMM)


def from_environ(environ: Mapping[str, str]) -> str:
    """The name that OpenTelemetry's own variables give; empty without one."""
    attributes = resource_attributes(environ.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    return environ.get("OTEL_SERVICE_NAME", "").strip() or attributes.get("service.name", "").strip()


def resource_attributes(text: str) -> dict[str, str]:
    """OTEL_RESOURCE_ATTRIBUTES: `key=value,…`, percent-encoded.

    As the specification asks, text with an error anywhere is discarded as a whole (OpenTelemetry specification,
    Resource SDK, "Specifying resource information via an environment variable").
    """
    attributes = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not key or not equals:
            return {}
        try:
            attributes[unquote(key, errors="strict")] = unquote(value, errors="strict")
        except UnicodeDecodeError:
            return {}
    return attributes


def from_program(exe: str, argv: Sequence[str]) -> str:
    """Base name of an executable, or of what an interpreter runs when its command line says so."""
    base = PurePosixPath(exe).name
    interpreter = INTERPRETERS.get(_VERSION.sub("", base)) or INTERPRETERS.get(base)
    script = find_script(interpreter, argv[1:]) if interpreter else None
    return _tidy(script) if script and not script.startswith(_NAMELESS) else base


def find_script(interpreter: Interpreter, arguments: Sequence[str]) -> str | None:
    """The script, module, class or jar among an interpreter's arguments; None for inline code and for none at all."""
    rest = iter(arguments)
    for word in rest:
        kind, value = _classify(interpreter, word)
        if kind is _Word.NAME:
            return value or next(rest, None)
        if kind is _Word.CODE:
            return None
        if kind is _Word.VALUE and not value:
            next(rest, None)
    return None


class _Word(Enum):
    """What a word of the command line is; where it takes a value and carries none, that is the next word."""

    NAME = auto()
    CODE = auto()
    VALUE = auto()
    FLAG = auto()


def _classify(interpreter: Interpreter, word: str) -> tuple[_Word, str]:
    if not word.startswith("-"):
        return _Word.NAME, word
    if word == "--" or word in interpreter.name_options:
        return _Word.NAME, ""
    if word == "-" or word in interpreter.code_options:
        return _Word.CODE, ""
    if word in interpreter.value_options:
        return _Word.VALUE, ""
    if interpreter.clusters and not word.startswith("--"):
        return _classify_letters(interpreter, word[1:])
    return _Word.FLAG, ""


def _classify_letters(interpreter: Interpreter, letters: str) -> tuple[_Word, str]:
    """The first letter that takes a value takes the rest of its word."""
    for index, letter in enumerate(letters):
        rest = letters[index + 1 :]
        if letter in interpreter.name_letters:
            return _Word.NAME, rest
        if letter in interpreter.code_letters:
            return _Word.CODE, rest
        if letter in interpreter.value_letters:
            return _Word.VALUE, rest
    return _Word.FLAG, ""


def _tidy(script: str) -> str:
    """`/srv/shop/app.py` is app, `shop/__main__.py` is shop, the module `shop.__main__` too."""
    name = _SUFFIX.sub("", script)
    if match := _MAIN.fullmatch(name):
        name = match["package"]
    return PurePosixPath(name).name or script
