"""The page of the matrix: what `make faults` saw, written between two marks of docs/reliability.md, and read again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.faults.cells import FAULTS, FLOWS, Cell, all_cells

__all__ = ["BEGIN", "BROKEN", "END", "Page", "parse", "render"]

BEGIN = "<!-- matrix: written by `make faults` -->"
END = "<!-- end of the matrix -->"
BROKEN = "**broken**"
_SKIPPED = "skipped"
_UNMET = "·"
_SIGNS = {"succeeded": "●", "refused": "○", "failed": "◐", "removed": "●", "not met": _UNMET}
_MOMENTS = ("before", "after")


class Page:
    """Collects the outcomes of a run and writes them at its end.

    Parameters:
      path: a text that holds `BEGIN` and `END`.
      merges: whether cells that this run does not play keep what the page says of them.

    Raises:
      pytest.UsageError: there is no such page; better said now than after the run.
    """

    def __init__(self, path: Path, *, merges: bool) -> None:
        self._path = path
        if not path.is_file() or not _has_place(path.read_text("utf-8")):
            raise pytest.UsageError(f"--matrix {path}: it must be a file with the lines {BEGIN} and {END}")
        self._outcomes = parse(path.read_text("utf-8")) if merges else {}
        self._is_new = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties: dict[str, Any] = dict(report.user_properties)
        if "cell" not in properties:
            return
        cell = Cell(*properties["cell"])
        if report.failed:
            self._say(cell, BROKEN)
        elif report.skipped:
            self._say(cell, _SKIPPED)
        elif report.when == "call":
            outcome = properties.get("outcome", "")
            self._say(cell, _SIGNS.get(outcome.partition(",")[0], outcome))

    def _say(self, cell: Cell, outcome: str) -> None:
        self._outcomes[cell] = outcome
        self._is_new = True

    def pytest_sessionfinish(self) -> None:
        if self._is_new:
            head, _, rest = self._path.read_text("utf-8").partition(BEGIN)
            _, _, tail = rest.partition(END)
            self._path.write_text(f"{head}{BEGIN}\n\n{render(self._outcomes)}\n{END}{tail}", "utf-8")


def render(outcomes: Mapping[Cell, str]) -> str:
    """The counts, the cells that broke the promise by name, and a table for each flow."""
    cells = all_cells()
    said = [outcomes.get(cell, "") for cell in cells]
    kept = sum(outcome in _SIGNS.values() for outcome in said) - said.count(_UNMET)
    others = {"not met by anything": said.count(_UNMET), "skipped": said.count(_SKIPPED), "not played": said.count("")}
    counts = [f"{kept} kept the promise", f"{said.count(BROKEN)} broke it"]
    counts += [f"{number} were {what}" for what, number in others.items() if number]
    lines = [f"{len(cells)} cells: {', '.join(counts)}.", ""]
    lines += [f"- broken: `{cell}`" for cell in cells if outcomes.get(cell) == BROKEN]
    lines += [""] * (BROKEN in said)
    for flow in FLOWS:
        lines += _table(flow, outcomes)
    return "\n".join(lines)


def _table(flow: str, outcomes: Mapping[Cell, str]) -> list[str]:
    steps = [(moment, step) for step in FLOWS[flow] for moment in _MOMENTS]
    rows = [[outcomes.get(Cell(flow, step, moment, fault), "") for fault in FAULTS] for moment, step in steps]
    return [
        f"### {flow.capitalize()}",
        "",
        f"| step | {' | '.join(FAULTS)} |",
        "| --- " * (len(FAULTS) + 1) + "|",
        *(f"| {moment} {step} | {' | '.join(row)} |" for (moment, step), row in zip(steps, rows, strict=True)),
        "",
    ]


def parse(text: str) -> dict[Cell, str]:
    """The outcomes that a page tells: what `render` wrote."""
    return {cell: outcome for cell, outcome in _read(text.partition(BEGIN)[2].partition(END)[0]) if outcome}


def _read(matrix: str) -> Iterator[tuple[Cell, str]]:
    flow, faults = "", [""]
    for line in matrix.splitlines():
        first, *others = [each.strip() for each in line.strip("|").split("|")]
        if line.startswith("### "):
            flow = first.removeprefix("### ").lower()
        elif first == "step":
            faults = others
        elif first.startswith(_MOMENTS):
            moment, step = first.split()
            yield from ((Cell(flow, step, moment, fault), said) for fault, said in zip(faults, others, strict=True))


def _has_place(text: str) -> bool:
    return BEGIN in text and END in text.partition(BEGIN)[2]
