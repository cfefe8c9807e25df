from __future__ import annotations

import pytest

from ebbflow.run.board import SHOWN_LINES, SHOWN_S, Board


def test_say_without_a_screen_writes_at_once():
    lines = []
    Board(lines.append).say("kafka ended")
    assert lines == ["kafka ended"]


def test_say_on_a_screen_is_recent_and_written_after_it():
    lines, now = [], [0.0]
    board = Board(lines.append, lambda: now[0])
    with board.screen():
        for number in range(SHOWN_LINES + 1):
            board.say(f"line {number}")
        assert lines == []
        assert [line[10:] for line in board.recent()] == ["line 1", "line 2", "line 3"]
        now[0] = SHOWN_S
        assert board.recent() == []
    assert [line[10:] for line in lines] == ["line 0", "line 1", "line 2", "line 3"]


def test_screen_left_by_an_error_writes_all_the_same():
    lines = []
    board = Board(lines.append)

    def interrupt():
        board.say("sink ended")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), board.screen():
        interrupt()
    assert len(lines) == 1
    board.say("stopping")
    assert lines[1] == "stopping"
