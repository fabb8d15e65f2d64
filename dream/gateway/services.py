"""What every request of a gateway process shares."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from dream.gateway.auth import Authenticator
from dream.gateway.limits import Limits

if TYPE_CHECKING:
    from dream.db import Database
    from dream.gateway.health import Readiness
    from dream.notifications.subscribe import Events
    from dream.producer import Producer
    from dream.settings import Settings
    from dream.storage import Storage

__all__ = ["RETRY_AFTER_S", "Services", "services_of"]

#: When a client may ask again where something was away.
RETRY_AFTER_S = 5
_HANDED_OVER_AT_ONCE = 8


@dataclass(frozen=True)
class Services:
    """The parts of one gateway process."""

    settings: Settings
    database: Database
    storage: Storage
    producer: Producer
    events: Events
    authenticator: Authenticator
    limits: Limits
    readiness: Readiness
    #: Uploads that may be handed to the producer at a time: each has one file in memory.
    handing_over: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_HANDED_OVER_AT_ONCE))


def services_of(connection: HTTPConnection) -> Services:
    """The services of the process that serves this request or socket."""
    services = connection.app.state.services
    if not isinstance(services, Services):
        raise TypeError("the application was not made by make_app")
    return services
