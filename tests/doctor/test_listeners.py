import os
import socket

from ebbflow.doctor.listeners import find_listener, listening_inodes

TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:37EE 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 777 1 0 100 0 0 10 0
   1: 0100007F:37EE 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 778 1 0 100 0 0 10 0
   2: 0100007F:37EF 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 779 1 0 100 0 0 10 0
   cut
"""


def test_listening_inodes_only_listeners_of_that_port(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net/tcp").write_text(TABLE)
    assert listening_inodes(0x37EE, tmp_path) == {777}


def test_find_listener_passes_over_processes_it_may_not_read(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net/tcp").write_text(TABLE)
    (tmp_path / "1").mkdir()
    (tmp_path / "2/fd").mkdir(parents=True)
    (tmp_path / "2/fd/3").touch()
    (tmp_path / "2/fd/4").symlink_to("socket:[778]")
    assert find_listener(0x37EE, tmp_path) is None


def test_find_listener_of_this_process():
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = find_listener(server.getsockname()[1])
    assert found is not None
    assert found.pid == os.getpid()


def test_find_listener_nobody_listens():
    assert find_listener(1) is None
