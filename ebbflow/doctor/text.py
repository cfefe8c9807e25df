"""Small things of the checks: files that may not be there, sizes for people."""

from __future__ import annotations

from pathlib import Path


def read(path: Path) -> str:
    """A small file's text; empty when it cannot be read."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def size(count: int) -> str:
    """Bytes for people: `512 MiB`, `23.5 GiB`."""
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count >> 20} MiB"
