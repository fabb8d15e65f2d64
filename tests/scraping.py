"""Metrics as Prometheus scrapes them, for tests."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import wait_for

__all__ = ["Scrape", "Watch", "free_port", "scrape", "until"]

Labels = frozenset[tuple[str, str]]


class Scrape:
    """One answer of `/metrics`."""

    def __init__(self, port: int) -> None:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            self.text = answer.read().decode()
        self.counters: dict[tuple[str, Labels], float] = {}
        self.values: dict[tuple[str, Labels], float] = {}
        for family in text_string_to_metric_families(self.text):
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                self.values[key] = sample.value
                if family.type in ("counter", "histogram"):
                    self.counters[key] = sample.value

    def sum(self, name: str, /, **labels: str) -> float | None:
        """The sum of the series with these labels; None if there is none."""
        found = [
            value for (each, has), value in self.values.items() if each == name and has >= frozenset(labels.items())
        ]
        return sum(found) if found else None


def scrape(port: int) -> Scrape | None:
    """None while nobody listens."""
    try:
        return Scrape(port)
    except OSError:
        return None


def until(port: int, holds: Callable[[Scrape], bool], what: str) -> Scrape:
    """The first scrape for which it holds."""
    last: list[Scrape | None] = [None]

    def look() -> bool:
        last[0] = scrape(port)
        return last[0] is not None and holds(last[0])

    wait_for(look, 60, lambda: f"{what} in\n{last[0].text if last[0] else 'no answer'}")
    assert last[0] is not None
    return last[0]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        found: int = server.getsockname()[1]
    return found


class Watch:
    """Scrapes all the time, and notes counters that fell."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ended = threading.Event()
        self._last: dict[tuple[str, Labels], float] = {}
        self._thread = threading.Thread(target=self._run)
        self.fallen: list[str] = []
        self.count = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.2):
            if (now := scrape(self._port)) is not None:
                self.count += 1
                self.fallen += [
                    f"{key}: {value} → {now.counters.get(key)}"
                    for key, value in self._last.items()
                    if now.counters.get(key, -1) < value
                ]
                self._last = now.counters
