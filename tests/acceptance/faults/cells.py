"""The matrix as data: the steps of each flow, the faults, which of them meet, and a pairwise choice of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

__all__ = ["FAULTS", "FLOWS", "WORLDS", "Cell", "all_cells", "pairwise"]

#: The steps of each flow in their order, and which process takes each (`dream.fault_points` names them in the code).
FLOWS: dict[str, dict[str, str]] = {
    "upload": {
        "stage": "web",
        "record": "web",
        "enqueue": "web",
        "claim": "worker",
        "begin": "worker",
        "fetch": "worker",
        "decode": "child",
        "original": "worker",
        "put": "worker",
        "complete": "worker",
        "drop": "worker",
        "finish": "worker",
        "notify": "worker",
        "ack": "worker",
    },
    # The steps of its task are those of an upload.
    "direct": {
        "grant": "web",
        "look": "web",
        "record": "web",
        "enqueue": "web",
    },
    "expiry": {
        "expire": "scheduler",
        "clear": "scheduler",
    },
    "delete": {
        "record": "web",
        "enqueue": "web",
        "claim": "worker",
        "mark": "worker",
        "remove": "worker",
        "bury": "worker",
        "finish": "worker",
        "notify": "worker",
        "ack": "worker",
    },
    "variant": {
        "submit": "web",
        "enqueue": "web",
        "claim": "worker",
        "want": "worker",
        "fetch": "worker",
        "decode": "child",
        "put": "worker",
        "keep": "worker",
        "finish": "worker",
        "notify": "worker",
        "ack": "worker",
    },
    "remake": {
        "enqueue": "web",
        "claim": "worker",
        "number": "worker",
        "fetch": "worker",
        "decode": "child",
        "put": "worker",
        "switch": "worker",
        "finish": "worker",
        "notify": "worker",
        "ack": "worker",
    },
    "schedule": {
        "submit": "scheduler",
        "enqueue": "scheduler",
        "claim": "worker",
        "clean_up": "worker",
        "finish": "worker",
        "ack": "worker",
    },
}

#: What breaks while a process is at the step. The first strikes that process itself.
FAULTS: dict[str, str] = {
    "killed": "kill -9 of the process that takes the step",
    "paused": "SIGSTOP of that process until its lease is over and others have taken the task, then SIGCONT",
    "all killed": "kill -9 of worker, scheduler and broker at once; all are started again",
    "broker restarted": "kill -9 of the broker, which comes back after 1.5 s",
    "broker emptied": "FLUSHALL",
    "message doubled": "a second copy of the task's message",
    "scheduler killed": "kill -9 of the scheduler, which is started again",
    "child killed": "kill -9 of the processes that work on pictures",
    "store 500": "the object store answers 500 for 1.5 s",
    "store hangs": "the object store takes requests and answers nothing for 1.5 s",
    "store resets": "connections to the object store break in the middle of bodies for 1.5 s",
    "database locked": "another process holds the write lock of SQLite for 2 s",
    "database restarted": "PostgreSQL is restarted, its connections cut",
    "COMMIT lost": "connections to PostgreSQL are cut at every COMMIT for 1.5 s, none of which it gets",
    "COMMIT unanswered": "connections to PostgreSQL are cut at every COMMIT for 1.5 s, once it has done it",
    "disk full": "no byte is left on the disk of SQLite and of files in work, for 1.5 s",
    "RabbitMQ: killed": "as killed, with RabbitMQ as broker",
    "RabbitMQ: cut": "connections to RabbitMQ are cut and refused for 1.5 s",
    "RabbitMQ: emptied": "its queues are purged",
    "dream up killed": "kill -9 of `dream up` and with it of all parts and servers; it starts again on the same data",
}
#: What a cell is played on (conftest's `<name>_world`) where it is not Valkey, SeaweedFS and SQLite with space.
WORLDS: dict[str, str] = {
    "database restarted": "postgres",
    "COMMIT lost": "postgres",
    "COMMIT unanswered": "postgres",
    "disk full": "small_disk",
    "RabbitMQ: killed": "rabbitmq",
    "RabbitMQ: cut": "rabbitmq",
    "RabbitMQ: emptied": "rabbitmq",
    "dream up killed": "dream_up",
}
_OF_STORE = {"store 500", "store hangs", "store resets"}


@dataclass(frozen=True)
class Cell:
    """One fault at one point of one flow."""

    flow: str
    step: str
    moment: str
    fault: str

    @property
    def point(self) -> str:
        return f"{self.step}:{self.moment}"

    @property
    def process(self) -> str:
        return FLOWS[self.flow][self.step]

    @property
    def action(self) -> str:
        """The action of the process at the step (`dream.fault_points.ACTIONS`)."""
        return "kill" if self.fault in ("killed", "RabbitMQ: killed") else "stop"

    def __str__(self) -> str:
        return f"{self.flow}-{self.point}-{self.fault}".replace(" ", "_")

    def has_sense(self) -> bool:
        """Whether the fault can meet the step at all."""
        if self.fault in _OF_STORE | {"child killed"}:
            return self.flow != "schedule" and (self.fault in _OF_STORE or self.flow in ("upload", "variant", "remake"))
        if self.fault == "message doubled":
            return self.process in ("worker", "child") or self.point == "enqueue:after"
        # Between its writes and its COMMIT a transaction holds SQLite's lock itself.
        return not (self.fault == "database locked" and self.point == "record:after")


def all_cells() -> list[Cell]:
    cells = (
        Cell(flow, step, moment, fault)
        for flow, steps in FLOWS.items()
        for step in steps
        for moment in ("before", "after")
        for fault in FAULTS
    )
    return [cell for cell in cells if cell.has_sense()]


def pairwise(cells: Sequence[Cell], most: int) -> list[Cell]:
    """At most so many cells that hold each pair of flow, process, moment and fault, and each step, if they can."""
    left = {pair for cell in cells for pair in _pairs(cell)}
    chosen: list[Cell] = []
    while left and len(chosen) < most:
        best = max(cells, key=lambda cell: len(left & _pairs(cell)))
        chosen.append(best)
        left -= _pairs(best)
    return sorted(chosen, key=str)


def _pairs(cell: Cell) -> set[Iterable[str]]:
    factors = (f"flow {cell.flow}", f"process {cell.process}", cell.moment, f"fault {cell.fault}")
    return {*combinations(factors, 2), (f"step {cell.flow} {cell.step}",)}
