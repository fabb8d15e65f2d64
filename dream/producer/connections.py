"""What a producer works with: each is made, and its library imported, when it is first used."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dream.broker import AnyBroker
    from dream.db import Database
    from dream.results import ResultStore
    from dream.settings import Settings
    from dream.storage import StagingArea, Storage

__all__ = ["Connections"]


class Connections:
    """See the module.

    Parameters:
      settings: where the servers are.
      database, storage, broker: those of the process, where it has them already; they are its own to close.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database | None = None,
        storage: Storage | None = None,
        broker: AnyBroker | None = None,
    ) -> None:
        self._settings = settings
        given = {"database": database, "storage": storage, "broker": broker}
        self._given = {name: each for name, each in given.items() if each is not None}
        self.__dict__.update(self._given)

    @property
    def settings(self) -> Settings:
        """The settings that it was made with."""
        return self._settings

    @cached_property
    def database(self) -> Database:
        from dream.db import Database

        return Database(self._settings)

    @cached_property
    def storage(self) -> Storage:
        from dream.storage import Storage

        return Storage(self._settings)

    @cached_property
    def staging_area(self) -> StagingArea:
        from dream.storage import StagingArea

        return StagingArea(self._settings, self.storage)

    @cached_property
    def broker(self) -> AnyBroker:
        from dream.broker import make_broker

        return make_broker(self._settings)

    @cached_property
    def results(self) -> ResultStore:
        """Where results are kept in Celery's form."""
        from dream.results import ResultStore

        return ResultStore(self._settings)

    def close(self) -> None:
        """Close what was made here."""
        made = self.__dict__.keys() - self._given.keys()
        if "database" in made:
            self.database.dispose()
        if "broker" in made:
            self.broker.close()
        if "results" in made:
            self.results.close()
