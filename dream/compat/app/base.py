"""The Celery-compatible app: its configuration, its tasks by name, and its servers."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, tzinfo
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dream.compat import current
from dream.compat.adoption import settings_of
from dream.compat.app.backend import Backend
from dream.compat.app.definition import LaterBased, base_from, complete, define_task, give_base
from dream.compat.app.publishing import publish
from dream.compat.app.registry import TaskRegistry
from dream.compat.app.task import Task as StockTask
from dream.compat.canvas import signature
from dream.compat.conf import Conf
from dream.compat.control import Control
from dream.compat.discovery import Discovery, Packages
from dream.compat.exceptions import ImproperlyConfigured, NotRegistered, Unsupported
from dream.compat.host import host
from dream.compat.periodic import entry_of
from dream.compat.queues import Declared
from dream.compat.refused import APP, refuse_attribute
from dream.compat.result import AsyncResult
from dream.compat.schedules import zone_of
from dream.compat.signals import AppSignal
from dream.errors import InvalidArguments

if TYPE_CHECKING:
    from dream.compat.result import EagerResult
    from dream.settings import Settings
    from dream.work.connection import Connection

__all__ = ["Celery"]


_QUEUE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9._-]*")
#: Arguments of Celery's constructor that replace the class of a part.
_REPLACED_PARTS = frozenset({"amqp", "control", "events", "fixups", "loader", "log", "tasks"})


class Celery:
    """An app.

    Parameters:
      main: its name, which begins the names of tasks in a script that is run as `__main__`.
      broker, backend: the settings `broker_url` and `result_backend`.
      include: modules with tasks, which workers import.
      config_source, namespace: as for `config_from_object`.
      changes: settings.
      set_as_current: make it the current app.
      task_cls: the base class of tasks without `base=`: a subclass of `Task`, or its dotted name, which is looked
        up when a task is first used.
      strict_typing: check the arguments of its tasks when they are sent, unless a task says `typing=`.
      **settings: more settings.

    Raises:
      ImproperlyConfigured: dream cannot honour a setting.
    """

    #: Whether it sends tasks that are not registered here, because workers may know them.
    sends_unknown = True
    #: The default of the argument `task_cls`, for subclasses.
    task_cls: Any = StockTask
    _base: type[StockTask] | None = None
    _zone: tzinfo | None = None
    _servers: Connection | None = None
    #: Its settings, and the settings of the process that they were made of. Holding these keeps their id unique.
    _seen: tuple[int, int, Settings, Settings] | None = None
    #: The id of the process that made the app's own connection, and this connection.
    _own: tuple[int, Connection | None] = (0, None)

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
        self.main = main
        self.strict_typing = strict_typing
        self.tasks = TaskRegistry(self)
        self.task_cls = task_cls or self.task_cls
        if not isinstance(self.task_cls, str):
            self._base = base_from(self.task_cls)
        self._finding_base: set[int] = set()
        self._changing_base = threading.RLock()
        #: The tasks that were defined without `base=`.
        self.without_base: list[StockTask] = []
        named = {"broker_url": broker, "result_backend": backend, "include": include, **settings, **(changes or {})}
        given = {name: value for name, value in named.items() if value is not None}
        self.conf = Conf(given, broker_url=_setting("broker_url"), timezone=_setting("timezone"))
        self._discovery = Discovery()
        self._own_lock = threading.Lock()
        self.on_after_configure = AppSignal(self)
        self.on_after_finalize = AppSignal(self)
        self.control = Control(self)
        if config_source is not None:
            self.config_from_object(config_source, namespace=namespace)
        if set_as_current:
            self.set_current()

    # --- configuration

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Take the settings of an object: a module, a class, a mapping, Django's settings, or the dotted name of one.

        Parameters:
          silent: ignore an object that cannot be imported.
          force: read it now, not when the first setting is asked for.
          namespace: if given, only names that begin with it count: `CELERY` for `CELERY_TASK_ROUTES`.

        Raises:
          ImproperlyConfigured: dream cannot honour a setting, or there is no such object.
        """
        self.conf.read_from(obj, namespace)
        if not (force or silent):
            return
        try:
            self.conf.resolve()
        except (ImportError, ImproperlyConfigured):
            if not silent:
                raise
            self.conf.read_from({}, namespace)

    def config_from_envvar(self, variable_name: str, silent: bool = False, force: bool = False) -> None:
        """Take the settings of the module that an environment variable names; see `config_from_object`.

        Raises:
          ImproperlyConfigured: it is not set.
        """
        name = os.environ.get(variable_name)
        if name:
            self.config_from_object(name, silent=silent, force=force)
        elif not silent:
            raise ImproperlyConfigured(f"{variable_name} is not set: it must name a module with settings")

    @property
    def timezone(self) -> tzinfo:
        """The zone of periodic tasks: `conf.timezone`, unless it is set here."""
        return self._zone or zone_of(self.conf.timezone)

    @timezone.setter
    def timezone(self, zone: str | tzinfo | None) -> None:
        self._zone = None if zone is None else zone_of(zone)

    def now(self) -> datetime:
        """The time in the app's zone."""
        return datetime.now(self.timezone)

    def autodiscover_tasks(
        self, packages: Packages = None, related_name: str | None = "tasks", force: bool = False
    ) -> None:
        """Make workers import the tasks of packages.

        Parameters:
          packages: names, or a function that gives them; None means Django's installed apps.
          related_name: the module in each package; None means the package itself.
          force: import them in this process, too, and now.
        """
        self._discovery.add(packages, related_name)
        if force:
            self._discovery.run()

    def finalize(self) -> None:
        """Import all modules with tasks, then call the receivers of the app's signals; workers and schedulers begin so.

        Raises:
          ImproperlyConfigured: see `config_from_object`. Errors of modules are not caught.
        """
        self.conf.resolve()
        self._discovery.run([*self.conf.imports, *self.conf.include])
        self.define_shared()
        self.on_after_configure.send(source=self.conf)
        self.on_after_finalize.send()

    # --- tasks

    @property
    def Task(self) -> type[StockTask]:  # noqa: N802 (Celery's name)
        """The base class of tasks that name no `base=`. Setting it also changes tasks that are defined already.

        Raises:
          ImproperlyConfigured: `task_cls` names no class of tasks.
        """
        thread_id = threading.get_ident()
        if self._base is None and thread_id not in self._finding_base:  # its module may use the app
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
        """`Task`, without the import that finds a base given by its name."""
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
          ImproperlyConfigured, Unsupported: an option is wrong or refused.
        """

        def define(function: Callable[..., Any]) -> StockTask:
            return define_task(self, function, options)

        return define(args[0]) if args and callable(args[0]) else define

    def define_shared(self) -> None:
        """Define the shared tasks in this app, and import the base of tasks."""
        _ = self.Task
        for name in current.SHARED:
            _ = self.tasks[name]

    def gen_task_name(self, name: str, module: str) -> str:
        """The full name of a function's task."""
        return f"{self.main if module == '__main__' and self.main else module}.{name}"

    def register_task(self, task: Any, **_options: Any) -> StockTask:
        """Add a task, or an instance of a class of tasks, under its name."""
        task = task() if isinstance(task, type) else task
        complete(self, task)
        self.tasks[task.name] = task
        return task  # type: ignore[no-any-return]

    def send_task(
        self, name: str, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult | EagerResult:
        """Send a task by its name, which this process or only its workers know.

        Parameters:
          name: full name.
          args, kwargs, **options: as for `Task.apply_async`.

        Raises:
          NotRegistered: it is dream's own app, which has all its tasks here.
        """
        task = self.tasks.get(name)
        if task is None and name in host().tasks:
            return host().send(self, name, args, kwargs, options)
        if task is not None:
            return task.apply_async(args, kwargs, **options)
        if not self.sends_unknown:
            raise NotRegistered(f"no task is called {name!r}")
        return publish(self, name, args, kwargs, options)

    def signature(self, *args: Any, **kwargs: Any) -> Any:
        """A signature of this app; see `dream.compat.canvas.signature`."""
        return signature(*args, **{**kwargs, "app": self})

    def AsyncResult(self, id: str, *, ignored: bool = False, **how: Any) -> AsyncResult:  # noqa: A002, N802 (Celery's)
        """The result of a task of any app."""
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
        """The queue of tasks that name none."""
        return str(self.conf.task_default_queue)

    def queue_named(self, queue: Any) -> str:
        """The name of a queue, which may be an object with a name.

        Raises:
          InvalidArguments: no queue can have that name.
        """
        name = getattr(queue, "name", queue)
        if not isinstance(name, str) or not _QUEUE_NAME.fullmatch(name):
            raise InvalidArguments(
                f"queue must begin with a letter or _ and go on with letters, digits and ._- only, not {name!r}"
            )
        return name

    def ignores_result(self, task: StockTask | None) -> bool:
        """Whether the outcome of a task is not stored."""
        own = task.ignore_result if task is not None else None
        return bool(self.conf.task_ignore_result if own is None else own)

    @property
    def amqp(self) -> Declared:
        """The queues that it names: `app.amqp.queues`."""
        return Declared(self.conf.task_queues or [self.default_queue])

    # --- servers

    @property
    def servers(self) -> Connection:
        """Its broker and results: those that were set, else the process's if the settings are equal, else its own."""
        from dream.settings import load
        from dream.work import connection

        if self._servers is not None:
            return self._servers
        settings, process = self.settings, load()
        return connection.default() if settings is process or settings == process else self._own_servers(settings)

    @servers.setter
    def servers(self, servers: Connection) -> None:
        self._servers = servers

    @property
    def settings(self) -> Settings:
        """The settings of this process, or its own if another app has filled in the process's.

        Raises:
          ImproperlyConfigured, SettingsError: a value is wrong.
        """
        from dream.settings import load

        seen = self._seen
        if seen is None or seen[:2] != (id(load()), self.conf.times_changed):
            found = settings_of(self.conf)
            self._seen = seen = id(load()), self.conf.times_changed, found, load()
        return seen[2]

    def _own_servers(self, settings: Settings) -> Connection:
        from dream.work.connection import Connection

        with self._own_lock:
            made_in, own = self._own
            # A forked process must not share its parent's connections.
            if own is None or made_in != os.getpid() or own.settings != settings:
                own = Connection(settings)
                self._own = os.getpid(), own
            return own

    def close(self) -> None:
        """Close its own connection. The process's stays open."""
        made_in, own = self._own
        self._own = 0, None
        if own is not None and made_in == os.getpid():
            own.close()

    # --- as Celery has them

    @cached_property
    def backend(self) -> Backend:
        """The stored results of tasks."""
        return Backend(self)

    def worker_main(self, argv: Sequence[str] | None = None) -> None:
        """Run a worker with the arguments of `celery worker` until a signal, then exit. It also runs host tasks."""
        from dream.compat.commandline import worker

        raise SystemExit(worker(sys.argv[1:] if argv is None else argv, app=self))

    def start(self, argv: Sequence[str] | None = None) -> None:
        """Run `celery worker …` or `celery beat …`, as these arguments say; then exit.

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


def _setting(name: str) -> Callable[[], Any]:
    """A function that reads the setting `DREAM_…` of that name."""

    def read() -> Any:
        from dream.settings import load

        return getattr(load(), name)

    return read
