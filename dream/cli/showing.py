"""Show pictures and follow accepted work: tables and bars on a terminal, plain lines everywhere else.

Progress goes to standard error and results to standard output, so that a script reads results alone. A URL is never
broken: where a table is wider than its terminal, the last column of each row has a line of its own. Progress is read
from rows, because events can be lost.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dream.messages.states import ImageState, TaskState, owners_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from dream.db import Database, DreamImage

__all__ = [
    "Display",
    "Seen",
    "clean",
    "pixels",
    "progress",
    "reason_or_url",
    "show_rows",
    "watch_deletion",
    "watch_upload",
]

_LOOK_EVERY_S = 0.2
#: A database that answered before is waited for this long.
_PATIENCE_S = 30.0

_UPLOADED = frozenset({ImageState.COMPLETED, ImageState.FAILED, ImageState.DELETING, ImageState.DELETED})
_REMOVED = frozenset({ImageState.DELETED})
#: Steps of a picture's bar, and the steps done in each state; all in the other states.
_STEPS = 2
_DONE = {ImageState.PENDING: 0, ImageState.PROCESSING: 1, ImageState.DELETING: 1}


def clean(text: str) -> str:
    """The text in one line of printable characters: a file's name may contain tabs and escape sequences."""
    return "".join(character if character.isprintable() else "?" for character in text)


def pixels(image: DreamImage) -> str:
    """Width and height, or `-` while they are unknown."""
    return f"{image.width_px}x{image.height_px}" if image.width_px and image.height_px else "-"


def reason_or_url(image: DreamImage) -> str:
    """The URL of a finished picture, or the reason of a failure."""
    return clean(image.url or "" if image.state is ImageState.COMPLETED else image.error or "") or "-"


def show_rows(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table on a terminal, else a line for each row: tabs between columns, no headings."""
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
    """Shows the progress of pictures."""

    def show(self, seen: Seen) -> None: ...

    def say(self, line: str) -> None: ...


@contextmanager
def progress() -> Iterator[Display]:
    """Show a bar for each picture where standard error is a terminal, else a line for each change."""
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
        return clean(f"waiting for a retry: {seen.trouble}")
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


# --- waiting


@dataclass(frozen=True)
class Seen:
    """The rows of a task at one moment.

    Parameters:
      images: in the order of the task.
      is_ended: nothing more will happen to them.
      trouble: the error of the last attempt, while the task waits for a retry.
      failure: the error of a task that failed.
      is_untouched: no worker has begun it yet.
    """

    images: Sequence[DreamImage]
    is_ended: bool
    trouble: str | None = None
    failure: str | None = None
    is_untouched: bool = False


def watch_upload(database: Database, task_id: str, timeout_s: float | None = None) -> Iterator[Seen]:
    """Read an upload's rows again and again, until it has ended or the time is over.

    Raises:
      SQLAlchemyError: the database does not answer for 30 s.
    """
    return _watch(database, task_id, None, _UPLOADED, timeout_s)


def watch_deletion(
    database: Database, task_id: str, image_ids: Sequence[int], timeout_s: float | None = None
) -> Iterator[Seen]:
    """Read the rows of pictures that are being deleted, as `watch_upload` does."""
    return _watch(database, task_id, image_ids, _REMOVED, timeout_s)


def _watch(
    database: Database,
    task_id: str,
    image_ids: Sequence[int] | None,
    last_states: frozenset[ImageState],
    timeout_s: float | None,
) -> Iterator[Seen]:
    from sqlalchemy.exc import OperationalError

    begun = answered = time.monotonic()
    while True:
        try:
            seen = _look(database, task_id, image_ids, last_states)
            answered = time.monotonic()
        except OperationalError:
            # A missing table is the same error, and waiting does not help there.
            if answered == begun or time.monotonic() - answered > _PATIENCE_S:
                raise
        else:
            yield seen
            if seen.is_ended:
                return
        if timeout_s is not None and time.monotonic() - begun >= timeout_s:
            return
        time.sleep(_LOOK_EVERY_S)


def _look(
    database: Database, task_id: str, image_ids: Sequence[int] | None, last_states: frozenset[ImageState]
) -> Seen:
    from dream.db import DreamImage, DreamTask, images

    with database.read() as session:
        # The task first: once it has ended, its pictures do not change any more.
        task = session.get(DreamTask, task_id)
        if image_ids is None:
            rows = list(images.of_task(session, task_id))
        else:
            rows = [row for each in image_ids if (row := session.get(DreamImage, each)) is not None]
    is_ended = task is None or task.state.is_terminal or all(row.state in last_states for row in rows)
    waits = task is not None and not is_ended and task.attempts > 0 and task.lease_token is None
    failed = task is not None and task.state in (TaskState.FAILED, TaskState.REVOKED)
    is_untouched = task is not None and task.state is TaskState.QUEUED and not task.attempts and not task.deaths
    error = owners_line(task.error) or None if task is not None else None
    return Seen(
        rows,
        is_ended,
        trouble=error if waits else None,
        failure=error if failed else None,
        is_untouched=is_untouched and not is_ended,
    )
