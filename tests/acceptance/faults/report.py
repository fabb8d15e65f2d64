"""The page of the matrix: what `make faults` saw, written between two marks of docs/reliability.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.faults.cells import FAULTS, FLOWS

__all__ = ["BEGIN", "END", "Page"]

BEGIN = "<!-- matrix: written by `make faults` -->"
END = "<!-- end of the matrix -->"
_SIGNS = {"succeeded": "●", "refused": "○", "failed": "◐"}


class Page:
    """Collects the outcomes of a run and writes them at its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._outcomes: dict[tuple[str, ...], str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties: dict[str, Any] = dict(report.user_properties)
        if "cell" not in properties:
            return
        cell = tuple(properties["cell"])
        if report.failed:
            self._outcomes[cell] = "**broken**"
        elif report.skipped:
            self._outcomes[cell] = "skipped"
        elif report.when == "call":
            outcome = properties.get("outcome", "")
            self._outcomes[cell] = _SIGNS.get(outcome.partition(",")[0], outcome)

    def pytest_sessionfinish(self) -> None:
        if not self._outcomes:
            return
        text = self._path.read_text("utf-8")
        head, _, rest = text.partition(BEGIN)
        _, _, tail = rest.partition(END)
        self._path.write_text(f"{head}{BEGIN}\n\n{self._tables()}\n{END}{tail}", "utf-8")

    def _tables(self) -> str:
        values = list(self._outcomes.values())
        kept = sum(value in _SIGNS.values() for value in values)
        lines = [f"{len(values)} cells, {kept} kept the promise, {values.count('**broken**')} broke it.", ""]
        for flow, steps in FLOWS.items():
            faults = [fault for fault in FAULTS if any(cell[0] == flow and cell[3] == fault for cell in self._outcomes)]
            lines += [
                f"### {flow.capitalize()}",
                "",
                f"| step | {' | '.join(faults)} |",
                "| --- " * (len(faults) + 1) + "|",
            ]
            for step in steps:
                for moment in ("before", "after"):
                    row = [self._outcomes.get((flow, step, moment, fault), "") for fault in faults]
                    lines.append(f"| {moment} {step} | {' | '.join(row)} |")
            lines.append("")
        return "\n".join(lines)
