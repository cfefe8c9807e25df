"""The rows that the producer makes of the program's maps."""

import numpy as np

from ebbflow.kernel.layout import BPF_DIRECTORY, event_layout, read_header
from producers.disk import error_rows, placed, with_flights

STRUCTS = read_header(BPF_DIRECTORY / "disk.h").structs
LAYOUT = event_layout(BPF_DIRECTORY / "disk.h")


def table(kind: str, *places: tuple[int, int, int]) -> np.ndarray:
    keys = np.zeros(len(places), STRUCTS[kind].dtype)
    for index, place in enumerate(places):
        keys["major"][index], keys["minor"][index], keys["operation"][index] = place
    return keys


def test_with_flights_row_of_its_place_gets_them():
    keys = table("disk_key", (254, 0, 0), (254, 0, 1))
    io = np.zeros(2, STRUCTS["disk_io"].dtype)
    io["requests"] = [7, 11]
    keys, io = with_flights(keys, io, table("disk_flight_key", (254, 0, 1), (7, 3, 0)), np.array([5, 0]))
    assert io["in_flight"].tolist() == [0, 5]
    assert io["requests"].tolist() == [7, 11]


def test_with_flights_idle_device_with_a_stuck_request_gets_a_row():
    keys, io = with_flights(
        table("disk_key", (254, 0, 0)),
        np.zeros(1, STRUCTS["disk_io"].dtype),
        table("disk_flight_key", (7, 3, 1)),
        np.array([2]),
    )
    rows = placed(keys, io)
    assert rows[["major", "minor", "operation", "in_flight"]].tolist() == [(254, 0, 0, 0), (7, 3, 1, 2)]


def test_with_flights_nothing_at_all_stays_so():
    keys, io = table("disk_key"), np.zeros(0, STRUCTS["disk_io"].dtype)
    assert len(with_flights(keys, io, table("disk_flight_key"), np.zeros(0, np.int64))[1]) == 0


def test_error_rows_say_place_and_status():
    keys = table("disk_error_key", (254, 16, 1))
    keys["status"] = 10
    assert error_rows(keys, np.array([3], np.uint64), LAYOUT.payload("errors")).tolist() == [(3, 254, 16, 1, 0, 10)]


def test_payload_of_device_and_process_is_the_same_struct():
    size = STRUCTS["disk_io"].dtype.itemsize
    assert (LAYOUT.payload("device").itemsize, LAYOUT.payload("process").itemsize) == (size, size)
