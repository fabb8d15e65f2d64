"""Commands that run the parts of dream: up, env, worker, scheduler, gateway, migrate."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dream.process import exit_code

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["register"]

Data = Annotated[
    Path, typer.Option(metavar="FOLDER", help="The folder that holds all data, logs and secrets of the stack.")
]
#: What a worker needs to leave after its runs have been handed back.
_LEAVE_S = 1.0


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    for command in (up, env, worker, scheduler, gateway, migrate):
        app.command()(command)


def up(
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, metavar="N", envvar="DREAM_PORT", help="The gateway's port; 0 chooses a free one."
        ),
    ] = 8000,
    data: Data = Path(".dream"),
) -> None:
    """Run everything here: worker, scheduler, gateway, and the servers that your environment does not name.

    Prints `ready URL`; Ctrl-C stops all.
    """
    from dream.stack.up import Stack

    # Not by `settings.load`: values of servers that are embedded are still missing.
    level = logging.getLevelNamesMapping().get(os.environ.get("DREAM_LOG_LEVEL", "").upper(), logging.INFO)
    logging.basicConfig(format="%(asctime)s [%(levelname)s] up: %(message)s", level=level, stream=sys.stderr)
    Stack(data, port=port).run(on_ready=lambda url: typer.echo(f"ready {url}"))


def env(data: Data = Path(".dream")) -> None:
    """Print the settings of the stack that runs on a data folder, for `eval "$(dream env)"`."""
    from dream.stack.up import running_variables

    for name, value in running_variables(data).items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def worker(
    queues: Annotated[
        str | None, typer.Option(metavar="A,B", help="Take work from these queues only, separated by commas.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Tasks at a time.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, metavar="N", help="Processes that work on pictures.")] = None,
    app: Annotated[
        str | None, typer.Option("--app", "-A", metavar="APP", help="A Celery-compatible app whose tasks are run too.")
    ] = None,
) -> None:
    """Run tasks: process pictures, delete them, clean up."""
    from dream.stack.respawn import keep_running

    if processes is not None:
        # Into the environment, where all settings come from: the worker reads them anew.
        os.environ["DREAM_POOL_SIZE"] = str(processes)
    settings = _load()
    app = app or settings.app
    if app is not None:
        raise typer.Exit(_work_for(app, queues, threads))
    names = _queue_names(queues) if queues is not None else None

    def work() -> int:
        from dream.actors.worker import run

        return run(settings, queues=names, threads=threads)

    stop_timeout_s = settings.shutdown_timeout_s + _LEAVE_S
    raise typer.Exit(keep_running(lambda: exit_code(work), stop_timeout_s=stop_timeout_s))


def _work_for(app: str, queues: str | None, threads: int | None) -> int:
    """Work for an app, whose queues are known once it is loaded."""
    from dream.compat.celery_arguments import CommandLine
    from dream.compat.commandline import work

    variables = {} if threads is None else {"DREAM_WORKER_THREADS": str(threads)}
    return work(CommandLine(variables, frozenset(_listed(queues)) if queues is not None else None, app=app))


def _listed(given: str) -> set[str]:
    return {name.strip() for name in given.split(",") if name.strip()}


def _queue_names(given: str) -> set[str]:
    from dream.messages import QUEUES

    names = _listed(given)
    if not names or names - set(QUEUES):
        raise typer.BadParameter(f"{given!r}: use {' or '.join(QUEUES)}", param_hint="--queues")
    return names


def scheduler(
    app: Annotated[
        str | None,
        typer.Option("--app", "-A", metavar="APP", help="A Celery-compatible app whose beat_schedule is kept too."),
    ] = None,
) -> None:
    """Start what is due: the 03:00 clean-up, tasks that were lost, leftovers."""
    settings = _load()
    if app is not None or settings.app is not None:
        from dream.compat.commandline import keep_time
        from dream.compat.finding import find_app

        raise typer.Exit(keep_time(find_app(app)))
    from dream.scheduler.runner import run

    raise typer.Exit(run(settings))


def gateway() -> None:
    """Serve the page, uploads, pictures and WebSockets."""
    settings = _load()
    from dream.gateway.server import run

    raise typer.Exit(run(settings))


def migrate() -> None:
    """Bring the database's tables up to date."""
    settings = _load()
    from dream.cli.access import explained
    from dream.db.migrate import head, upgrade

    with explained():
        has_dreams = settings.owners_sql is None
        before = upgrade(settings.database_url, schema=settings.database_schema, with_dreams=has_dreams)
    if before is None:
        typer.echo(f"the tables are created, at revision {head()}")
    elif before == head():
        typer.echo(f"nothing to do: the tables are at revision {head()}, the newest")
    else:
        typer.echo(f"the tables are upgraded from revision {before} to {head()}")


def _load() -> Settings:
    """The settings, and logging as they say."""
    from dream import log, settings

    loaded = settings.load()
    log.configure(loaded)
    return loaded
