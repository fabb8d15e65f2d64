"""The connections of a process to its servers: each is made, and its library imported, when it is first used.

Each process of the product is built in the same way. Its root makes one `Connections`, builds its services from it, and
closes it last. A service is given what it needs and closes nothing that it was given.

    web        `producer.default()`: `Producer`                    closed with the connection of the process
    worker     `dream.actors`: `WorkerResources`, the actors       closed by `Lifetime`, after the worker
    scheduler  `scheduler.runner.run`: `Runner`                    closed by `Runner.stop`
    gateway    the lifespan of its app: `Services`                 closed by the lifespan
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dream.messages.registry import QUEUES
from dream.work.connection import Connection, made_once

if TYPE_CHECKING:
    from dream.db import Database
    from dream.notifications import Publisher
    from dream.settings import Settings
    from dream.storage import StagingArea, Storage
    from dream.work.broker import AnyBroker
    from dream.work.results import ResultStore

__all__ = ["Connections"]


class Connections:
    """The servers of one process. Safe to use from several threads.

    Parameters:
      settings: where the servers are.
      database, storage, messaging: existing ones of the process; their owner closes them.
      broker: as in `Connection`, if the process has no `messaging` yet.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database | None = None,
        storage: Storage | None = None,
        broker: AnyBroker | None = None,
        messaging: Connection | None = None,
    ) -> None:
        self.settings = settings
        self._closes_messaging = messaging is None
        #: The broker and the results, as the engine and the façade know them.
        self.messaging = messaging or Connection(settings, queues=QUEUES, broker=broker)
        given = {"database": database, "storage": storage}
        self._given = {name: each for name, each in given.items() if each is not None}
        self.__dict__.update(self._given)

    @made_once
    def database(self) -> Database:
        from dream.db import Database

        return Database(self.settings)

    @made_once
    def storage(self) -> Storage:
        from dream.storage import Storage

        return Storage(self.settings)

    @made_once
    def staging(self) -> StagingArea:
        """The staging of uploaded bytes."""
        from dream.storage import StagingArea

        return StagingArea(self.settings, self.storage)

    @made_once
    def publisher(self) -> Publisher:
        """The publisher, which sends events to the pages of dreams."""
        from dream.notifications import Publisher

        return Publisher(self.settings)

    @property
    def broker(self) -> AnyBroker:
        return self.messaging.broker

    @property
    def results(self) -> ResultStore:
        """The store of results, in Celery's form."""
        return self.messaging.results

    def close(self) -> None:
        """Close the connections that were made here."""
        made = self.__dict__.keys() - self._given.keys()
        if self._closes_messaging:
            self.messaging.close()
        if "publisher" in made:
            self.publisher.close()
        if "database" in made:
            self.database.dispose()
