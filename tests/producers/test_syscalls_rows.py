"""The rows that the producer makes of the program's maps."""

import numpy as np

from ebbflow.kernel.layout import BPF_DIRECTORY, event_layout, read_header
from producers.syscalls import errors, totals

HEADER = read_header(BPF_DIRECTORY / "syscalls.h")
LAYOUT = event_layout(BPF_DIRECTORY / "syscalls.h")


def test_totals_calls_are_all_slots_and_the_untimed():
    keys = np.zeros(2, HEADER.structs["syscalls_key"].dtype)
    counts = np.zeros(2, HEADER.structs["syscalls_counts"].dtype)
    keys["number"] = [0, -1]
    counts["slots"][0, [3, 27]] = [7, 2**32 - 1]
    counts["untimed"] = [3, 1]
    counts["errors"], counts["total_ns"], counts["max_ns"] = [5, 0], [1009, 0], [503, 0]
    rows = totals(keys, counts, LAYOUT.payload("total"))
    assert rows["calls"].tolist() == [7 + 2**32 - 1 + 3, 1]
    assert rows["number"].tolist() == [0, -1]
    assert (rows["errors"][0], rows["total_ns"][0], rows["max_ns"][0]) == (5, 1009, 503)


def test_totals_of_nothing_are_no_rows():
    keys = np.zeros(0, HEADER.structs["syscalls_key"].dtype)
    assert len(totals(keys, np.zeros(0, HEADER.structs["syscalls_counts"].dtype), LAYOUT.payload("total"))) == 0


def test_errors_rows_say_call_and_errno():
    keys = np.zeros(1, HEADER.structs["syscalls_error_key"].dtype)
    keys["number"], keys["error"] = 257, 2
    rows = errors(keys, np.array([503], np.uint64), LAYOUT.payload("errors"))
    assert rows.tolist() == [(503, 257, 2)]
