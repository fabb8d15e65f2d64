"""Commands that run dream's processes: up, env, worker, scheduler, gateway, migrate."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dream.cli.command import Command, WrongUsage, explained
from dream.work.process import exit_code

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["register"]

Data = Annotated[Path, typer.Option(metavar="FOLDER", help="The folder for all data, logs and secrets of the stack.")]
#: Seconds that a worker needs to end after it has requeued its messages.
_LEAVE_S = 1.0


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    for command in (up, env, worker, scheduler, gateway, migrate):
        app.command(cls=Command)(command)


def up(
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, metavar="N", envvar="DREAM_PORT", help="The gateway's port; 0 chooses a free one."
        ),
    ] = 8000,
    data: Data = Path(".dream"),
) -> None:
    """Run all services on this machine, with embedded servers. A server that your environment names is used instead.

    Print `ready URL`; Ctrl-C stops everything.
    """
    from dream.stack.up import Stack

    # `settings.load` comes too early: the URLs of embedded servers are still missing.
    level = logging.getLevelNamesMapping().get(os.environ.get("DREAM_LOG_LEVEL", "").upper(), logging.INFO)
    logging.basicConfig(format="%(asctime)s [%(levelname)s] up: %(message)s", level=level, stream=sys.stderr)
    Stack(data, port=port).run(on_ready=lambda url: typer.echo(f"ready {url}"))


def env(data: Data = Path(".dream")) -> None:
    """Print the settings of a running `dream up`. For a shell: `eval "$(dream env)"`."""
    from dream.stack.up import running_variables

    for name, value in running_variables(data).items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def worker(
    queues: Annotated[
        str | None, typer.Option(metavar="A,B", help="Take tasks from these queues only, separated by commas.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Tasks at a time; DREAM_WORKER_THREADS by default.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes for pictures; DREAM_POOL_SIZE by default.")
    ] = None,
    app: Annotated[
        str | None, typer.Option("--app", "-A", metavar="APP", help="A Celery-compatible app; its tasks are run too.")
    ] = None,
) -> None:
    """Run tasks: process pictures, delete pictures, clean up."""
    from dream.work.respawn import keep_running

    if processes is not None:
        # In the environment, because a worker that starts anew reads its settings there.
        os.environ["DREAM_POOL_SIZE"] = str(processes)
    settings = _load()
    app = app or settings.app
    if app is not None:
        raise typer.Exit(_work_for(app, queues, threads))
    names = _queue_names(queues) if queues is not None else None

    def work() -> int:
        from dream.actors import run

        return run(queues=names or (), threads=threads)

    stop_timeout_s = settings.shutdown_timeout_s + _LEAVE_S
    raise typer.Exit(keep_running(lambda: exit_code(work), stop_timeout_s=stop_timeout_s))


def _work_for(app: str, queues: str | None, threads: int | None) -> int:
    """Run an app's tasks. The app must be loaded before its queues are known."""
    from dream.compat.commandline import CommandLine, work

    variables = {} if threads is None else {"DREAM_WORKER_THREADS": str(threads)}
    return work(CommandLine(variables, frozenset(_listed(queues)) if queues is not None else None, app=app))


def _listed(given: str) -> set[str]:
    return {name.strip() for name in given.split(",") if name.strip()}


def _queue_names(given: str) -> set[str]:
    from dream.messages.registry import QUEUES

    names = _listed(given)
    if not names or names - set(QUEUES):
        raise WrongUsage(f"--queues {given!r}: use {' or '.join(QUEUES)}")
    return names


def scheduler(
    app: Annotated[
        str | None,
        typer.Option("--app", "-A", metavar="APP", help="A Celery-compatible app; its beat_schedule is run too."),
    ] = None,
) -> None:
    """Run the timetable, send lost messages again, remove orphans."""
    settings = _load()
    if app is not None or settings.app is not None:
        from dream.compat.commandline import keep_time
        from dream.compat.finding import find_app

        raise typer.Exit(keep_time(find_app(app)))
    from dream.scheduler.runner import run

    raise typer.Exit(run(settings))


def gateway(
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, metavar="N", help="Processes on the port; DREAM_GATEWAY_WORKERS by default."),
    ] = None,
) -> None:
    """Serve the page, uploads, pictures and WebSockets."""
    if workers is not None:
        os.environ["DREAM_GATEWAY_WORKERS"] = str(workers)
    settings = _load()
    from dream.gateway.server import run

    raise typer.Exit(run(settings))


def migrate() -> None:
    """Create or upgrade the database's tables."""
    settings = _load()
    from dream.db.migrate import head, upgrade

    with explained():
        has_dreams = settings.owners_sql is None
        before = upgrade(
            settings.database_url,
            schema=settings.database_schema,
            with_dreams=has_dreams,
            behind_pgbouncer=settings.database_pgbouncer,
        )
    if before is None:
        typer.echo(f"the tables are created, at revision {head()}")
    elif before == head():
        typer.echo(f"nothing to do: the tables are at revision {head()}, the newest")
    else:
        typer.echo(f"the tables are upgraded from revision {before} to {head()}")


def _load() -> Settings:
    """Load the settings, and set logging up."""
    from dream import log, settings

    loaded = settings.load()
    log.configure(loaded)
    return loaded
