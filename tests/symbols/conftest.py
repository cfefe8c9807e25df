"""Programs for the tests of symbols: compiled ones, and ELF files made by hand."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TEXT_VADDR, TEXT_OFFSET = 0x401000, 0x1000
GLOBAL, WEAK, LOCAL = 1, 2, 0
FUNC, NOTYPE, OBJECT, IFUNC = 2, 0, 1, 10


def elf_bytes(
    symbols,
    *,
    text_bytes: int = 0x1000,
    build_id: bytes = bytes(range(20)),
    table_type: int = 2,
    text: bytes = b"",
    extra: dict[str, bytes] | None = None,
) -> bytes:
    """A 64-bit ELF file with one code section at 0x401000 (file offset 0x1000).

    `symbols` are (name, value, size[, binding[, type[, section index]]]); section 1 is .text, 2 a data section.
    """
    names, rows = b"\0", struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0)
    for name, value, size, *rest in symbols:
        binding, kind, section = [*rest, *(GLOBAL, FUNC, 1)[len(rest) :]]
        rows += struct.pack("<IBBHQQ", len(names), binding << 4 | kind, 0, section, value, size)
        names += name.encode() + b"\0"
    note = struct.pack("<III", 4, len(build_id), 3) + b"GNU\0" + build_id
    text = text.ljust(text_bytes, b"\x90")
    contents = [
        (".text", 1, 6, TEXT_VADDR, text),
        (".data", 1, 3, TEXT_VADDR + 0x100000, bytes(16)),
        (".note.gnu.build-id", 7, 2, 0, note),
        (".symtab", table_type, 0, 0, rows),
        (".strtab", 3, 0, 0, names),
        *((name, 1, 0, 0, data) for name, data in (extra or {}).items()),
    ]
    section_names = b"\0" + b"".join(f"{name}\0".encode() for name, *_ in contents) + b".shstrtab\0"
    contents.append((".shstrtab", 3, 0, 0, section_names))
    body, headers = bytearray(), [bytes(64)]
    for name, kind, flags, vaddr, data in contents:
        offset = TEXT_OFFSET + len(body)
        link = 5 if name == ".symtab" else 0
        entry = 24 if name == ".symtab" else 0
        name_at = section_names.index(b"\0" + name.encode() + b"\0") + 1
        headers.append(struct.pack("<IIQQQQIIQQ", name_at, kind, flags, vaddr, offset, len(data), link, 0, 1, entry))
        body += data + bytes(-len(data) % 16)
    note_at = TEXT_OFFSET + len(text) + 16
    segments = struct.pack("<IIQQQQQQ", 1, 5, TEXT_OFFSET, TEXT_VADDR, TEXT_VADDR, len(text), len(text), 0x1000)
    segments += struct.pack("<IIQQQQQQ", 4, 4, note_at, 0, 0, len(note), len(note), 4)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    sections_at = TEXT_OFFSET + len(body)
    head += struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, TEXT_VADDR, 64, sections_at, 0, 64, 56, 2, 64, len(headers), len(headers) - 1
    )
    return (head + segments).ljust(TEXT_OFFSET, b"\0") + bytes(body) + b"".join(headers)


@pytest.fixture(scope="session")
def make_elf() -> Callable[..., bytes]:
    return elf_bytes


@pytest.fixture(scope="session")
def compiled(tmp_path_factory) -> Callable[..., Path]:
    """compiled("name", source, *flags): a program, or a C++ one when the source says so; made once."""
    if shutil.which("gcc") is None or shutil.which("g++") is None:
        pytest.skip("needs gcc and g++ (make setup)")
    folder = tmp_path_factory.mktemp("compiled")

    def compile_one(name: str, source: str, *flags: str, language: str = "c") -> Path:
        path = folder / name
        if not path.exists():
            compiler = "g++" if language == "c++" else "gcc"
            command = [compiler, "-x", language, "-", "-o", str(path), *flags]
            subprocess.run(command, input=source, text=True, check=True, capture_output=True)
        return path

    return compile_one


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """started(command): a process that has written its first line; ended with the test."""
    processes = []

    def start(*command: str | Path, **options) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*map(str, command)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, **options
        )
        processes.append(process)
        process.first_line = process.stdout.readline().strip()
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()
