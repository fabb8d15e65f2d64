"""Log files that stay bounded, and what they say shown as it comes."""

from __future__ import annotations

import io

from dream.stack.logs import Follower, last_line, rotate


def test_a_file_past_the_limit_is_set_aside_and_a_smaller_one_stays(tmp_path) -> None:
    log = tmp_path / "part.log"
    log.write_bytes(b"x" * 11)

    rotate(log, limit_bytes=11)
    assert log.exists()

    rotate(log, limit_bytes=10)
    assert not log.exists()
    assert (tmp_path / "part.log.1").stat().st_size == 11


def test_only_new_whole_lines_are_shown(tmp_path) -> None:
    log, out = tmp_path / "part.log", io.BytesIO()
    log.write_text("old\n")
    follower = Follower(out)
    follower.add(log)

    with log.open("a") as file:
        file.write("one\ntw")
    follower.copy()
    assert out.getvalue() == b"one\n"

    with log.open("a") as file:
        file.write("o\n")
    follower.copy()
    assert out.getvalue() == b"one\ntwo\n"


def test_a_file_that_was_set_aside_is_followed_from_its_new_beginning(tmp_path) -> None:
    log, out = tmp_path / "part.log", io.BytesIO()
    log.write_text("a long old line\n")
    follower = Follower(out)
    follower.add(log)

    rotate(log, limit_bytes=1)
    log.write_text("new\n")
    follower.copy()

    assert out.getvalue() == b"new\n"


def test_a_reader_that_went_away_stops_the_showing_and_nothing_else(tmp_path) -> None:
    log, out = tmp_path / "part.log", io.BytesIO()
    follower = Follower(out)
    follower.add(log)
    out.close()
    log.write_text("line\n")

    follower.copy()
    follower.copy()


def test_the_last_line_is_the_last_that_says_something(tmp_path) -> None:
    log = tmp_path / "part.log"
    assert last_line(log) == ""
    log.write_text("first\nlast\n\n  \n")
    assert last_line(log) == "last"
