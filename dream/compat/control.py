"""`app.control`: asks workers for their state, revokes tasks, and purges queues.

A wait for answers ends when every worker that heard the question has answered; `timeout` is the longest wait. Celery's
other commands are refused by name.

A revocation reaches running workers as a question, workers that start later through Redis (`worker.unwanted`), callers
that wait for the task through its result, and rows of the host's own tasks through the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from dream.compat.exceptions import OperationalError, TaskRevokedError, Unsupported
from dream.compat.failures import write_error
from dream.compat.host import host
from dream.compat.queues import queue_names
from dream.compat.refused import CONTROL, INSPECT, refuse_attribute
from dream.compat.worker.control import COMMANDS
from dream.work.questions import Question, RevokeArguments

if TYPE_CHECKING:
    from dream.compat.app.base import Celery
    from dream.settings import Settings
    from dream.work.questions import Answers

__all__ = ["Control", "Inspect"]

_COMMANDS = frozenset({"active", "active_queues", "ping", "registered", "reserved", "scheduled", "stats"})


class Control:
    """See the module.

    Parameters:
      app: the app whose queues count.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app

    def inspect(self, destination: Iterable[str] | None = None, timeout: float = 1.0, **_how: Any) -> Inspect:
        """An object that asks workers.

        Parameters:
          destination: their names; None means all.
          timeout: seconds to wait for answers.
        """
        return Inspect(self, destination, timeout)

    def ping(self, destination: Iterable[str] | None = None, timeout: float = 1.0) -> list[dict[str, Any]]:
        """The running workers: `[{name: {"ok": "pong"}}]`."""
        return [{name: reply} for name, reply in self.ask("ping", destination=destination, timeout=timeout).items()]

    def purge(self) -> int:
        """Delete the waiting messages of the app's queues; returns their number. Messages in work stay.

        Dream's own tasks are in the database, so the scheduler sends them again.

        Raises:
          OperationalError: the broker is away.
        """
        from dream.errors import BrokerUnavailable
        from dream.work.broker import make_broker, unavailable_as_error

        settings, conf = self._app.settings, self._app.conf
        broker = make_broker(settings)
        queues = {*host().queues, conf.task_default_queue, *queue_names(conf.task_queues)}
        try:
            with unavailable_as_error():
                return sum(broker.discard(settings.queue_prefix + queue) for queue in queues)
        except BrokerUnavailable as error:
            raise OperationalError(str(error)) from error
        finally:
            broker.close()

    discard_all = purge

    def revoke(
        self,
        task_id: str | Iterable[str],
        destination: Iterable[str] | None = None,
        terminate: bool = False,
        signal: Any = None,  # noqa: ARG002 (Celery's: which signal ends the process of a run; ours end in their threads)
        reply: bool = False,
        timeout: float = 1.0,
        **_how: Any,
    ) -> list[dict[str, Any]] | None:
        """Revoke tasks: no worker begins them, also none that starts later.

        Parameters:
          task_id: one id, or several.
          terminate: also end running tasks: callers' tasks, and uploads with their pictures in the pool.
          reply: return the workers' answers: `[{name: {"ok": …}}]`.

        Raises:
          OperationalError: Redis is away.
          ResultsUnavailable: it went away before the outcomes of waiting tasks were stored.
          DatabaseUnavailable: whether a deletion has begun cannot be read. The revocation itself is stored.
        """
        task_ids = [task_id] if isinstance(task_id, str) else list(task_id)
        answers = self.announce_revoked(task_ids, destination=destination, terminate=terminate, timeout=timeout)
        if answers.is_complete:
            going_on = {each for answer in answers.by_worker.values() for each in answer.get("running", ())}
            waiting = [each for each in task_ids if each not in going_on]
            irrevocable = host().irrevocable(self._app, waiting) if waiting else ()
            _end_waiting(self._app, [each for each in waiting if each not in irrevocable])
        return [{name: answer} for name, answer in answers.by_worker.items()] if reply else None

    def announce_revoked(
        self,
        task_ids: Sequence[str],
        *,
        destination: Iterable[str] | None = None,
        terminate: bool = False,
        timeout: float = 1.0,
    ) -> Answers:
        """Revoke tasks without storing an outcome: a waiting task keeps its state until a worker fetches it.

        Raises:
          OperationalError: Redis is away.
        """
        _store_revoked(self._app.settings, task_ids)
        # Workers first: a task may begin at any moment, and the first query of a database may take long.
        arguments = RevokeArguments(task_ids=list(task_ids), terminate=terminate)
        try:
            return self._asked("revoke", arguments, destination=destination, timeout=timeout)
        finally:
            host().revoke(self._app, task_ids)

    def terminate(self, task_id: str | Iterable[str], **how: Any) -> list[dict[str, Any]] | None:
        """Revoke tasks and end their runs: `revoke(…, terminate=True)`."""
        return self.revoke(task_id, **{**how, "terminate": True})

    def ask(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        destination: Iterable[str] | None = None,
        timeout: float = 1.0,
    ) -> dict[str, Any]:
        """The answer of each worker, by its name.

        Raises:
          OperationalError: Redis is away, or an answer is malformed.
        """
        return self._asked(command, arguments, destination=destination, timeout=timeout).by_worker

    def _asked(
        self,
        command: str,
        arguments: Mapping[str, Any] | None,
        *,
        destination: Iterable[str] | None,
        timeout: float,
    ) -> Answers:
        from redis import RedisError

        from dream.work.questions import ask

        names = [destination] if isinstance(destination, str) else destination
        question = Question(command=command, arguments=arguments, destination=None if names is None else list(names))
        try:
            return ask(self._app.settings, question, timeout_s=timeout)
        except (RedisError, ValueError) as error:
            raise OperationalError(f"workers cannot be asked: {error}") from error

    def broadcast(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        destination: Iterable[str] | None = None,
        reply: bool = False,
        timeout: float = 1.0,
        **_how: Any,
    ) -> list[dict[str, Any]] | None:
        """Ask workers by a command's name; see `ask`. Returns `[{name: answer}]` with `reply`, else None.

        Raises:
          Unsupported: workers do not know the command.
        """
        if command not in _COMMANDS and command not in COMMANDS:
            raise Unsupported(f"control.{command} is not supported: {CONTROL.get(command, 'workers do not know it')}")
        answers = self.ask(command, arguments, destination=destination, timeout=timeout)
        return [{name: answer} for name, answer in answers.items()] if reply else None

    def __getattr__(self, name: str) -> Any:
        if hasattr(type(self), name):  # a property has raised AttributeError: raise its own
            return object.__getattribute__(self, name)
        if name not in CONTROL:
            raise AttributeError(f"control has no {name!r}")

        def refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
            raise Unsupported(f"control.{name} is not supported: {CONTROL[name]}")

        return refuse


class Inspect:
    """Asks workers. Each method gives `{worker's name: answer}`, or None if no worker has answered."""

    def __init__(self, control: Control, destination: Iterable[str] | None, timeout: float) -> None:
        self._control = control
        self._destination = destination
        self._timeout = timeout

    def ping(self, destination: Iterable[str] | None = None) -> dict[str, Any] | None:
        return self._ask("ping", destination)

    def active(self, safe: bool | None = None) -> dict[str, Any] | None:  # noqa: ARG002
        """The tasks in work."""
        return self._ask("active")

    def reserved(self, safe: bool | None = None) -> dict[str, Any] | None:  # noqa: ARG002
        """The tasks that a worker has fetched and not begun."""
        return self._ask("reserved")

    def scheduled(self, safe: bool | None = None) -> dict[str, Any] | None:  # noqa: ARG002
        """The tasks that a worker has fetched and that are not due."""
        return self._ask("scheduled")

    def registered(self, *_info: str) -> dict[str, Any] | None:
        """The names of the tasks that a worker knows."""
        return self._ask("registered")

    registered_tasks = registered

    def stats(self) -> dict[str, Any] | None:
        """The numbers of runs and of threads of a worker."""
        return self._ask("stats")

    def active_queues(self) -> dict[str, Any] | None:
        """The queues that a worker takes tasks from."""
        return self._ask("active_queues")

    def _ask(self, command: str, destination: Iterable[str] | None = None) -> dict[str, Any] | None:
        wanted = destination or self._destination
        return self._control.ask(command, destination=wanted, timeout=self._timeout) or None

    def __getattr__(self, name: str) -> Any:
        return refuse_attribute("control.inspect()", INSPECT, name, self)


# --- revocations


def _store_revoked(settings: Settings, task_ids: Sequence[str]) -> None:
    """Store the revocation for workers that start later, or have not heard it.

    Raises:
      OperationalError: Redis is away.
    """
    from redis import RedisError

    from dream.compat.worker.unwanted import revoke

    try:
        revoke(settings, task_ids)
    except RedisError as error:
        raise OperationalError(f"the revocation cannot be stored: {error}") from error


def _end_waiting(app: Celery, task_ids: Sequence[str]) -> None:
    """Store REVOKED for waiting tasks, so that their callers need not wait until the message is due.

    Raises:
      ResultsUnavailable, DatabaseUnavailable
    """
    from dream.work.results import PENDING, RETRY, REVOKED, meta_of

    error = write_error(TaskRevokedError("revoked"))
    for task_id in task_ids:
        if app.AsyncResult(task_id).state in (PENDING, RETRY):
            app.servers.results.put(meta_of(task_id, REVOKED, error))
