"""Events of a stream go in, what may leave comes out; `one`/`many` build the arrays that the producer passes."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebbflow.config import RedactionConfig
from ebbflow.redaction import ArgumentMasker, Masker, Redactor, mask_arguments

HEAD = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


def many(events, redactor=None, *, stream=2, gaps=()):
    """Events are bytes, or (bytes captured, size)."""
    redactor = redactor or Redactor(RedactionConfig())
    events = [event if isinstance(event, tuple) else (event, len(event)) for event in events]
    data, starts, ends, positions, sizes, position = b"", [], [], [], [], 0
    for index, (payload, size) in enumerate(events):
        position += dict(gaps).get(index, 0)
        starts.append(len(data))
        data += payload
        ends.append(len(data))
        positions.append(position)
        sizes.append(size)
        position += size
    return redactor.redact(data, starts, ends, [stream] * len(events), positions, sizes)


def one(payload, size=None, redactor=None):
    return many([(payload, len(payload) if size is None else size)], redactor)[0]


@pytest.mark.parametrize(
    "line",
    [
        b"Authorization: Basic dXNlcjpwYXNz",
        b"authorization:Bearer abc.def",
        b"PROXY-AUTHORIZATION: Digest x",
        b"Cookie: sid=1; theme=dark",
        b"Set-Cookie: sid=1; Path=/",
        b"X-Api-Key: 123456",
        b"X-Amz-Security-Token: FwoGZXIvYXdz",
        b"X-CSRF-Token: t0k3n",
        b"My-Secret: hush",
        b"X-Auth-User : admin",
    ],
)
def test_redact_credential_header_is_masked_at_equal_length(line):
    name, _, value = line.partition(b":")
    head = b"GET / HTTP/1.1\r\nHost: h\r\n" + line + b"\r\nAccept: */*\r\n\r\n"
    redacted = one(head)
    assert len(redacted) == len(head)
    assert value.strip() not in redacted
    assert name + b":" in redacted
    assert redacted.endswith(b"\r\nAccept: */*\r\n\r\n")


def test_redact_folded_header_value_is_masked_to_its_end():
    head = b"GET / HTTP/1.1\r\nAuthorization: Basic\r\n dXNlcjpwYXNz\r\nHost: h\r\n\r\n"
    assert b"dXNl" not in one(head)
    assert b"Host: h" in one(head)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/a?token=abc&x=1", b"/a?token=***&x=1"),
        (b"/a?x=1&Password=p%20w", b"/a?x=1&Password=*****"),
        (b"/a?access_token=abc#f", b"/a?access_token=***#f"),
        (b"/a?user[secret]=abc", b"/a?user[secret]=***"),
        (b"/a?key=abc&monkey=see", b"/a?key=***&monkey=see"),
        (b"/a?code=4&encode=5", b"/a?code=*&encode=5"),
        (b"/a;jsessionid=77?x=1", b"/a;jsessionid=**?x=1"),
        (b"http://user:pw@host/a", b"http://*******@host/a"),
    ],
)
def test_redact_request_target_masks_credentials_only(target, expected):
    assert one(b"GET " + target + b" HTTP/1.1\r\n\r\n") == b"GET " + expected + b" HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize("secret", [b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", b"AKIAIOSFODNN7EXAMPLE"])
def test_redact_credential_by_its_looks_is_masked_anywhere(secret):
    assert secret not in one(b"GET / HTTP/1.1\r\nX-Trace: " + secret + b"\r\n\r\n")


def test_redact_plain_head_is_untouched():
    head = (
        b"GET /items/7?page=2&sort=asc HTTP/1.1\r\nHost: shop.local:8080\r\nUser-Agent: curl/8\r\nAccept: a;q=0.9\r\n"
        b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n"
    )
    assert one(head) == head


def test_redact_body_is_dropped_and_next_head_kept():
    first = b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\n"
    assert one(first + b"hello") == first
    assert one(first + b"hello" + HEAD) == first + b"*****" + HEAD


def test_redact_body_that_looks_like_a_head_is_dropped():
    body = b"GET /fake?x=secret HTTP/1.1\r\n\r\n"
    head = b"POST /a HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert many([head, body, HEAD]) == [head, b"", HEAD]


def test_redact_body_beyond_the_capture_limit_is_counted():
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
    events = [(head + b"x" * 50, len(head) + 4000), (b"y" * 50, 1000), b"HTTP/1.1 204 No Content\r\n\r\n"]
    assert many(events) == [head, b"", b"HTTP/1.1 204 No Content\r\n\r\n"]


def test_redact_answer_to_head_is_followed_by_the_next_head():
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
    other = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    assert many([head, other + b"ok"]) == [head, other]
    assert one(head + other + b"ok") == head + other


def test_redact_chunked_body_keeps_sizes_only():
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    redacted = many([head + b"5;ext=secret\r\nhel", b"lo\r\n0\r\nX-Sum: secret\r\n\r\n" + head])
    assert redacted[0] == head + b"5;**********\r\n"
    assert redacted[1] == b"**\r\n0\r\n*************\r\n\r\n" + head


def test_redact_broken_chunks_are_dropped_until_a_head():
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    redacted = many([head + b"zz secret", b"more secret\r\n", HEAD])
    assert b"secret" not in b"".join(redacted)
    assert redacted[2] == HEAD


def test_redact_head_in_pieces_masks_what_the_pieces_hide():
    pieces = [b"GE", b"T /a HTTP/1.1\r\nAuthor", b"ization: sec", b"ret\r\n\r", b"\nPOST / HTTP/1.1\r\n\r\n"]
    redacted = many(pieces)
    assert redacted == [b"GE", b"T /a HTTP/1.1\r\nAuthor", b"ization: ***", b"***\r\n\r", b"\nPOST / HTTP/1.1\r\n\r\n"]


def test_redact_cookie_in_pieces_at_every_cut_never_shows_it():
    head = b"GET /a HTTP/1.1\r\nCookie: hushhush\r\nHost: x\r\n\r\n"
    for cut in range(1, len(head)):
        joined = b"".join(many([head[:cut], head[cut:]]))
        assert len(joined) == len(head)
        assert b"hush" not in joined.replace(b"Cookie", b""), cut


@pytest.mark.parametrize(
    "payload",
    [b"AUTH hunter2\r\n", b"SELECT * FROM users", b"\x16\x03\x01\x02\x00\x01", b"USER anonymous\r\n", b"DELETE FROM t",
     b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"*2\r\n$4\r\nAUTH\r\n$7\r\nhunter2\r\n"],
)  # fmt: skip
def test_redact_unknown_protocol_shows_nothing(payload):
    assert one(payload) == b""


def test_redact_gap_inside_a_body_is_bridged():
    head = b"POST /a HTTP/1.1\r\nContent-Length: 100\r\n\r\n"
    assert many([head, b"x" * 40, HEAD], gaps={1: 20, 2: 40}) == [head, b"", HEAD]


def test_redact_gap_beyond_the_body_starts_anew():
    head = b"POST /a HTTP/1.1\r\nContent-Length: 10\r\n\r\n"
    assert many([head, HEAD], gaps={1: 500}) == [head, HEAD]


def test_redact_repeated_event_inside_a_body_is_not_taken_from_the_cache():
    redactor = Redactor(RedactionConfig())
    assert one(HEAD, redactor=redactor) == HEAD
    head = b"POST /a HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(HEAD)
    assert many([head, HEAD, HEAD], redactor) == [head, b"", HEAD]


def test_redact_forgotten_stream_starts_anew():
    redactor = Redactor(RedactionConfig())
    many([b"POST /a HTTP/1.1\r\nContent-Length: 100\r\n\r\n"], redactor)
    redactor.forget([2])
    assert many([HEAD], redactor) == [HEAD]


def test_redact_disabled_passes_everything():
    redactor = Redactor(RedactionConfig(enabled=False))
    assert many([b"AUTH hunter2\r\n", HEAD], redactor) == [b"AUTH hunter2\r\n", HEAD]


def test_redact_bodies_asked_for_keeps_them_and_masks_heads():
    redactor = Redactor(RedactionConfig(bodies=False))
    message = b"POST /a?token=abc HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
    assert one(message, redactor=redactor) == message.replace(b"abc", b"***")


def test_redact_configured_names_are_masked_too():
    redactor = Redactor(RedactionConfig(headers=["X-Employee"], parameters=["badge"]))
    redacted = one(b"GET /a?badge=77 HTTP/1.1\r\nX-Employee: 4711\r\n\r\n", redactor=redactor)
    assert redacted == b"GET /a?badge=** HTTP/1.1\r\nX-Employee: ****\r\n\r\n"


REQUESTS = st.builds(
    lambda path, body: (
        b"POST /%d?token=hushhush HTTP/1.1\r\nCookie: hushhush\r\nContent-Length: %d\r\n\r\n" % (path, len(body)) + body
    ),
    st.integers(0, 99),
    st.binary(max_size=30).map(lambda noise: b"hushhush" + noise),
)


@settings(max_examples=60)
@given(st.lists(REQUESTS, min_size=1, max_size=5), st.lists(st.integers(1, 60), max_size=12))
def test_redact_any_cut_of_a_stream_hides_secrets_and_keeps_heads(requests, cuts):
    stream, events = b"".join(requests), []
    for cut in cuts:
        events.append(stream[:cut])
        stream = stream[cut:]
    events = [event for event in [*events, stream] if event]
    whole = many([b"".join(requests)])[0]
    redacted = many(events)
    assert b"hushhush" not in b"".join(redacted)
    assert all(len(out) <= len(event) for out, event in zip(redacted, events, strict=True))
    # What is shown is what would be shown of the whole; bodies at the end of an event are cut, not starred.
    position = 0
    for out, event in zip(redacted, events, strict=True):
        shown = whole[position : position + len(out)]
        assert all(a == b for a, b in zip(out, shown, strict=False))
        position += len(event)


@given(st.binary(max_size=300))
def test_mask_keeps_the_length_of_anything(head):
    assert len(Masker().mask(head)) == len(head)


def test_mask_arguments_hides_values_of_sensitive_options():
    words = "app --token=abc --password hush -v PGPASSWORD=x --port 80 http://u:p@h/ --api-key k"
    masked = "app --token=*** --password **** -v PGPASSWORD=* --port 80 http://***@h/ --api-key *"
    assert mask_arguments(words.split()) == masked.split()


@pytest.mark.parametrize(
    ("argv", "masked"),
    [
        (["sh", "-c", "run --password hush --x y"], ["sh", "-c", "run --password **** --x y"]),
        (["sh", "-c", "PGPASSWORD=x psql"], ["sh", "-c", "PGPASSWORD=******"]),
        (["sh", "-c", ": ; PGPASSWORD=x psql -h db"], ["sh", "-c", ": ; PGPASSWORD=* psql -h db"]),
        (["curl", "-H", "X-Api-Key: abc def"], ["curl", "-H", "X-Api-Key: *******"]),
        (["sh", "-c", "curl -H 'X-Token: ab' h"], ["sh", "-c", "curl -H 'X-Token: **' h"]),
        (["curl", "-u", "bob:pw", "h"], ["curl", "-u", "bob:**", "h"]),
        (["curl", "-ubob:pw", "h"], ["curl", "-ubob:**", "h"]),
        (["sh", "-c", "curl --user bob:pw h"], ["sh", "-c", "curl --user bob:** h"]),
        (["curl", "https://h/?key=1&a=2&token=3"], ["curl", "https://h/?key=*&a=2&token=*"]),
        (["x", '{"password": "p w", "a": 1}'], ["x", '{"password": "***", "a": 1}']),
        (["/usr/bin/mysql", "-psecret", "-uroot", "db"], ["/usr/bin/mysql", "-p******", "-uroot", "db"]),
        (["redis-cli", "-a", "pw", "get", "k"], ["redis-cli", "-a", "**", "get", "k"]),
        (["sshpass", "-ppw", "ssh", "h"], ["sshpass", "-p**", "ssh", "h"]),
    ],
)
def test_mask_arguments_inside_words_and_by_program(argv, masked):
    assert mask_arguments(argv) == masked


@pytest.mark.parametrize(
    "argv",
    [
        [],
        [""],
        ["python3", "-m", "auth.server"],
        ["docker", "run", "-u", "1000:1000", "app"],
        ["app", "--connect", "auth.svc:8080"],
        ["curl", "https://auth.example.com:8443/x"],
        ["sh", "-c", "echo the password is not here"],
        ["mkdir", "-p", "/srv/data"],
        ["\udcff"],
    ],
)
def test_mask_arguments_without_credentials_are_as_they_were(argv):
    assert mask_arguments(argv) == argv


@pytest.mark.parametrize("word", ["x://bob:hunt", "Bearer abc", "a eyJhbGc", "AKIA1234"])
def test_mask_cut_word_hides_what_may_be_the_beginning_of_a_credential(word):
    masked = ArgumentMasker().mask(["app", word], cut=True)[1]
    assert len(masked) == len(word)
    assert masked.endswith("***")
    assert ArgumentMasker().mask(["app", "plain"], cut=True) == ["app", "plain"]


def test_mask_arguments_names_of_the_user_count_too():
    assert ArgumentMasker(["Colour"]).mask(["x", "--colour=red", "--colour", "red"]) == [
        "x", "--colour=***", "--colour", "***",
    ]  # fmt: skip


@given(st.lists(st.text(max_size=30), max_size=6))
def test_mask_arguments_keeps_words_and_lengths(argv):
    assert [*map(len, mask_arguments(argv))] == [*map(len, argv)]


@pytest.mark.parametrize("word", ["a.-" * 1365, "-." * 2048, "auth-" * 800, "-auth " * 600, "://" * 1300, "eyJ" * 1300])
def test_mask_arguments_hostile_words_take_little_time(word):
    begin_s = time.process_time()
    mask_arguments(["token", word])
    assert time.process_time() - begin_s < 1.0  # quadratic time would be much more
