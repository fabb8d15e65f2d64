"""`dream dlq`: list, show, replay or purge dream's own tasks that failed for good."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from dream.cli.command import AsJson, Command, CommandGroup, WrongUsage, confirm, load_quietly, opened
from dream.errors import DreamError, InvalidArguments
from dream.messages.states import owners_line
from dream.work.text import counted

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dream.db import DreamImage, DreamTask
    from dream.producer import Producer

__all__ = ["register"]

Ids = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="IDs of failed tasks; `dream dlq list` lists them.")
]
_NONE = "none of dream's own tasks has failed for good"

dlq = typer.Typer(
    cls=CommandGroup, help="List, show, replay or purge tasks that failed for good.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the group to the app."""
    app.add_typer(dlq, name="dlq", rich_help_panel=None)


@dlq.command("list", cls=Command)
def list_(
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most this many, the newest first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List failed tasks: ID, task, dream, runs, deaths, time, reason."""
    from dream.cli.showing import show_rows
    from dream.db import dead_letters

    with opened(load_quietly()) as producer, producer.database.read() as session:
        tasks = dead_letters.list_dead(session, limit=limit)
    if as_json:
        typer.echo(json.dumps([_facts(task) for task in tasks], indent=2))
        return
    rows = [
        (task.id, _short(task), _dream(task), task.attempts, task.deaths, _when(task), _why(task)) for task in tasks
    ]
    if not rows:
        typer.echo(_NONE, err=True)
        return
    show_rows(("id", "task", "dream", "runs", "deaths", "failed at", "why"), rows)


@dlq.command(cls=Command)
def show(
    task_id: Annotated[str, typer.Argument(metavar="ID", help="ID of a failed task; `dream dlq list` lists them.")],
    as_json: AsJson = False,
) -> None:
    """Show a failed task: its reason, runs and pictures."""
    from dream.cli.showing import clean, show_rows
    from dream.db import images

    with opened(load_quietly()) as producer, producer.database.read() as session:
        task = _found(session, task_id)
        pictures = images.of_task(session, task_id)
    if as_json:
        names = ("id", "filename", "state", "error", "error_code")
        listed = [{name: getattr(picture, name) for name in names} for picture in pictures]
        typer.echo(json.dumps({**_facts(task), "images": listed}, indent=2))
        return
    facts = {"id": task.id, "task": task.name, "dream": _dream(task), "failed at": _when(task)}
    facts |= {"runs": task.attempts, "deaths": task.deaths, "why": _why(task)}
    if detail := (task.error or "").partition("\n")[2]:
        facts["detail"] = clean(detail)
    show_rows(("", ""), [(name, value) for name, value in facts.items()])
    show_rows(
        ("image", "file", "state", "why"),
        [(each.id, clean(each.filename), each.state, _why(each)) for each in pictures],
    )


@dlq.command("replay", cls=Command)
def replay_(
    task_ids: Ids = None,
    everything: Annotated[bool, typer.Option("--all", help="All failed tasks.")] = False,
) -> None:
    """Run failed tasks again from the start, with all retries. A file that is no picture is refused again."""
    from dream.producer.dead_letters import replay

    _check_choice(task_ids, everything=everything)
    with opened(load_quietly()) as producer:
        _act(_chosen(producer, task_ids), lambda each: [] if replay(producer, each) else None, everything=everything)


@dlq.command("purge", cls=Command)
def purge_(
    task_ids: Ids = None,
    everything: Annotated[bool, typer.Option("--all", help="All failed tasks.")] = False,
    older_than_days: Annotated[
        float, typer.Option(min=0, metavar="N", help="With --all: only tasks that failed more than N days ago.")
    ] = 0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete failed tasks and the bytes of their pictures. They cannot be replayed after that."""
    from dream.producer.dead_letters import purge

    _check_choice(task_ids, everything=everything)
    if task_ids and older_than_days:
        raise WrongUsage("--older-than-days works with --all, not with IDs")
    with opened(load_quietly()) as producer:
        chosen = _chosen(producer, task_ids, older_than_s=older_than_days * 86400)
        if chosen and not yes:
            confirm(
                f"Delete {counted(len(chosen), 'failed task')} for good?",
                "use --yes to delete them; nothing was deleted",
            )
        _act(chosen, lambda each: purge(producer, each), everything=everything)


def _act(task_ids: Sequence[str], act: Callable[[str], Sequence[DreamError] | None], *, everything: bool) -> None:
    """Act on every task, and print the ID of each that was acted on.

    Parameters:
      act: returns the errors of bytes that stay; None if the task is no longer failed.
      everything: whether the caller named no tasks; a task that is no longer failed is then skipped.

    Raises:
      InvalidArguments: a task that the caller named is no longer failed.
      DreamError: bytes stay.
    """
    gone, errors = list[str](), list[DreamError]()
    for task_id in task_ids:
        found = act(task_id)
        if found is None:
            gone.append(task_id)
            continue
        errors += found
        typer.echo(task_id)
    if gone and everything:
        typer.echo(f"skipped {counted(len(gone), 'task')}: no longer failed", err=True)
    wrong = [f"no longer failed: {', '.join(gone)}"] if gone and not everything else []
    if errors:
        stay = f"{counted(len(errors), 'object')} could not be deleted"
        wrong.append(f"{stay}; the nightly clean-up tries again: {errors[0]}")
    if wrong:
        raise (DreamError if errors else InvalidArguments)("; ".join(wrong))


def _check_choice(task_ids: list[str] | None, *, everything: bool) -> None:
    if bool(task_ids) == everything:
        raise WrongUsage("name the tasks by their IDs, or use --all")


def _chosen(producer: Producer, task_ids: list[str] | None, *, older_than_s: float = 0) -> list[str]:
    """These failed tasks; without IDs, all."""
    from dream.db import dead_letters

    with producer.database.read() as session:
        if task_ids:
            return [_found(session, task_id).id for task_id in task_ids]
        found = list(dead_letters.ids_of_dead(session, older_than_s=older_than_s))
    if not found:
        typer.echo(_NONE if not older_than_s else "no task failed that long ago", err=True)
    return found


def _found(session: Session, task_id: str) -> DreamTask:
    from dream.db import dead_letters

    task = dead_letters.find(session, task_id)
    if task is None:
        days = load_quietly().failed_task_ttl_s / 86400
        older = f"; tasks are removed {days:g} days after they failed (DREAM_FAILED_TASK_TTL_S)" if days else ""
        raise InvalidArguments(f"no failed task has the ID {task_id}; `dream dlq list` lists them{older}")
    return task


def _facts(task: DreamTask) -> dict[str, object]:
    return {
        "id": task.id,
        "task": task.name,
        "dream_id": task.args[0] if task.args else None,
        "runs": task.attempts,
        "deaths": task.deaths,
        "failed_at": task.finished_at.isoformat() if task.finished_at else None,
        "error": task.error,
        "error_code": task.error_code,
    }


def _short(task: DreamTask) -> str:
    return task.name.rpartition(".")[2]


def _dream(task: DreamTask) -> object:
    return task.args[0] if task.args else "-"


def _why(failed: DreamTask | DreamImage) -> str:
    """The reason and its code, which rows of older releases lack."""
    from dream.cli.showing import clean

    code = f" ({failed.error_code})" if failed.error_code else ""
    return clean(owners_line(failed.error)) + code or "-"


def _when(task: DreamTask) -> str:
    return task.finished_at.isoformat(" ", "seconds") if task.finished_at else "-"
