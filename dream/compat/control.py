"""`app.control`: asks workers what they do, revokes tasks (`revocation`), and throws away what waits.

Answers come as fast as workers give them: the wait ends when every worker that heard the question has answered, and
`timeout` is its longest. What Celery's workers can be told beside that is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from dream.compat import revocation
from dream.compat.exceptions import OperationalError, Unsupported
from dream.compat.refused import INSPECT, refuse_attribute
from dream.compat.routes import queue_names
from dream.messages import QUEUES
from dream.questions import Question, RevokeArguments

if TYPE_CHECKING:
    from dream.compat.app import Celery
    from dream.middleware.asking import Answers

__all__ = ["Control", "Inspect"]

_COMMANDS = frozenset({"active", "active_queues", "ping", "registered", "reserved", "scheduled", "stats"})
_REFUSED = {
    "add_consumer": "start a worker with --queues",
    "autoscale": "start workers with --concurrency",
    "cancel_consumer": "start a worker with --queues",
    "disable_events": "there are no monitor events",
    "election": "workers do not elect",
    "enable_events": "there are no monitor events",
    "heartbeat": "there are no monitor events",
    "pool_grow": "start workers with --concurrency",
    "pool_restart": "start the worker again",
    "pool_shrink": "start workers with --concurrency",
    "rate_limit": "use dramatiq.rate_limits in the task",
    "revoke_by_stamped_headers": "there are no stamps; revoke by ids",
    "shutdown": "stop workers with their service manager",
    "time_limit": "set it where the task is defined",
}


class Control:
    """See the module.

    Parameters:
      app: whose queues are meant.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app

    def inspect(self, destination: Iterable[str] | None = None, timeout: float = 1.0, **_how: Any) -> Inspect:
        """What asks workers.

        Parameters:
          destination: their names; None means all.
          timeout: seconds to wait for answers.
        """
        return Inspect(self, destination, timeout)

    def ping(self, destination: Iterable[str] | None = None, timeout: float = 1.0) -> list[dict[str, Any]]:
        """Each worker that is there: `[{name: {"ok": "pong"}}]`."""
        return [{name: reply} for name, reply in self.ask("ping", destination=destination, timeout=timeout).items()]

    def purge(self) -> int:
        """Throw away what waits on the app's queues; returns how many messages. What is in work stays.

        Tasks of dream's own are in the database, and are sent again.

        Raises:
          OperationalError: the broker is away.
        """
        from dream.broker import make_broker, unavailable_as_error
        from dream.errors import BrokerUnavailable

        settings, conf = self._app.settings, self._app.conf
        broker = make_broker(settings)
        queues = {*QUEUES, conf.task_default_queue, *queue_names(conf.task_queues)}
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
        """Let tasks not begin; it holds for every worker, also for those that start later.

        Parameters:
          task_id: one id, or several.
          terminate: end what runs, too: tasks of callers, and uploads with what the pool does for them.
          reply: return what the workers say: `[{name: {"ok": …}}]`.

        Raises:
          OperationalError: Redis is away.
        """
        task_ids = [task_id] if isinstance(task_id, str) else list(task_id)
        answers = self.announce_revoked(task_ids, destination=destination, terminate=terminate, timeout=timeout)
        if answers.is_complete:
            running = {each for answer in answers.by_worker.values() for each in answer.get("running", ())}
            revocation.end_those_that_wait(self._app, [each for each in task_ids if each not in running])
        return [{name: answer} for name, answer in answers.by_worker.items()] if reply else None

    def announce_revoked(
        self,
        task_ids: Sequence[str],
        *,
        destination: Iterable[str] | None = None,
        terminate: bool = False,
        timeout: float = 1.0,
    ) -> Answers:
        """Let workers and rows know of it. What waits keeps its state until a worker meets it.

        Raises:
          OperationalError: Redis is away.
        """
        revocation.write_down(self._app.settings, task_ids)
        # Workers first: who revokes is in a race with them, and the database may not have been asked before.
        arguments = RevokeArguments(task_ids=list(task_ids), terminate=terminate)
        try:
            return self._asked("revoke", arguments, destination=destination, timeout=timeout)
        finally:
            revocation.write_into_rows(self._app.producer.database, task_ids)

    def terminate(self, task_id: str | Iterable[str], **how: Any) -> list[dict[str, Any]] | None:
        """As `revoke(…, terminate=True)`."""
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
          OperationalError: Redis is away, or what came is no answer.
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

        from dream.middleware.asking import ask

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
        from dream.compat.worker.control import COMMANDS

        if command not in _COMMANDS and command not in COMMANDS:
            raise Unsupported(f"control.{command} is not supported: {_REFUSED.get(command, 'workers do not know it')}")
        answers = self.ask(command, arguments, destination=destination, timeout=timeout)
        return [{name: answer} for name, answer in answers.items()] if reply else None

    def __getattr__(self, name: str) -> Any:
        if hasattr(type(self), name):  # a property that has raised AttributeError: let it say its own
            return object.__getattribute__(self, name)
        if name not in _REFUSED:
            raise AttributeError(f"control has no {name!r}")

        def refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
            raise Unsupported(f"control.{name} is not supported: {_REFUSED[name]}")

        return refuse


class Inspect:
    """Asks workers; each method gives `{worker's name: answer}`, or None where none has answered."""

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
        """What a worker has done, with how many threads."""
        return self._ask("stats")

    def active_queues(self) -> dict[str, Any] | None:
        """The queues that a worker takes tasks from."""
        return self._ask("active_queues")

    def _ask(self, command: str, destination: Iterable[str] | None = None) -> dict[str, Any] | None:
        wanted = destination or self._destination
        return self._control.ask(command, destination=wanted, timeout=self._timeout) or None

    def __getattr__(self, name: str) -> Any:
        return refuse_attribute("control.inspect()", INSPECT, name, self)
