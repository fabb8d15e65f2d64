"""The Celery-compatible app: its tasks by name, and where they go. Its configuration is in `configured`."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dream.compat import current
from dream.compat.app.configured import Configured
from dream.compat.app.definition import LaterBased, base_from, complete, define_task, give_base
from dream.compat.app.registry import TaskRegistry
from dream.compat.app.task import Task as StockTask
from dream.compat.control import Control
from dream.compat.exceptions import ImproperlyConfigured, NotRegistered, Unsupported
from dream.compat.periodic import entry_of
from dream.compat.queues import Declared
from dream.compat.refused import APP, refuse_attribute
from dream.errors import InvalidArguments
from dream.messages import OWN_TASKS

if TYPE_CHECKING:
    from dream.compat.app.backend import Backend
    from dream.compat.result import AsyncResult, EagerResult

__all__ = ["Celery"]


_QUEUE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9._-]*")
#: Arguments of Celery's constructor that put another class in a part's place.
_REPLACED_PARTS = frozenset({"amqp", "control", "events", "fixups", "loader", "log", "tasks"})


class Celery(Configured):
    """An app.

    Parameters:
      main: its name; tasks of a script that is run as `__main__` are named after it.
      broker, backend: the settings `broker_url` and `result_backend`.
      include: modules with tasks, which workers import.
      config_source: as `config_from_object`.
      namespace: of the names in that source.
      changes: settings.
      set_as_current: make it the current app.
      task_cls: the base class of tasks without `base=`: a subclass of `Task`, or its dotted name, which is looked
        up when a task is first used.
      strict_typing: check the arguments of its tasks when they are sent, unless a task says `typing=`.
      **settings: more of them.

    Raises:
      ImproperlyConfigured: a setting asks for what would not hold.
    """

    #: Whether a name that is not registered here may be one that workers know.
    sends_unknown = True
    #: The default of the argument `task_cls`, for subclasses.
    task_cls: Any = StockTask

    def __init__(
        self,
        main: str | None = None,
        *,
        broker: str | None = None,
        backend: str | None = None,
        include: Sequence[str] | None = None,
        config_source: Any = None,
        namespace: str | None = None,
        changes: Mapping[str, Any] | None = None,
        set_as_current: bool = True,
        task_cls: Any = None,
        strict_typing: bool = True,
        **settings: Any,
    ) -> None:
        for name in _REPLACED_PARTS & settings.keys():
            if settings.pop(name) is not None:
                raise ImproperlyConfigured(f"Celery(…, {name}=) is not supported: that part of Celery is not there")
        given = {"broker_url": broker, "result_backend": backend, "include": include, **settings, **(changes or {})}
        self.main = main
        self.strict_typing = strict_typing
        self.tasks = TaskRegistry(self)
        self.task_cls = task_cls or self.task_cls
        self._base: type[StockTask] | None = None if isinstance(self.task_cls, str) else base_from(self.task_cls)
        self._finding_base: set[int] = set()
        self._changing_base = threading.RLock()
        #: Tasks that were defined without `base=`.
        self.without_base: list[StockTask] = []
        super().__init__({name: value for name, value in given.items() if value is not None})
        self.control = Control(self)
        if config_source is not None:
            self.config_from_object(config_source, namespace=namespace)
        if set_as_current:
            self.set_current()

    # --- tasks

    @property
    def Task(self) -> type[StockTask]:  # noqa: N802 (Celery's name)
        """The base class of tasks that name no `base=`. Setting it also changes tasks that are defined already.

        Raises:
          ImproperlyConfigured: `task_cls` names no class of tasks.
        """
        thread_id = threading.get_ident()
        if self._base is None and thread_id not in self._finding_base:  # its module may look at the app
            self._finding_base.add(thread_id)
            try:
                self.Task = base_from(self.task_cls)
            finally:
                self._finding_base.discard(thread_id)
        return self._base or StockTask

    @Task.setter
    def Task(self, kind: type[StockTask]) -> None:  # noqa: N802 (Celery's name)
        base = base_from(kind)
        with self._changing_base:
            if base is not self._base:
                self._base = base
                for task in self.without_base:
                    give_base(self, task, base)

    @property
    def base_of_tasks(self) -> type[StockTask]:
        """`Task`, but without an import where it is only named yet."""
        return self._base or LaterBased

    def add_periodic_task(
        self,
        schedule: Any,
        sig: Any,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> str:
        """Add an entry to `conf.beat_schedule`; see `dream.compat.periodic.entry_of`. Returns its name."""
        name, entry = entry_of(schedule, sig, args, kwargs, name, options)
        self.conf.beat_schedule = {**self.conf.beat_schedule, name: entry}
        return name

    def task(self, *args: Any, **options: Any) -> Any:
        """Make a function a task of this app: `@app.task` or `@app.task(name=…, bind=True, …)`.

        Raises:
          ImproperlyConfigured, Unsupported: an option cannot be.
        """

        def define(function: Callable[..., Any]) -> StockTask:
            return define_task(self, function, options)

        return define(args[0]) if args and callable(args[0]) else define

    def define_shared(self) -> None:
        """Define shared tasks in this app, and find the base of all, before somebody asks for them."""
        _ = self.Task
        for name in current.SHARED:
            _ = self.tasks[name]

    def gen_task_name(self, name: str, module: str) -> str:
        """The full name of a function's task."""
        return f"{self.main if module == '__main__' and self.main else module}.{name}"

    def register_task(self, task: Any, **_options: Any) -> StockTask:
        """Add a task, or a class of one, under its name."""
        task = task() if isinstance(task, type) else task
        complete(self, task)
        self.tasks[task.name] = task
        return task  # type: ignore[no-any-return]

    def send_task(
        self, name: str, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult | EagerResult:
        """Send a task by its name: one that this process knows, or one that only workers do.

        Parameters:
          name: full name.
          args, kwargs, **options: as for `Task.apply_async`.

        Raises:
          NotRegistered: it is dream's own app, which has all its tasks here.
        """
        task = self.tasks.get(name)
        if task is None and name in OWN_TASKS:
            from dream.compat.tasks import own_task

            return own_task(name).send_by(self, args, kwargs, options)
        if task is not None:
            return task.apply_async(args, kwargs, **options)
        if not self.sends_unknown:
            raise NotRegistered(f"no task is called {name!r}")
        from dream.compat.app.publishing import publish

        return publish(self, name, args, kwargs, options)

    def signature(self, *args: Any, **kwargs: Any) -> Any:
        """A signature that this app sends."""
        from dream.compat.canvas import signature

        return signature(*args, **{**kwargs, "app": self})

    def AsyncResult(self, id: str, *, ignored: bool = False, **how: Any) -> AsyncResult:  # noqa: A002, N802 (Celery's)
        """The result of a task of any app."""
        from dream.compat.result import AsyncResult

        result = AsyncResult(id, app=self, **how)
        result.ignored = ignored
        return result

    @property
    def current_task(self) -> Any:
        """The task that runs in this thread."""
        return current.current_task._get_current_object()

    # --- where its tasks go

    @property
    def default_queue(self) -> str:
        """Where a task goes for which nobody names a queue."""
        return str(self.conf.task_default_queue)

    def queue_named(self, queue: Any) -> str:
        """The name of a queue, which may be an object that has one.

        Raises:
          InvalidArguments: it cannot be the name of a queue.
        """
        name = getattr(queue, "name", queue)
        if not isinstance(name, str) or not _QUEUE_NAME.fullmatch(name):
            raise InvalidArguments(
                f"queue must begin with a letter or _ and go on with letters, digits and ._- only, not {name!r}"
            )
        return name

    def ignores_result(self, task: StockTask | None) -> bool:
        """Whether nothing is kept of a task's end."""
        own = task.ignore_result if task is not None else None
        return bool(self.conf.task_ignore_result if own is None else own)

    @property
    def amqp(self) -> Declared:
        """`app.amqp.queues`: the queues that it names."""
        return Declared(self.conf.task_queues or [self.default_queue])

    # --- as Celery has them

    @cached_property
    def backend(self) -> Backend:
        """What is kept of tasks."""
        from dream.compat.app.backend import Backend

        return Backend(self)

    def worker_main(self, argv: Sequence[str] | None = None) -> None:
        """Work on this app's tasks, and dream's, until a signal, with the arguments of `celery worker`; then exit."""
        from dream.compat.commandline import worker

        raise SystemExit(worker(sys.argv[1:] if argv is None else argv, app=self))

    def start(self, argv: Sequence[str] | None = None) -> None:
        """Do what `celery` would with these arguments: `worker …` or `beat …`; then exit.

        Raises:
          Unsupported: they name another command.
        """
        from dream.compat.commandline import beat

        arguments = list(sys.argv[1:] if argv is None else argv)
        if "worker" in arguments:
            self.worker_main(arguments)
        if "beat" not in arguments:
            raise Unsupported(f"celery {' '.join(arguments)} is not there: use `dream`, or app.control")
        raise SystemExit(beat(arguments, app=self))

    def set_current(self) -> None:
        """Make it the current app."""
        current.set_current_app(self)

    set_default = set_current

    def __getattr__(self, name: str) -> Any:
        return refuse_attribute("app", APP, name, self)

    def __enter__(self) -> Celery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        return current.get_current_app, ()

    def __repr__(self) -> str:
        return f"<Celery {self.main}>"
