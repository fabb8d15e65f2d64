"""Waiting for a server that is away."""

from __future__ import annotations

import pytest

from dream.work.patience import patiently

QUICK = {"first_pause_s": 0.001, "longest_pause_s": 0.004}


class Server:
    """Away for so many calls."""

    def __init__(self, away: int, error: type[Exception] = ConnectionError) -> None:
        self.calls = 0
        self._away, self._error = away, error

    def ask(self) -> int:
        self.calls += 1
        if self.calls <= self._away:
            raise self._error(self.calls)
        return self.calls


def test_it_is_asked_until_it_is_there_with_pauses_that_grow() -> None:
    told: list[tuple[str, float]] = []
    server = Server(5)
    answer = patiently(server.ask, (OSError,), told=lambda error, pause_s: told.append((str(error), pause_s)), **QUICK)
    assert answer == 6
    assert told == [("1", 0.001), ("2", 0.002), ("3", 0.004), ("4", 0.004), ("5", 0.004)]


def test_patience_ends_with_the_servers_error() -> None:
    server = Server(10**9)
    with pytest.raises(ConnectionError):
        patiently(server.ask, (OSError,), told=lambda *_: None, patience_s=0.05, **QUICK)
    assert server.calls > 1


def test_another_error_is_raised_at_once() -> None:
    server = Server(1, KeyError)
    with pytest.raises(KeyError):
        patiently(server.ask, (OSError,), told=lambda *_: None, **QUICK)
    assert server.calls == 1
