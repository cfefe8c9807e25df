"""Whose sockets: on this process, and on a /proc made up."""

import os
import socket

from ebbflow.kernel.socket_owners import socket_owners


def test_socket_owners_of_this_process_are_its_open_sockets():
    with socket.socket() as end:
        inode = os.fstat(end.fileno()).st_ino
        assert socket_owners([os.getpid()])[inode] == os.getpid()
    assert inode not in socket_owners([os.getpid()])


def test_socket_owners_first_process_has_what_several_hold(tmp_path):
    for pid, links in ((7, ["socket:[101]", "/dev/null", "pipe:[9]"]), (11, ["socket:[101]", "socket:[103]"])):
        directory = tmp_path / str(pid) / "fd"
        directory.mkdir(parents=True)
        for number, link in enumerate(links):
            (directory / str(number)).symlink_to(link)
    assert socket_owners([7, 11, 13], tmp_path) == {101: 7, 103: 11}
