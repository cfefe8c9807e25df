"""The archive is read back by a tool that did not write it."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from vm.initramfs import Entry, archive


def test_archive_of_one_file_is_these_bytes():
    head = b"070701" + b"00000001" + b"000081ED" + b"00000000" * 2 + b"00000001" + b"00000000" + b"00000003"
    name = b"00000000" * 4 + b"00000002" + b"00000000" + b"a\0" + b"abc\0"
    assert archive([Entry.file("a", b"abc")])[: len(head + name)] == head + name


def test_archive_is_padded_to_words_everywhere():
    assert [len(archive([Entry.file("n" * size, b"d" * size)])) % 4 for size in range(9)] == [0] * 9


@pytest.mark.skipif(shutil.which("cpio") is None and shutil.which("busybox") is None, reason="nothing reads cpio")
def test_archive_is_unpacked_by_another_program(tmp_path):
    entries = [Entry.directory("bin"), Entry.file("bin/x", b"\x00\x01odd"), Entry.file("init", b"#!/bin/x\n")]
    command = ["cpio"] if shutil.which("cpio") else ["busybox", "cpio"]
    subprocess.run([*command, "-id"], input=archive(entries), cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "bin/x").read_bytes() == b"\x00\x01odd"
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
