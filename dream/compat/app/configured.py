"""What an app is set to, what it imports before its tasks can run, and the producer that this makes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any

from dream.compat.app_signals import AppSignal
from dream.compat.conf import Conf
from dream.compat.conf.adoption import settings_of
from dream.compat.discovery import Discovery, Packages
from dream.compat.exceptions import ImproperlyConfigured
from dream.compat.schedules.base import zone_of

if TYPE_CHECKING:
    from dream.producer import Producer
    from dream.settings import Settings

__all__ = ["Configured"]


def _setting(name: str) -> Callable[[], Any]:
    """Gives a setting of `DREAM_…` when it is asked for."""

    def read() -> Any:
        from dream.settings import load

        return getattr(load(), name)

    return read


class Configured:
    """The configured half of an app.

    Parameters:
      given: settings that it is made with.

    Raises:
      ImproperlyConfigured: one asks for what would not hold.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.conf = Conf(given, broker_url=_setting("broker_url"), timezone=_setting("timezone"))
        self._zone: tzinfo | None = None
        self._discovery = Discovery()
        self._producer: Producer | None = None
        #: Its settings, and the settings of the process that they were made of. Holding these keeps their id unique.
        self._seen: tuple[int, int, Settings, Settings] | None = None
        #: The id of the process that made its own producer, and this producer.
        self._own: tuple[int, Producer | None] = (0, None)
        self._own_lock = threading.Lock()
        self.on_after_configure = AppSignal(self)
        self.on_after_finalize = AppSignal(self)

    def define_shared(self) -> None:
        """Make shared tasks this app's, before somebody asks for all."""
        raise NotImplementedError

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

    def finalize(self) -> None:
        """Import all that has tasks, then tell who waits for the configuration; workers and schedulers do so first.

        Raises:
          ImproperlyConfigured: see `config_from_object`. What a module raises goes through.
        """
        self.conf.resolve()
        self._discovery.run([*self.conf.imports, *self.conf.include])
        self.define_shared()
        self.on_after_configure.send(source=self.conf)
        self.on_after_finalize.send()

    # --- where its tasks go

    @property
    def producer(self) -> Producer:
        """The producer of its tasks: one that was set, else the process's if the settings are equal, else its own."""
        from dream import producer
        from dream.settings import load

        if self._producer is not None:
            return self._producer
        settings, process = self.settings, load()
        return producer.default() if settings is process or settings == process else self._own_producer(settings)

    @producer.setter
    def producer(self, producer: Producer) -> None:
        self._producer = producer

    @property
    def settings(self) -> Settings:
        """The settings of this process, or its own where another app has set the process's.

        Raises:
          ImproperlyConfigured, SettingsError: a value is wrong.
        """
        from dream.settings import load

        seen = self._seen
        if seen is None or seen[:2] != (id(load()), self.conf.times_changed):
            found = settings_of(self.conf)
            self._seen = seen = id(load()), self.conf.times_changed, found, load()
        return seen[2]

    def _own_producer(self, settings: Settings) -> Producer:
        from dream.producer import Producer

        with self._own_lock:
            made_in, own = self._own
            # A forked process must not share its parent's connections.
            if own is None or made_in != os.getpid() or own.settings != settings:
                own = Producer(settings)
                self._own = os.getpid(), own
            return own

    def close(self) -> None:
        """Close its own producer. The process's stays open."""
        made_in, own = self._own
        self._own = 0, None
        if own is not None and made_in == os.getpid():
            own.close()
