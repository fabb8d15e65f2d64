"""What `python dream/celery/worker.py` and `beat.py` do: run a worker or the scheduler, as `dream worker` and
`dream scheduler` would, with Celery's arguments.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dream.compat.celery_arguments import CommandLine, parse_beat, parse_worker
from dream.compat.conf.adoption import adopt, results_elsewhere
from dream.process import exit_code

if TYPE_CHECKING:
    from dream.compat.app import Celery
    from dream.settings import Settings

__all__ = ["beat", "keep_time", "work", "worker"]

#: What a worker needs to leave after its runs have been handed back.
_LEAVE_S = 1.0


def worker(arguments: Sequence[str], app: Celery | None = None) -> int:
    """Work until a signal; returns the exit code.

    Parameters:
      app: whose tasks run beside dream's; by default the one that the arguments name.
    """
    return exit_code(lambda: work(parse_worker(arguments, has_app=app is not None), app))


def beat(arguments: Sequence[str], app: Celery | None = None) -> int:
    """Keep the timetable until a signal; returns the exit code."""
    return exit_code(lambda: _keep_time(parse_beat(arguments), app))


def work(line: CommandLine, app: Celery | None = None) -> int:
    """Run dream's tasks, and an app's, until a signal; returns the exit code."""
    settings = _configure(line)
    from dream.stack.respawn import keep_running

    def once() -> int:
        # In the process that works, and anew in each one that takes the place of another.
        from dream.compat.finding import finalize

        used = _load_app(line, app)
        finalize(used)
        adopted = adopt(used.conf)
        _warn_of_results(used, adopted)
        from dream.actors.worker import run
        from dream.compat.worker.actors import register

        register(used, line.queues or ())
        return run(adopted, queues=set(line.queues) if line.queues else None)

    return keep_running(lambda: exit_code(once), stop_timeout_s=settings.shutdown_timeout_s + _LEAVE_S)


def _warn_of_results(app: Celery, settings: Settings) -> None:
    from dream.log import get_logger

    if (backend := results_elsewhere(app.conf)) is not None:
        get_logger(__name__).warning(
            "results_kept_elsewhere",
            result_backend=backend,
            kept_in=settings.events_url,
            do="set DREAM_REDIS_URL to the result_backend of those who wait for results",
        )


def _keep_time(line: CommandLine, app: Celery | None) -> int:
    _configure(line)
    return keep_time(_load_app(line, app))


def keep_time(app: Celery) -> int:
    """Keep our timetable, and an app's, until a signal; returns the exit code."""
    from dream.compat import signals
    from dream.compat.finding import finalize
    from dream.compat.periodic import periodic_tasks
    from dream.scheduler.runner import run

    finalize(app)
    signals.beat_init.send(app)
    return run(adopt(app.conf), periodic_tasks(app))


def _load_app(line: CommandLine, app: Celery | None = None) -> Celery:
    """The app whose tasks run beside dream's, or dream's own."""
    from dream.compat.finding import find_app, look_here

    app = app or find_app(line.app)
    if line.include:
        look_here()
        app.conf.include = (*app.conf.include, *line.include)
    if line.soft_time_limit_s is not None:
        app.conf.task_soft_time_limit = line.soft_time_limit_s
    return app


def _configure(line: CommandLine) -> Settings:
    """The settings, with what the command line says, and logging as they say."""
    from dream import log
    from dream.settings import load

    if line.folder is not None:
        os.chdir(line.folder)
    # Into the environment, so that they are read once, in one place, and by child processes too.
    os.environ.update(line.variables)
    load.cache_clear()
    settings = load()
    log.configure(settings)
    return settings
