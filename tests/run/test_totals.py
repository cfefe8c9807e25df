from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from ebbflow.producing.metrics import ProducerMetrics
from ebbflow.run.totals import LOSSES, SPANS, Series, Totals, fetch, plain_line, read_samples
from ebbflow.testing.told_producer import ToldProducer

PRODUCER = """\
# HELP ebpf_events_lost_total Events lost
# TYPE ebpf_events_lost_total counter
ebpf_events_lost_total{feature="sockets",stage="kernel",cpu=""} 1.0
ebpf_events_lost_total{feature="sockets",stage="ring",cpu="1"} 2.0
ebpf_events_lost_total{feature="sockets",stage="buffer",cpu=""} 4.0
"""
SINK = """\
# HELP ebbflow_sink_exported_total Items
# TYPE ebbflow_sink_exported_total counter
ebbflow_sink_exported_total{sink="traces"} %d
ebbflow_sink_exported_total{sink="other"} 1
"""


def make(**texts):
    def get(url):
        if url not in texts:
            raise OSError
        return texts[url]

    return Totals({"producer": "producer", "processor": "processor", "sink": "sink"}, get=get), texts


def test_read_samples_sums_what_has_the_labels():
    found = read_samples(PRODUCER + SINK % 5, [SPANS, *LOSSES.values()])
    assert found == {SPANS: 6, LOSSES["kernel"]: 3, LOSSES["buffer"]: 4}


def test_losses_of_a_producer_are_all_in_one_of_them():
    registry = CollectorRegistry()
    producer = ToldProducer(by_cpu={("ring", 0): 5, ("ring", 1): 7})
    counters = {"captured": 100, "lost": 15, "dropped": 11, "published": 0, "buffered": 0}
    ProducerMetrics(registry).update(producer, counters)
    found = read_samples(generate_latest(registry).decode(), LOSSES.values())
    assert found == {LOSSES["kernel"]: 15, LOSSES["buffer"]: 11}


def test_read_samples_unknown_series_is_left_out():
    assert read_samples(PRODUCER, [Series("producer", "other")]) == {}


def test_totals_before_anything_answers_are_nought():
    totals, _ = make()
    totals.refresh()
    assert totals.spans == 0
    assert totals.losses() == {"kernel": 0, "buffer": 0, "unreadable": 0, "backend": 0}


def test_totals_survive_a_restart_of_who_counts():
    totals, texts = make(sink=SINK % 10, producer=PRODUCER)
    totals.refresh()
    texts["sink"] = SINK % 3
    totals.refresh()
    del texts["sink"]
    totals.refresh()
    assert totals.spans == 11 + 4
    assert totals.losses() == {"kernel": 3, "buffer": 4, "unreadable": 0, "backend": 0}


def test_plain_line_shows_rate_and_losses():
    totals, _ = make(sink=SINK % 99, producer=PRODUCER)
    totals.refresh()
    assert plain_line("10:00:00", totals, 50, 5.0) == "10:00:00  100 spans  10.0/s  lost: kernel 3, buffer 4"


def test_plain_line_without_losses_says_so():
    totals, _ = make()
    assert plain_line("10:00:00", totals, 0, 0.0) == "10:00:00  0 spans  0.0/s  lost: nothing"


@pytest.fixture
def server():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/ok" else 503)
            self.end_headers()
            self.wfile.write(b"body")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_fetch_gives_the_body_whatever_proxy_is_set(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert fetch(f"{server}/ok") == "body"


def test_fetch_bad_status_is_an_oserror(server):
    with pytest.raises(OSError, match="503"):
        fetch(f"{server}/bad")
