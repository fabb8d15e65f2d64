"""The Celery-compatible app: a registry of tasks by name, and its configuration."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any, overload

from dream.compat.app_signals import AppSignal
from dream.compat.conf import Conf
from dream.compat.control import Control
from dream.compat.discovery import Discovery, Packages
from dream.compat.exceptions import ImproperlyConfigured, NotRegistered
from dream.compat.periodic import entry_of
from dream.compat.result import AsyncResult
from dream.compat.schedules.base import zone_of
from dream.compat.task import Task, check_definition

__all__ = ["Celery", "Registry"]


#: Arguments of Celery's constructor that put another class in a part's place.
_REPLACED_PARTS = frozenset({"amqp", "control", "events", "fixups", "loader", "log", "task_cls", "tasks"})


class Registry(UserDict[str, Task]):
    """Tasks by name, older names included."""

    def __missing__(self, name: str) -> Task:
        raise NotRegistered(f"no task is called {name!r}")


def _setting(name: str) -> Callable[[], Any]:
    """Gives a setting of `DREAM_…` when it is asked for."""

    def read() -> Any:
        from dream.settings import load

        return getattr(load(), name)

    return read


class Celery:
    """An app.

    Parameters:
      main: its name; tasks of a script that is run as `__main__` are named after it.
      broker, backend: the settings `broker_url` and `result_backend`.
      include: modules with tasks, which workers import.
      config_source: as `config_from_object`.
      namespace: of the names in that source.
      changes: settings.
      set_as_current: accepted; it is the current app when it is the last that was made.
      **settings: more of them.

    Raises:
      ImproperlyConfigured: a setting asks for what would not hold.
    """

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
        set_as_current: bool = True,  # noqa: ARG002
        **settings: Any,
    ) -> None:
        for name in _REPLACED_PARTS & settings.keys():
            if settings.pop(name) is not None:
                raise ImproperlyConfigured(f"Celery(…, {name}=) is not supported: that part of Celery is not there")
        given = {"broker_url": broker, "result_backend": backend, "include": include, **settings, **(changes or {})}
        self.main = main
        self.tasks = Registry()
        self.conf = Conf(
            {name: value for name, value in given.items() if value is not None},
            broker_url=_setting("broker_url"),
            timezone=_setting("timezone"),
        )
        self._zone: tzinfo | None = None
        self._discovery = Discovery()
        self.control = Control(self)
        self.on_after_configure = AppSignal(self)
        self.on_after_finalize = AppSignal(self)
        if config_source is not None:
            self.config_from_object(config_source, namespace=namespace)

    # --- configuration

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Take the settings of an object: a module, a class, a mapping, Django's settings, or the dotted name of one.

        Parameters:
          silent: an object that cannot be imported sets nothing.
          force: look into it now, not at the first look at a setting.
          namespace: only names that begin with it count: `CELERY` for `CELERY_TASK_ROUTES`.

        Raises:
          ImproperlyConfigured: a setting asks for what would not hold, or there is no such object.
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

    @property
    def timezone(self) -> tzinfo:
        """The zone of periodic tasks; that of `conf.timezone` unless it is set here."""
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
          related_name: the module in each; None means the package itself.
          force: import them now too.
        """
        self._discovery.add(packages, related_name)
        if force:
            self._discovery.run()

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

    def finalize(self) -> None:
        """Import all that has tasks, then tell who waits for the configuration; workers and schedulers do so first.

        Raises:
          ImproperlyConfigured: see `config_from_object`. What a module raises goes through.
        """
        self.conf.resolve()
        self._discovery.run([*self.conf.imports, *self.conf.include])
        self.on_after_configure.send(source=self.conf)
        self.on_after_finalize.send()

    # --- tasks

    @overload
    def task(self, function: Callable[..., Any], /) -> Task: ...
    @overload
    def task(self, /, *, name: str | None = None, **options: Any) -> Callable[[Callable[..., Any]], Task]: ...

    def task(
        self, function: Callable[..., Any] | None = None, /, *, name: str | None = None, **options: Any
    ) -> Task | Callable[[Callable[..., Any]], Task]:
        """Make a function a task of this app: `@app.task` or `@app.task(name=…)`.

        Raises:
          InvalidArguments: an option has no meaning here.
        """

        def define(function: Callable[..., Any]) -> Task:
            full_name = name or self.gen_task_name(function.__name__, function.__module__)
            check_definition(full_name, options)
            return self.tasks.get(full_name) or self.register_task(Task(self, full_name, function))

        return define if function is None else define(function)

    def gen_task_name(self, name: str, module: str) -> str:
        """The full name of a function's task."""
        return f"{self.main if module == '__main__' and self.main else module}.{name}"

    def register_task(self, task: Task) -> Task:
        """Add a task under its name."""
        self.tasks[task.name] = task
        return task

    def send_task(
        self, name: str, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult:
        """Send a task by its name, an older one perhaps.

        Parameters:
          name: full name.
          args, kwargs, **options: as for `Task.apply_async`.

        Raises:
          NotRegistered: workers do not know the task.
        """
        return self.tasks[name].apply_async(args, kwargs, **options)

    def AsyncResult(self, id: str) -> AsyncResult:  # noqa: A002, N802 (Celery's names)
        """The result of a task of any app."""
        return AsyncResult(id, app=self)

    def __repr__(self) -> str:
        return f"<Celery {self.main}>"
