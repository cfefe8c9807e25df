"""The few modules that a guest needs to reach the host's files and a disk, with what they depend on."""

from __future__ import annotations

import lzma
import subprocess
from collections.abc import Iterator
from pathlib import Path

from vm.errors import Unavailable

MODULES = ("virtio_pci", "9pnet_virtio", "9p", "virtio_blk")


def keep_modules(tree: Path, release: str, directory: Path) -> None:
    """Copy them out of an unpacked kernel, uncompressed and numbered in the order of loading.

    Raises:
        Unavailable: the kernel lacks one.
    """
    directory.mkdir()
    files = dict.fromkeys(path for name in MODULES for path in _with_dependencies(tree, release, name))
    for number, path in enumerate(files):
        (directory / f"{number:02}-{path.name.partition('.')[0]}.ko").write_bytes(_uncompressed(path))


def _uncompressed(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def _with_dependencies(tree: Path, release: str, name: str) -> Iterator[Path]:
    command = ("modprobe", "--dirname", str(tree), "--set-version", release, "--show-depends", name)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise Unavailable(f"the kernel {release} has no module {name}: {done.stderr.strip()}")
    for line in done.stdout.splitlines():
        verb, _, file = line.strip().partition(" ")
        if verb == "insmod":  # else "builtin"
            yield Path(file.strip())
