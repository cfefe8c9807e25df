"""One text for BCC from a program file and our own headers.

BCC turns map calls (`map.lookup(…)`) into C in its main file only: in an included file they are errors. So quoted
includes are put in place here, each header once. `#line` tells clang where every line came from: errors, and the line
information that the verifier's log quotes, name our files. Includes in angle brackets are left to clang.

BCC puts attributes, each on a line of its own, before functions: so a function's body is counted anew from its brace,
if that stands at the start of a line, as clang-format puts it.

A quoted include inside an #ifdef is put in place whatever the condition says: keep them outside.

Tables that programs of one process share are written as BCC has them: BPF_TABLE_PUBLIC in the owner, and in the others
BPF_TABLE("extern", …). But BCC 0.26 finds them in a list of descriptor numbers that is never cleaned up: after the
owner is closed and made anew, the number is somebody else's file. So both become tables like any other, and the loader
puts the owner's map in the place of the others' (ebbflow/kernel/shared_tables.py). The function that EXTERN_TABLE makes
is how the loader learns of the name; it is never loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ebbflow.errors import KernelError

_INCLUDE = re.compile(r'[ \t]*#[ \t]*include[ \t]*"([^"]+)"')
_PUBLIC = re.compile(r"\bBPF_TABLE_PUBLIC\b")
_EXTERN = re.compile(r'\bBPF_TABLE[ \t]*\([ \t]*"extern"[ \t]*,')
EXTERN_PREFIX, EXTERN_TYPE = "extern__", "EXTERN_TYPE_"
_PREAMBLE = (
    f"#define EXTERN_TABLE(key, value, name, entries) BPF_TABLE({EXTERN_TYPE}##name, key, value, name, entries); "
    f"int {EXTERN_PREFIX}##name(void *ctx) {{ return 0; }}"
)


@dataclass(frozen=True)
class SourceText:
    """Text with everything in it, and the files that its lines name."""

    text: str
    files: dict[str, Path]

    def line(self, name: str, number: int) -> str:
        """A line of one of the files as it was written, stripped; empty where there is no such line."""
        if name not in self.files:
            return ""
        lines = self.files[name].read_text("utf-8").splitlines()
        return lines[number - 1].strip() if 0 < number <= len(lines) else ""


def read_source(path: Path) -> SourceText:
    """Read a program file with the headers that it includes in quotes, found beside the file that includes them.

    Raises:
        KernelError: the file, or a header, is not there.
    """
    files: dict[str, Path] = {}
    text = "\n".join([_PREAMBLE, *_lines(path, files, path.parent)])
    return SourceText(f"{text}\n", files)


def _lines(path: Path, files: dict[str, Path], root: Path) -> Iterator[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise KernelError(f"{path}: {error.strerror}", hint="reinstall ebbflow: its bpf folder is incomplete") from None
    name = path.name if path.parent == root else str(path)
    files[name] = path
    yield f'#line 1 "{name}"'
    for number, line in enumerate(lines, 1):
        include = _INCLUDE.match(line)
        if not include:
            yield _EXTERN.sub("EXTERN_TABLE(", _PUBLIC.sub("BPF_TABLE", line))
            if line == "{":
                yield f'#line {number + 1} "{name}"'
            continue
        header = path.parent / include[1]
        if header not in files.values():
            yield from _lines(header, files, root)
        yield f'#line {number + 1} "{name}"'
