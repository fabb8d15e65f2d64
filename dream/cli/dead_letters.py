"""`dream dlq`: dream's own tasks that failed for good; see them, run them again, or throw them away."""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from dream.cli.access import AsJson, confirm, load_quietly, opened
from dream.cli.plain_help import PlainHelp
from dream.errors import InvalidArguments, ResultsUnavailable
from dream.messages import owners_line

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dream.db import DreamTask
    from dream.producer import Producer

__all__ = ["register"]

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Tasks, as `dream dlq list` prints them.")]
#: Said on standard error, as `dream images` does.
_NONE = "none of dream's own tasks has failed for good"

dlq = typer.Typer(help="Dream's own tasks that failed for good: list, show, replay, purge.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the group to the app."""
    app.add_typer(dlq, name="dlq", rich_help_panel=None)


@dlq.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most this many, the newest first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List them: id, task, dream, runs, deaths, when, why."""
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


@dlq.command(cls=PlainHelp)
def show(
    task_id: Annotated[str, typer.Argument(metavar="ID", help="A task, as `dream dlq list` prints it.")],
    as_json: AsJson = False,
) -> None:
    """Show one: why it failed, how often it ran, and its pictures."""
    from dream.cli.showing import clean, show_rows
    from dream.db import images

    with opened(load_quietly()) as producer, producer.database.read() as session:
        task = _found(session, task_id)
        pictures = images.of_task(session, task_id)
    if as_json:
        names = ("id", "filename", "state", "error")
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
        [(each.id, clean(each.filename), each.state, clean(each.error or "-")) for each in pictures],
    )


@dlq.command(cls=PlainHelp)
def replay(
    task_ids: Ids = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
) -> None:
    """Run them again from the start, with all their retries; what was refused as no picture will be refused again."""
    from dream.db import dead_letters
    from dream.storage import new_key_stem

    settings = load_quietly()
    with opened(settings) as producer:
        for task_id in _chosen(producer, task_ids, everything=everything):
            with producer.database.begin() as session:
                task = dead_letters.revive(session, task_id, new_key_stem)
            if task is None:
                raise InvalidArguments(f"{task_id} is no failed task (any more)")
            with suppress(ResultsUnavailable):  # the next end is written over it anyway
                producer.results.forget(task_id)
            producer.send_again(task)
            typer.echo(task_id)


@dlq.command(cls=PlainHelp)
def purge(
    task_ids: Ids = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    older_than_days: Annotated[
        float, typer.Option(min=0, metavar="N", help="With --all: those that failed longer ago.")
    ] = 0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Throw them away with their staged bytes; they cannot be replayed after that."""
    settings = load_quietly()
    with opened(settings) as producer:
        if task_ids and older_than_days:
            raise InvalidArguments("--older-than-days goes with --all, not with ids")
        chosen = _chosen(producer, task_ids, everything=everything, older_than_s=older_than_days * 86400)
        if chosen and not yes:
            confirm(f"Throw away {len(chosen)} failed tasks for good?", "say --yes to throw them away; nothing was")
        for task_id in chosen:
            _throw_away(producer, task_id)
            typer.echo(task_id)


def _chosen(producer: Producer, task_ids: list[str] | None, *, everything: bool, older_than_s: float = 0) -> list[str]:
    from dream.db import dead_letters

    if bool(task_ids) == everything:
        raise InvalidArguments("name the tasks by their ids, or say --all")
    with producer.database.read() as session:
        if task_ids:
            return [_found(session, task_id).id for task_id in task_ids]
        found = list(dead_letters.ids_of_dead(session, older_than_s=older_than_s))
    if not found:
        typer.echo(_NONE if not older_than_s else "no task failed as long ago", err=True)
    return found


def _throw_away(producer: Producer, task_id: str) -> None:
    from dream.db import dead_letters
    from dream.storage.keys import keys_of

    # Rows first: a task that somebody has replayed meanwhile keeps its bytes. Staged ones that stay are swept at night.
    with producer.database.begin() as session:
        pictures = dead_letters.forget(session, task_id)
    if pictures is None:
        raise InvalidArguments(f"{task_id} is no failed task (any more)")
    by_bucket: defaultdict[str, set[str]] = defaultdict(set)
    for picture in pictures:
        if picture.bucket:
            by_bucket[picture.bucket].update(keys_of(picture.storage_key, picture.variant_names))
    failed = producer.staging_area.delete(picture.staging_key for picture in pictures if picture.staging_key)
    for bucket, keys in by_bucket.items():
        failed |= producer.storage.delete(bucket, sorted(keys))
    for error in failed.values():
        raise error


def _found(session: Session, task_id: str) -> DreamTask:
    from dream.db import dead_letters

    task = dead_letters.find(session, task_id)
    if task is None:
        days = load_quietly().failed_task_ttl_s / 86400
        older = (
            f", and those that failed more than {days:g} days ago are removed (DREAM_FAILED_TASK_TTL_S)" if days else ""
        )
        raise InvalidArguments(f"no failed task has the ID {task_id}: `dream dlq list` lists them{older}")
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
    }


def _short(task: DreamTask) -> str:
    return task.name.rpartition(".")[2]


def _dream(task: DreamTask) -> object:
    return task.args[0] if task.args else "-"


def _why(task: DreamTask) -> str:
    from dream.cli.showing import clean

    return clean(owners_line(task.error)) or "-"


def _when(task: DreamTask) -> str:
    return task.finished_at.isoformat(" ", "seconds") if task.finished_at else "-"
