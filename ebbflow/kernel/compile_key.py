"""What a compiled program depends on, as one key: equal keys are the same machine code.

BCC compiles inside the process and can load nothing that was compiled before, so clang runs at every start (0.4 s a
program file). The key is what tells two runs apart: it is in the log, and with a measured figure it says what ran.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from ebbflow.kernel.btf import VMLINUX

_DIGEST_BYTES = 16


def compile_key(text: str, flags: Iterable[str], machine: str) -> str:
    """32 hexadecimal digits for a source text with everything in it, compiler flags, and `machine_key`."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in (text, *flags, machine):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def machine_key(bcc: Any) -> str:
    """Kernel, its types, the headers that are compiled with, and BCC with the clang in it."""
    build = Path(f"/lib/modules/{os.uname().release}/build").resolve()
    parts = (os.uname().release, btf_hash(), f"{build}@{_stamp(build)}", str(bcc.__version__), _library())
    return " ".join(parts)


@lru_cache(maxsize=1)
def btf_hash(path: Path = VMLINUX) -> str:
    """Of the kernel's own types; empty without."""
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=_DIGEST_BYTES).hexdigest()
    except OSError:
        return ""


def _library() -> str:
    """BCC's library with its size and time: clang is linked into it, or beside it."""
    text = Path("/proc/self/maps").read_text("utf-8", "replace")
    paths = sorted({line.split()[5] for line in text.splitlines() if "/libbcc.so" in line or "/libclang" in line})
    return " ".join(f"{path}@{_stamp(Path(path))}" for path in paths)


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size}.{status.st_mtime_ns}"
