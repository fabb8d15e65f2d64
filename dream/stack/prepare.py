"""Create the database's tables and the bucket before the services start.

This runs as a process, `python -m dream.stack.prepare`, while the servers start. So `dream up` itself does not load the
libraries of the database and the object store.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dream.log import redact
from dream.work.process import exit_code

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["main"]

_TIMEOUT_S = 60.0
#: For a caller's server; an embedded Valkey answers sooner.
_SERVER_TIMEOUT_S = 20.0


def main() -> int:
    """Migrate the database, and create the bucket when the object store answers. Return an exit code."""
    return exit_code(_prepare)


def _prepare() -> int:
    from dream.db.faults import explained
    from dream.db.migrate import upgrade
    from dream.settings import load

    settings = load()
    _reach_servers(settings)
    with _named("DREAM_DATABASE_URL"), explained():
        upgrade(
            settings.database_url,
            schema=settings.database_schema,
            with_dreams=settings.owners_sql is None,
            behind_pgbouncer=settings.database_pgbouncer,
        )
    with _named("DREAM_S3_ENDPOINT_URL"):
        _make_buckets(settings)
    return 0


def _make_buckets(settings: Settings) -> None:
    from dream.errors import ObjectStoreUnavailable
    from dream.storage import Storage

    storage = Storage(settings)
    buckets = {settings.staging_bucket} | (set() if settings.is_bucket_per_user else {settings.s3_bucket})
    if settings.originals_bucket is not None:
        buckets.add(settings.originals_bucket)
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            for bucket in buckets:
                storage.ensure_bucket(bucket)
        except ObjectStoreUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


@contextmanager
def _named(variable: str) -> Iterator[None]:
    """Begin each error with the variable that names the server."""
    from dream.errors import DreamError, SettingsError
    from dream.work.server_words import sentence_of

    try:
        yield
    except SettingsError:  # its text names the variable
        raise
    except DreamError as error:
        raise DreamError(redact(f"{variable}: {sentence_of(error)}")) from error


def _reach_servers(settings: Settings) -> None:
    """Wait until the broker and the Redis of the events answer: an embedded server may still be starting.

    Raises:
      BrokerUnavailable: a server does not answer, or refuses; the text names its variable.
    """
    from dream.errors import BrokerUnavailable
    from dream.work.server_words import sentence_of

    deadline = time.monotonic() + _SERVER_TIMEOUT_S
    for name, url in {"DREAM_BROKER_URL": settings.broker_url, "DREAM_REDIS_URL": settings.events_url}.items():
        while error := _fault_of(url):
            if time.monotonic() > deadline:
                raise BrokerUnavailable(redact(f"{name}={url}: {sentence_of(error)}"))
            time.sleep(0.2)


def _fault_of(url: str) -> Exception | None:
    """The error of the server or its client; None if it answers."""
    from contextlib import closing

    from redis.exceptions import BusyLoadingError

    from dream.work.broker import client_errors
    from dream.work.redis_client import connect

    try:
        if url.startswith("amqp"):
            import pika

            pika.BlockingConnection(pika.URLParameters(url)).close()
        else:
            with closing(connect(url)) as client:
                client.ping()
    except BusyLoadingError:  # the server runs, and still loads its file
        return None
    except client_errors() as error:
        return error
    return None


if __name__ == "__main__":
    sys.exit(main())
