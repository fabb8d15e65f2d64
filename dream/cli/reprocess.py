"""`dream reprocess`: make stored pictures anew with today's settings, a few hundred tasks at a time.

The command walks over the pictures in the order of their ids, accepts a task for each, and waits while many are open.
Rows say what is done, so a pass that was interrupted goes on where it stopped (`dream.db.remakes`).
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from dream.cli.command import Command, WrongUsage, load_quietly, opened
from dream.messages.arguments import MAX_ID
from dream.messages.states import TaskState
from dream.work.process import EXIT_FAILURE, EXIT_INTERRUPTED
from dream.work.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from dream.db.remakes import Chosen
    from dream.producer import Producer
    from dream.settings import Settings

__all__ = ["register"]

#: Tasks that are open at a time, and accepted in one transaction.
_MOST_OPEN, _AT_ONCE = 400, 100
_LOOK_EVERY_S = 0.3
#: Where no terminal shows a bar, a line comes after each such time.
_TELL_EVERY_S = 10.0
_SILENCE_S = 5.0
_DONE, _FAILED = "done", "failed"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(cls=Command)(reprocess)


def reprocess(
    dream_id: Annotated[
        int | None, typer.Option(min=1, max=MAX_ID, metavar="N", help="The pictures of this dream.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All pictures.")] = False,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Pictures made before a day (2026-01-31, UTC) or longer ago (30d, 12h)."),
    ] = None,
    variants: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Only these variants, separated by commas: thumb,card.")
    ] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Begin anew, although an earlier pass was interrupted.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the pictures and do nothing.")] = False,
) -> None:
    """Make stored pictures anew with today's settings. URLs stay; called again after an interruption, it goes on."""
    if sum((dream_id is not None, everything, older_than is not None)) != 1:
        raise WrongUsage("use one of --dream-id, --all and --older-than; nothing was done")
    age = None if older_than is None else _moment(older_than)
    settings = load_quietly()
    names = None if variants is None else _names(settings, variants)
    with opened(settings) as producer:
        pass_ = Pass(producer, dream_id, older_than, age, names)
        if dry_run:
            typer.echo(f"{counted(pass_.would_make(), 'picture')} would be made anew; nothing was done")
            return
        with _interruptible():
            outcome = pass_.run(anew=anew)
    made = counted(outcome[_DONE], "picture")
    if not outcome[_FAILED]:
        typer.echo(f"{made} made anew")
        return
    typer.echo(f"{made} made anew, {outcome[_FAILED]} failed and stay as they were: `dream dlq list` says why")
    raise typer.Exit(EXIT_FAILURE)


def _names(settings: Settings, text: str) -> list[str]:
    known = list(settings.named_variants)
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or (unknown := [name for name in names if name not in known]):
        wrong = f"there is no variant {unknown[0]!r}" if names else "--variants names no variant"
        raise WrongUsage(f"{wrong}; the settings make: {', '.join(known) or 'none'}")
    return sorted(set(names))


def _moment(text: str) -> datetime | timedelta:
    """The day in a text, or an age.

    Raises:
      WrongUsage: it is neither.
    """
    number, unit = text[:-1], text[-1:]
    try:
        if unit in ("d", "h") and number.isascii() and number.isdecimal():
            age = timedelta(days=int(number)) if unit == "d" else timedelta(hours=int(number))
            datetime.now(UTC) - age  # raises an error if no calendar reaches so far back
            return age
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise WrongUsage(
            f"--older-than must be a day as 2026-01-31, days as 30d or hours as 12h, not {text!r:.60}"
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


class Pass:
    """One walk over the pictures.

    Parameters:
      producer: accepts the tasks.
      dream_id: the dream; None means all.
      older_than, age: the option as it was given, and what it means; None means any age.
      names: the variants to make; None means the pictures and all their variants.
    """

    def __init__(
        self,
        producer: Producer,
        dream_id: int | None,
        older_than: str | None,
        age: datetime | timedelta | None,
        names: Sequence[str] | None,
    ) -> None:
        self._producer = producer
        self._database = producer.database
        self._dream_id = dream_id
        self._age = age
        self._names = names
        told = json.dumps([dream_id, older_than, names])
        #: The name of its mark: a later call with the same options goes on with it.
        self._name = f"remake:{hashlib.sha256(told.encode()).hexdigest()[:32]}"

    def would_make(self) -> int:
        """The number of pictures that a new pass would make anew."""
        from dream.db import remakes

        with self._database.read() as session:
            return remakes.count(session, self._chosen(datetime.now(UTC)))

    def _chosen(self, begun_at: datetime) -> Chosen:
        from dream.db.remakes import Chosen

        older_than = begun_at - self._age if isinstance(self._age, timedelta) else self._age
        return Chosen(begun_at, self._dream_id, older_than)

    def run(self, *, anew: bool) -> Counter[str]:
        """Make all pictures anew; returns how many are done and how many failed."""
        from dream.db import remakes

        chosen, total = self._begin(anew=anew)
        with _progress(total) as show:
            outcome = self._walk(chosen, show)
        with self._database.begin() as session:
            remakes.end_pass(session, self._name)
        return outcome

    def _begin(self, *, anew: bool) -> tuple[Chosen, int]:
        from dream.db import remakes

        begun_at, is_new = self._marked(anew=anew)
        chosen = self._chosen(begun_at)
        with self._database.read() as session:
            total = remakes.count(session, chosen)
        if not is_new and total:
            _say(f"going on with the pass of {begun_at:%Y-%m-%d %H:%M} UTC, {total} left; --anew begins anew")
        elif not is_new:
            _say(f"the interrupted pass of {begun_at:%Y-%m-%d %H:%M} UTC is done by now; call again for another one")
        return chosen, total

    def _marked(self, *, anew: bool) -> tuple[datetime, bool]:
        """The beginning of the pass, and whether it is new."""
        from sqlalchemy.exc import IntegrityError

        from dream.db import remakes

        try:
            with self._database.begin() as session:
                if anew:
                    remakes.end_pass(session, self._name)
                return remakes.begin_pass(session, self._name)
        except IntegrityError:  # another call has begun the same pass at this moment
            with self._database.begin() as session:
                return remakes.begin_pass(session, self._name)

    def _walk(self, chosen: Chosen, show: Callable[[Counter[str]], None]) -> Counter[str]:
        open_ids: set[str] = set()
        outcome: Counter[str] = Counter()
        orders = self._orders(chosen)
        begun, is_told, is_last = time.monotonic(), False, False
        while open_ids or not is_last:
            while not is_last and len(open_ids) + _AT_ONCE <= _MOST_OPEN:
                accepted = next(orders, None)
                is_last = accepted is None
                open_ids.update(accepted or ())
            ended = self._ended(open_ids)
            outcome.update(ended.values())
            open_ids -= ended.keys()
            show(outcome)
            if open_ids and not outcome and not is_told and time.monotonic() - begun > _SILENCE_S:
                is_told = True
                _say("no worker has finished a picture yet; `dream doctor` shows what is missing")
            if open_ids:
                time.sleep(_LOOK_EVERY_S)
        return outcome

    def _orders(self, chosen: Chosen) -> Iterator[list[str]]:
        """Accept the tasks of the next pictures; yields their ids. A task that exists already is not doubled."""
        from dream.db import remakes
        from dream.producer.orders import remake

        after = 0
        while True:
            with self._database.read() as session:
                ids = remakes.page(session, chosen, after=after, limit=_AT_ONCE)
            if not ids:
                return
            after = ids[-1]
            orders = [remake(image_id, chosen.begun_at, self._names) for image_id in ids]
            self._producer.accept_all(orders)
            yield [order.task_id for order in orders]

    def _ended(self, task_ids: set[str]) -> dict[str, str]:
        """The tasks that have ended, each done or failed; the rows of done ones are removed."""
        from dream.db import remakes

        with self._database.read() as session:
            states = remakes.states_of(session, task_ids)
        # A task without a row was done, and another call of this pass has removed it.
        ended = {task_id: states.get(task_id, TaskState.SUCCEEDED) for task_id in task_ids}
        ended = {task_id: state for task_id, state in ended.items() if state.is_terminal}
        done = [task_id for task_id, state in ended.items() if state is TaskState.SUCCEEDED]
        if done:
            with self._database.begin() as session:
                remakes.forget_done(session, done)
        return {task_id: _DONE if state is TaskState.SUCCEEDED else _FAILED for task_id, state in ended.items()}


# --- progress


def _say(line: str) -> None:
    typer.echo(f"dream: {line}", err=True)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[Counter[str]], None]]:
    """Show one bar where standard error is a terminal, else a line from time to time."""
    if not sys.stderr.isatty():
        told_at = time.monotonic()

        def tell(outcome: Counter[str]) -> None:
            nonlocal told_at
            if time.monotonic() - told_at >= _TELL_EVERY_S:
                told_at = time.monotonic()
                _say(f"{outcome.total()} of {total} pictures, {outcome[_FAILED]} failed")

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[failed]}")]
    with Progress(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task("", total=total, failed="")

        def show(outcome: Counter[str]) -> None:
            failed = f"{outcome[_FAILED]} failed" if outcome[_FAILED] else ""
            bars.update(bar, completed=outcome.total(), failed=failed)

        yield show


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end the walk, and print how it goes on."""
    try:
        yield
    except KeyboardInterrupt:
        _say("interrupted; accepted tasks go on, and the same command does the rest")
        raise typer.Exit(EXIT_INTERRUPTED) from None
