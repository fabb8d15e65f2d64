"""What people and scripts read of pictures: bars and tables on a terminal, plain lines everywhere else.

Progress goes to standard error and results to standard output, so that a script reads results alone. A URL is always
in one piece: where a table is wider than its terminal, the last column of each row has a line of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from dream.messages import ImageState

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from dream.cli.waiting import Seen
    from dream.db import DreamImage

__all__ = ["Display", "clean", "pixels", "progress", "reason_or_url", "show_rows"]

#: How far along a picture is, of `_STEPS`.
_STEPS = 2
_DONE = {ImageState.PENDING: 0, ImageState.PROCESSING: 1, ImageState.DELETING: 1}


def clean(text: str) -> str:
    """The text as one line of what can be printed: a file's name may hold anything, a tab or an escape among it."""
    return "".join(character if character.isprintable() else "?" for character in text)


def pixels(image: DreamImage) -> str:
    """Width and height, `-` where they are not known yet."""
    return f"{image.width_px}x{image.height_px}" if image.width_px and image.height_px else "-"


def reason_or_url(image: DreamImage) -> str:
    """Where a finished picture is, or why there is none."""
    return clean(image.url or "" if image.state is ImageState.COMPLETED else image.error or "") or "-"


def show_rows(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on a terminal, else a line for each row with tabs between its columns and no headings."""
    if sys.stdout.isatty():
        _show_table(headings, rows)
        return
    for row in rows:
        sys.stdout.write("\t".join(map(str, row)) + "\n")


def _show_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=True, overflow="ignore")
    cells = [[Text(str(value), style=_style_of(value)) for value in row] for row in rows]
    for row_cells in cells:
        table.add_row(*row_cells)
    wide = console.options.update(max_width=1_000_000)
    is_too_wide = console.measure(table, options=wide).maximum > console.width
    if not is_too_wide:
        console.print(table)
        return
    table.columns.pop()
    lines = console.render_lines(table, wide.update(width=console.measure(table, options=wide).maximum), pad=False)
    for line, last in zip(lines, [Text(headings[-1], style="bold"), *(row[-1] for row in cells)], strict=True):
        console.print(*(Text(part.text, style=part.style or "") for part in line), sep="", soft_wrap=True)
        console.print(last, soft_wrap=True)


def _style_of(value: object) -> str:
    if not isinstance(value, ImageState):
        return ""
    return {ImageState.COMPLETED: "green", ImageState.FAILED: "red"}.get(value, "")


# --- progress


class Display(Protocol):
    """Shows how far the pictures are."""

    def show(self, seen: Seen) -> None: ...

    def say(self, line: str) -> None: ...


@contextmanager
def progress() -> Iterator[Display]:
    """A bar for each picture where standard error is a terminal, else a line for each change."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns: list[Any] = [
        TextColumn("{task.description}", markup=False),
        BarColumn(complete_style="cyan", finished_style="green"),
        TextColumn("{task.fields[state]}", markup=False),
    ]
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield _Bars(bars)


def _word(image: DreamImage, seen: Seen) -> str:
    if seen.trouble and image.state in _DONE:
        return clean(f"waiting to be tried again: {seen.trouble}")
    return str(image.state)


class _Lines:
    def __init__(self) -> None:
        self._said: dict[int, str] = {}

    def show(self, seen: Seen) -> None:
        for image in seen.images:
            word = _word(image, seen)
            if self._said.get(image.id) != word:
                self._said[image.id] = word
                self.say(f"{clean(image.filename)}: {word}")

    def say(self, line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


class _Bars:
    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._bar_of: dict[int, TaskID] = {}

    def show(self, seen: Seen) -> None:
        for image in seen.images:
            if image.id not in self._bar_of:
                self._bar_of[image.id] = self._bars.add_task(clean(image.filename), total=_STEPS, state="")
            bar, word = self._bar_of[image.id], _word(image, seen)
            self._bars.update(bar, completed=_DONE.get(image.state, _STEPS), state=word)

    def say(self, line: str) -> None:
        self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
