"""The root of a gateway process: its connections to servers, and the services that requests and sockets share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from dream.gateway.access import Access
from dream.gateway.auth import Authenticator
from dream.gateway.catalogue import Catalogue
from dream.gateway.figures import Figures
from dream.gateway.health import Readiness
from dream.gateway.limits import Limits
from dream.gateway.makers import Makers
from dream.gateway.memory import Memory
from dream.gateway.objects import Objects
from dream.gateway.tickets import Tickets
from dream.gateway.versions import Versions
from dream.gateway.watchers import Rounds, Unread
from dream.notifications.subscribe import Events
from dream.observe import tracing
from dream.producer import Producer
from dream.runs.connections import Connections

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from dream.settings import Settings

__all__ = ["Services", "services_of"]

_HANDED_OVER_AT_ONCE = 8


class Services:
    """The services of one gateway process. The application's lifespan starts and stops them.

    Parameters:
      settings: the settings of the process.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.connections = Connections(settings)
        self.producer = Producer(settings, self.connections)
        self.events = Events(settings)
        self.authenticator = Authenticator(settings, self.connections.database)
        self.tickets = Tickets(settings)
        self.catalogue = Catalogue(settings, self.connections)
        self.access = Access(settings, self.authenticator, self.catalogue.keep_s)
        self.objects = Objects(settings, lambda: self.connections.storage.tls_context())
        self.memory = Memory(settings)
        self.versions = Versions(
            settings, self.catalogue, Makers(settings, lambda: self.connections.database, self.producer)
        )
        self.limits = Limits(settings)
        self.figures = Figures(settings, self.connections)
        self.rounds = Rounds(settings, self.authenticator)
        self.unread = Unread(settings.max_unread_bytes)
        self.readiness = Readiness(self.connections.database, self.events, self.connections.storage)
        #: Uploads that the producer takes at a time: each has one file in memory.
        self.handing_over = asyncio.Semaphore(_HANDED_OVER_AT_ONCE)

    async def start(self) -> None:
        """Begin to listen for events, to read the keys of tokens again, and to look at watchers."""
        await self.events.start()
        self._keeping_keys = asyncio.create_task(self.authenticator.keep_keys(), name="token-keys")
        self._going_round = asyncio.create_task(self.rounds.run(), name="watcher-rounds")

    async def stop(self) -> None:
        """Stop listening, and close all connections."""
        self._keeping_keys.cancel()
        self._going_round.cancel()
        await self.events.stop()
        await self.tickets.close()
        await self.versions.stop()
        await self.memory.close()
        self.objects.close()
        await run_in_threadpool(self.connections.close)
        await run_in_threadpool(tracing.stop)


def services_of(connection: HTTPConnection) -> Services:
    """The services for a request or socket; `make_app` has put them into the application."""
    services: Services = connection.app.state.services
    return services
