"""Where the running kernel keeps what the programs read, from its own BTF.

Installed headers may be another kernel's: a program compiled against their structs loads and returns garbage without
a word. So no program reads a kernel struct through a header; it gets each offset as a `-D` flag from here, and the
producer proves them at start on sockets of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from ebbflow.kernel.btf import Btf

Members = Mapping[str, tuple[str, str]]

# For every program. Flag to (struct, member); dotted members go through nested structs.
_MEMBERS: Members = {
    "TASK_FILES": ("task_struct", "files"),
    "TASK_PID": ("task_struct", "pid"),
    "TASK_TGID": ("task_struct", "tgid"),
    "TASK_LEADER": ("task_struct", "group_leader"),
    "TASK_START": ("task_struct", "start_boottime"),
    "TASK_COMM": ("task_struct", "comm"),
    "TASK_MM": ("task_struct", "mm"),
    "MM_EXE_FILE": ("mm_struct", "exe_file"),
    "FILES_FDT": ("files_struct", "fdt"),
    "FILE_INODE": ("file", "f_inode"),
    "FILE_PRIVATE": ("file", "private_data"),
    "INODE_MODE": ("inode", "i_mode"),
    "INODE_NUMBER": ("inode", "i_ino"),
    "INODE_SB": ("inode", "i_sb"),
    "SB_DEV": ("super_block", "s_dev"),
    "SOCKET_SK": ("socket", "sk"),
    "SOCKET_TYPE": ("socket", "type"),
    "SOCK_FAMILY": ("sock_common", "skc_family"),
    "SOCK_NUM": ("sock_common", "skc_num"),
    "SOCK_DPORT": ("sock_common", "skc_dport"),
    "SOCK_RCV_SADDR": ("sock_common", "skc_rcv_saddr"),
    "SOCK_DADDR": ("sock_common", "skc_daddr"),
    "SOCK_V6_RCV_SADDR": ("sock_common", "skc_v6_rcv_saddr"),
    "SOCK_V6_DADDR": ("sock_common", "skc_v6_daddr"),
    "UNIX_ADDR": ("unix_sock", "addr"),
    "UNIX_PEER": ("unix_sock", "peer"),
    "UNIX_ADDRESS_LEN": ("unix_address", "len"),
    "UNIX_ADDRESS_NAME": ("unix_address", "name"),
    "REGS_R10": ("pt_regs", "r10"),
}


def offset_flags(btf: Btf, more: Members) -> dict[str, int]:
    """Compiler definitions `OFFSET_*`, in bytes; `more` are members that one feature needs beside those of all.

    Raises:
        LayoutMismatch: a struct or member is not in this kernel.
    """
    return {f"OFFSET_{flag}": btf.offset(struct, member) for flag, (struct, member) in {**_MEMBERS, **more}.items()}
