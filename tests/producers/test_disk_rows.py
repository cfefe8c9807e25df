"""The rows that the producer makes of the program's maps."""

import numpy as np

from ebbflow.kernel.layout import BPF_DIRECTORY, event_layout, read_header
from producers.disk import error_rows, finished, flights, with_flights

STRUCTS = read_header(BPF_DIRECTORY / "disk.h").structs
LAYOUT = event_layout(BPF_DIRECTORY / "disk.h")


def table(kind: str, *places: tuple[int, int, int]) -> np.ndarray:
    keys = np.zeros(len(places), STRUCTS[kind].dtype)
    for index, place in enumerate(places):
        keys["major"][index], keys["minor"][index], keys["operation"][index] = place
    return keys


PLACE = ("major", "minor", "operation")


def under_way(*places: tuple[int, int, int], issue_ns: int = 1, pid: int = 0) -> np.ndarray:
    states = table("disk_under_way", *places)
    states["issue_ns"], states["owner_pid"], states["owner_start_boottime_ns"] = issue_ns, pid, 1009 * pid
    return states


def test_flights_are_those_with_the_driver_with_their_owner():
    states = np.concatenate([under_way((7, 3, 1), issue_ns=0), under_way((254, 0, 1), pid=23)])
    keys = flights(states)
    assert keys[["major", "minor", "operation", "pid", "start_boottime_ns"]].tolist() == [(254, 0, 1, 23, 23 * 1009)]


def test_with_flights_row_of_its_place_gets_them():
    keys = table("disk_key", (254, 0, 0), (254, 0, 1))
    io = np.zeros(2, STRUCTS["disk_io"].dtype)
    keys, io = with_flights(keys, io, flights(under_way(*[(254, 0, 1)] * 5)), PLACE)
    assert io["in_flight"].tolist() == [0, 5]


def test_with_flights_of_several_processes_are_one_devices():
    states = np.concatenate([under_way((254, 0, 1), pid=23), under_way((254, 0, 1), pid=29)])
    io = np.zeros(1, STRUCTS["disk_io"].dtype)
    assert with_flights(table("disk_key", (254, 0, 1)), io, flights(states), PLACE)[1]["in_flight"].tolist() == [2]
    owners = (*PLACE, "pid", "start_boottime_ns")
    keys, io = with_flights(table("disk_key"), np.zeros(0, io.dtype), flights(states), owners)
    assert sorted(zip(keys["pid"].tolist(), io["in_flight"].tolist(), strict=True)) == [(23, 1), (29, 1)]


def test_with_flights_idle_device_with_a_stuck_request_gets_a_row():
    io = np.zeros(1, STRUCTS["disk_io"].dtype)
    flying = flights(under_way((7, 3, 1), (7, 3, 1)))
    rows = finished(*with_flights(table("disk_key", (254, 0, 0)), io, flying, PLACE))
    assert rows[["major", "minor", "operation", "in_flight"]].tolist() == [(254, 0, 0, 0), (7, 3, 1, 2)]


def test_with_flights_nothing_at_all_stays_so():
    keys, io = table("disk_key"), np.zeros(0, STRUCTS["disk_io"].dtype)
    assert len(with_flights(keys, io, flights(under_way()), PLACE)[1]) == 0


def test_finished_requests_are_the_timed_and_the_untimed():
    io = np.zeros(1, STRUCTS["disk_io"].dtype)
    io["device_slots"][0, [3, 23]], io["untimed"] = [1009, 2], 5
    assert finished(table("disk_key", (254, 0, 0)), io)["requests"].tolist() == [1016]


def test_error_rows_say_place_and_status():
    keys = table("disk_error_key", (254, 16, 1))
    keys["status"] = 10
    assert error_rows(keys, np.array([3], np.uint64), LAYOUT.payload("errors")).tolist() == [(3, 254, 16, 1, 0, 10)]


def test_payload_of_device_and_process_is_the_same_struct():
    size = STRUCTS["disk_io"].dtype.itemsize
    assert (LAYOUT.payload("device").itemsize, LAYOUT.payload("process").itemsize) == (size, size)
