from __future__ import annotations

from ebbflow.run.logs import REPEAT_S, Reader, Tail, read_last_words
from ebbflow.run.words import Notice


def append(path, text):
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def test_tail_gives_whole_lines_once(tmp_path):
    path, tail = tmp_path / "a.log", Tail(tmp_path / "a.log")
    assert tail.read() == []
    append(path, "one\ntw")
    assert tail.read() == ["one"]
    append(path, "o\n")
    assert tail.read() == ["two"]
    assert tail.read() == []


def test_tail_rotated_log_is_read_from_its_new_beginning(tmp_path):
    path, tail = tmp_path / "a.log", Tail(tmp_path / "a.log")
    append(path, "a long first line\nhal")
    tail.read()
    path.write_text("new\n", "utf-8")
    assert tail.read() == ["new"]


def test_reader_names_the_part_and_tells_once(tmp_path):
    files = {"sink": tmp_path / "sink.log", "store": tmp_path / "store.log"}
    reader = Reader(files)
    append(files["sink"], "error: away\nfine\nerror: away\n")
    append(files["store"], "error: away\n")
    away = Notice("error", "away")
    assert list(reader.notices(0)) == [("sink", away), ("store", away)]
    append(files["sink"], "error: away\n")
    assert list(reader.notices(REPEAT_S - 1)) == []
    append(files["sink"], "error: away\n")
    assert list(reader.notices(REPEAT_S)) == [("sink", away)]


def test_read_last_words_long_log_looks_at_its_end(tmp_path):
    path = tmp_path / "a.log"
    path.write_text("error: early\n" + "x" * 100_000 + "\nerror: late\nhint: mend\n", "utf-8")
    assert read_last_words(path) == Notice("error", "late", "mend")


def test_read_last_words_no_log_is_empty(tmp_path):
    assert read_last_words(tmp_path / "none.log") == Notice("error", "")
