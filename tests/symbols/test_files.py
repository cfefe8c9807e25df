from __future__ import annotations

import os
from pathlib import Path

import pytest

from ebbflow.symbols import files
from ebbflow.symbols.files import MemorySource, open_file, open_in_root


@pytest.fixture
def root(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside/real").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"outside")
    return tmp_path / "inside"


def test_a_file_is_read_at_offsets(root):
    with open_file(root / "real") as file:
        assert (file.size, file.read(2, 3), file.read(2, 99), file.read(-1, 2), file.read(99, 2)) == (
            6,
            b"sid",
            b"side",
            b"",
            b"",
        )
    assert file.read(0, 3) == b""
    file.close()


def test_memory_is_read_likewise():
    source = MemorySource(b"inside")
    assert (source.size, source.read(2, 3), source.read(99, 2)) == (6, b"sid", b"")


def test_only_regular_files_are_opened(root):
    os.mkfifo(root / "fifo")
    assert open_file(root / "fifo") is None
    assert open_file("/dev/null") is None
    assert open_file(root) is None
    assert open_file(root / "absent") is None
    assert open_file(f"{root}/zero\0byte") is None


def test_links_count_from_the_root_and_cannot_lead_out(root):
    (root / "absolute").symlink_to("/real")
    (root / "upwards").symlink_to("../secret")
    (root / "away").symlink_to("/etc/passwd")
    with open_in_root(root, "/absolute") as file:
        assert file.read(0, 9) == b"inside"
    assert open_in_root(root, "/upwards") is None
    assert open_in_root(root, "/away") is None
    assert open_in_root(root, "/../secret") is None


def test_a_link_at_the_end_can_be_refused(root):
    (root / "link").symlink_to("real")
    assert open_in_root(root, "/link", follow_last=False) is None
    with open_in_root(root, "/real", follow_last=False) as file:
        assert file.uid == os.geteuid()


def test_without_openat2_no_link_at_the_end_is_followed(root, monkeypatch):
    monkeypatch.setattr(files, "_OPENAT2", 100_000)  # ENOSYS
    (root / "link").symlink_to("real")
    assert open_in_root(root, "/link") is None
    with open_in_root(root, "/real") as file:
        assert file.read(0, 9) == b"inside"


def test_identity_changes_with_the_content(root):
    with open_file(root / "real") as file:
        first = file.identity
    (root / "real").write_bytes(b"changed")
    with open_file(root / "real") as file:
        assert file.identity != first


def test_no_descriptor_is_left_open(root):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        open_in_root(root, "/absent")
        open_in_root(root, "/../secret")
        open_file(root)
        with open_in_root(root, "/real"):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before
