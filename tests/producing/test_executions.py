import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebbflow.containers import Cgroups, parse_cgroups
from ebbflow.kernel.layout import BPF_DIRECTORY, event_layout
from ebbflow.producing.executions import parse_execution, payload_with, process_of_execution
from ebbflow.redaction import ArgumentMasker
from ebbflow.v1 import raw_pb2

LAYOUT = event_layout(BPF_DIRECTORY / "process.h")
HEAD = LAYOUT.payload("exec")


def payload(filename=b"/bin/true", interpreter=b"", arguments=b"true\0"):
    head = np.zeros((), HEAD)
    head["filename_bytes"], head["interpreter_bytes"] = len(filename), len(interpreter)
    head["arguments_bytes"] = head["arguments_total_bytes"] = len(arguments)
    head["uid"] = 1009
    return head.tobytes() + filename + interpreter + arguments


def parse(**parts):
    return parse_execution(payload(**parts), HEAD)


def row(pid=7, comm=b"true"):
    made = np.zeros(1, LAYOUT.row.dtype)[0]
    made["pid"], made["start_boottime_ns"], made["comm"] = pid, 23, comm
    return made


def test_parse_execution_of_a_script_has_script_interpreter_and_words():
    found = parse(
        filename=b"./run.py", interpreter=b"/usr/bin/python3", arguments=b"/usr/bin/python3\0-u\0./run.py\0\0"
    )
    assert (found.filename, found.interpreter, found.exe) == ("./run.py", "/usr/bin/python3", "/usr/bin/python3")
    assert found.argv == ("/usr/bin/python3", "-u", "./run.py", "")
    assert (found.is_cut, int(found.head["uid"])) == (False, 1009)


@pytest.mark.parametrize(
    ("arguments", "argv", "is_cut"),
    [
        (b"", (), False),
        (b"\0", ("",), False),
        (b"a\0b", ("a", "b"), True),
        (b"a\0", ("a",), False),
        (b"a", ("a",), True),
        (b"\xff\xfe\0", ("\udcff\udcfe",), False),
    ],
)
def test_parse_execution_arguments_as_they_come(arguments, argv, is_cut):
    found = parse(arguments=arguments)
    assert (found.argv, found.is_cut) == (argv, is_cut)


def test_parse_execution_lengths_beyond_the_payload_are_cut_to_it():
    whole = payload(arguments=b"true\0more\0")
    assert parse_execution(whole[:-7], HEAD).argv == ("tru",)
    assert parse_execution(whole[: HEAD.itemsize], HEAD).argv == ()


@given(st.binary(max_size=200), st.binary(max_size=30), st.binary(max_size=30))
def test_payload_with_the_same_words_is_the_same_bytes(arguments, filename, interpreter):
    whole = payload(filename=filename, interpreter=interpreter, arguments=arguments)
    found = parse_execution(whole, HEAD)
    assert payload_with(found, found.argv) == whole


def test_payload_with_masked_words_says_their_length():
    found = parse(arguments="app\0--token=größe\0".encode())
    masked = ArgumentMasker().mask(found.argv, cut=found.is_cut)
    again = parse_execution(payload_with(found, masked), HEAD)
    assert again.argv == ("app", "--token=*****")
    assert int(again.head["arguments_bytes"]) == len(b"app\0--token=*****\0")
    assert int(again.head["arguments_total_bytes"]) == len("app\0--token=größe\0".encode())


def test_process_of_execution_outside_of_containers_is_named_after_the_script():
    found = parse(filename=b"/srv/shop.py", interpreter=b"/usr/bin/python3", arguments=b"python3\0/srv/shop.py\0-v\0")
    process = process_of_execution(row(), found, found.argv, parse_cgroups("0::/system.slice/shop.service\n"))
    assert (process.pid, process.start_boottime_ns, process.comm, process.exe) == (7, 23, "true", "/usr/bin/python3")
    assert (process.service_name, process.service_name_source) == ("shop", raw_pb2.SERVICE_NAME_SOURCE_EXE)
    assert (process.command_line, process.systemd_unit) == ("python3 /srv/shop.py -v", "shop.service")


def test_process_of_execution_in_a_container_is_named_after_it():
    container = "a1" * 32
    process = process_of_execution(row(), parse(), ["true"], parse_cgroups(f"0::/docker/{container}\n"))
    assert (process.container_id, process.container_runtime) == (container, "docker")
    assert process.service_name == container[:12]


def test_process_of_execution_bytes_that_are_no_text_do_not_fail():
    found = parse(filename=b"/bin/\xff", arguments=b"\xff\0")
    process = process_of_execution(row(comm=b"\xff"), found, found.argv, Cgroups())
    assert (process.exe, process.command_line, process.comm) == ("/bin/\ufffd", "\ufffd", "\ufffd")
    assert process.SerializeToString()
