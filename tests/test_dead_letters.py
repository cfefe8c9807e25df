from ebbflow.component import DeadLetter, Record
from ebbflow.dead_letters import HEADERS, to_output

RECORD = Record("otlp_spans", 3, 41, 1_700_000_000_000, b"k", b"value")


def test_to_output_keeps_the_bytes_and_says_where_from_and_why():
    output = to_output(RECORD, DeadLetter("EBB710", "nö", b"value", 7), stage="sink.traces", time_unix_ns=5)
    assert (output.topic, output.key, output.value) == ("ebbflow.dlq", b"otlp_spans", b"value")
    assert dict(output.headers) == {
        "ebbflow-topic": b"otlp_spans",
        "ebbflow-partition": b"3",
        "ebbflow-offset": b"41",
        "ebbflow-timestamp-ms": b"1700000000000",
        "ebbflow-stage": b"sink.traces",
        "ebbflow-code": b"EBB710",
        "ebbflow-reason": "nö".encode(),
        "ebbflow-time-unix-ns": b"5",
        "ebbflow-count": b"7",
    }


def test_to_output_headers_come_in_the_order_of_the_contract():
    output = to_output(RECORD, DeadLetter("c", "r", b""), stage="s", time_unix_ns=0)
    assert tuple(name for name, _ in output.headers) == HEADERS


def test_to_output_long_reason_with_lone_surrogates_is_cut_and_encoded():
    output = to_output(RECORD, DeadLetter("c", "\udc80" * 5000, b""), stage="s", time_unix_ns=0)
    assert dict(output.headers)["ebbflow-reason"] == b"?" * 1000
