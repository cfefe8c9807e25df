from __future__ import annotations

import os
import re

import pytest

from ebbflow.errors import ConfigError, PermissionDenied
from ebbflow.run.data_directory import claimed, prepare_demo
from ebbflow.run.parts import Demo


def test_claimed_twice_names_the_holder(tmp_path):
    refused = pytest.raises(ConfigError, match=rf"has .*/run already \(pid {os.getpid()}\)")
    with claimed(tmp_path / "run"), refused as caught, claimed(tmp_path / "run"):
        pass
    assert "ebbflow down --data-dir" in caught.value.hint


def test_claimed_again_after_it_was_left(tmp_path):
    for _ in range(2):
        with claimed(tmp_path):
            assert (tmp_path / "run.lock").read_text() == f"{os.getpid()}\n"


def test_claimed_unwritable_is_denied(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PermissionDenied, match="file/run"), claimed(tmp_path / "file/run"):
        pass


def test_claimed_error_inside_is_passed_on(tmp_path):
    with pytest.raises(BlockingIOError), claimed(tmp_path):
        raise BlockingIOError


def test_prepare_demo_fills_in_ports_and_forgets_pids(tmp_path):
    demo = Demo(directory=tmp_path / "demo", nginx_port=8101, shop_port=8102)
    demo.directory.mkdir()
    for file in demo.pid_files:
        file.write_text("1")
    prepare_demo(demo)
    text = (demo.directory / "nginx.conf").read_text()
    assert "listen 127.0.0.1:8101 reuseport;" in text
    assert "server 127.0.0.1:8102 " in text
    assert "Host $host;" in text
    assert not re.search(r"\$\{", text)
    assert [file.exists() for file in demo.pid_files] == [False, False]
    assert demo.url == "http://127.0.0.1:8101"
