"""The parts of the producer that need no kernel."""

import numpy as np

from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from producers.tcp import kernel_at_least, stirred


def test_stirred_open_connections_with_new_segments_are_chosen():
    conns = np.zeros(4, read_header(BPF_DIRECTORY / "tcp.h").structs["tcp_tracked"].dtype)
    conns["segments"], conns["told"] = [0, 3, 3, 4], [0, 3, 2, 1]
    conns["is_closed"] = [0, 0, 0, 1]
    assert stirred(conns).tolist() == [False, False, True, False]


def test_kernel_at_least_compares_numbers():
    assert kernel_at_least(5, 8)
    assert not kernel_at_least(99, 0)
