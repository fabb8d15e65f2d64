"""The checks of `dream doctor`: each looks at one thing and reports findings."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import redis
from sqlalchemy import inspect, make_url, select, text
from sqlalchemy.exc import SQLAlchemyError

from dream.cli.command import explained
from dream.cli.findings import Check, Finding, right, warning, wrong
from dream.cli.private import checks_of_private_data
from dream.cli.running import look_at_versions, look_for_processes, look_for_workers
from dream.db import Database, DreamImage, migrate, simplejwt
from dream.db.clock import now
from dream.db.dreams import owner_of
from dream.db.faults import explain
from dream.errors import (
    AccessDenied,
    BrokerUnavailable,
    BucketMissing,
    DatabaseUnavailable,
    DreamError,
    ObjectStoreUnavailable,
    SettingsError,
)
from dream.messages.registry import QUEUES
from dream.settings.sentinel import SentinelUrl, is_sentinel
from dream.storage import Storage, new_staging_key
from dream.storage.staging import StagingFolder
from dream.work.presence import NO_CLUSTER, is_cluster
from dream.work.redis_client import connect
from dream.work.server_words import sentence_of
from dream.work.text import size_text

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["checks_of", "is_too_old", "judge_clock", "judge_space"]

#: The first version with BLMOVE, the command with which idle workers wait.
_OLDEST_REDIS = (6, 2)
#: Settings that a broker's Redis needs: value, danger of another value, advice.
_WANTED = {
    "appendonly": (
        "yes",
        "a restart of Redis would lose messages",
        "set `appendonly yes` in redis.conf (at once: CONFIG SET appendonly yes)",
    ),
    "maxmemory-policy": (
        "noeviction",
        "a full Redis would evict messages",
        "set `maxmemory-policy noeviction` in redis.conf (at once: CONFIG SET maxmemory-policy noeviction)",
    ),
}
_SKEW_WARNING_S = 2.0
_SKEW_WRONG_S = 60.0
_OLDEST_POSTGRESQL = 13
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: Folders that systemd's PrivateTmp replaces.
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108
_PROBE = b"written by `dream doctor`, which removes it at once"
_STORE_ADVICE = "look at DREAM_S3_ENDPOINT_URL, DREAM_S3_REGION, the keys and the bucket's policy"
_FOLDER_ADVICE = "look at DREAM_STAGING_DIR: all processes need the same folder, and must be able to write there"
#: Less free space than this is worth a look; less than the second stops work soon.
_LEAST_FREE_BYTES, _NO_SPACE_BYTES = 2**30, 100 * 2**20
_KEY_ADVICE = "make a key: python3 -c 'import secrets; print(secrets.token_hex(32))'"
_CLOCK_ADVICE = "set the clock of both machines by NTP"


def checks_of(settings: Settings) -> list[Check]:
    """Every check, in the order of the report."""
    database_advice = "look at DREAM_DATABASE_URL and at the server"
    return [
        *_broker_checks(settings),
        Check("database", partial(_database, settings), database_advice),
        Check("migrations", partial(_migrations, settings), "run `dream migrate`", needs=["database"]),
        *_owners_checks(settings),
        *_blacklist_checks(settings),
        *_bucket_checks(settings),
        *checks_of_private_data(settings),
        Check("clock of the database", partial(_database_clock, settings), database_advice, needs=["database"]),
        *_redis_clock_checks(settings),
        Check(
            "disk space",
            partial(_disk_space, settings),
            "look at DREAM_WORK_DIR, DREAM_STAGING_DIR and DREAM_DATABASE_URL",
        ),
        Check("tokens", partial(_tokens, settings), _KEY_ADVICE),
        *_report_checks(settings),
        Check("addresses", partial(_addresses, settings), "set DREAM_GATEWAY_URL to where browsers reach the gateway"),
    ]


# --- broker


def _broker_checks(settings: Settings) -> list[Check]:
    """The broker with its settings and queues, the Redis of the events, and the processes that are registered there."""
    advice = "look at DREAM_BROKER_URL and at the server"
    events_advice = "look at DREAM_REDIS_URL and at the server"
    if settings.is_redis_broker:
        checks = [
            Check("broker", partial(_redis, settings.broker_url), advice),
            Check("broker's settings", partial(_redis_settings, settings.broker_url), advice, needs=["broker"]),
        ]
    else:
        checks = [
            Check("broker", partial(_rabbitmq, settings.broker_url), advice),
            Check("broker's queues", partial(_queues, settings), advice, needs=["broker"]),
        ]
    if settings.redis_url is None:
        checks.append(Check("events", _same_as_broker, events_advice, needs=["broker"]))
    else:
        checks.append(Check("events", partial(_redis, settings.redis_url), events_advice))
    return [
        *checks,
        Check("workers", partial(look_for_workers, settings), events_advice, needs=["events"]),
        Check("scheduler and gateway", partial(look_for_processes, settings), events_advice, needs=["events"]),
        Check("versions", partial(look_at_versions, settings), events_advice, needs=["events"]),
    ]


def _same_as_broker() -> Iterator[Finding]:
    yield right("events go through the broker's Redis")


# --- Redis


def _redis(url: str) -> Iterator[Finding]:
    with closing(connect(url)) as client:
        try:
            about: dict[str, Any] = client.info("server")
        except redis.RedisError as error:
            raise BrokerUnavailable(f"Redis at {url}: {sentence_of(error)}") from error
    if is_cluster(about):
        yield wrong(f"{url} is a node of a Redis Cluster, and dream does not start on it", NO_CLUSTER)
        return
    name = "Valkey" if about.get("server_name") == "valkey" else "Redis"
    version = str(about.get("valkey_version") or about.get("redis_version") or "of unknown version")
    if is_too_old(version):
        yield wrong(f"{name} {version} answers, but is too old", f"use {'.'.join(map(str, _OLDEST_REDIS))} or newer")
    else:
        yield right(f"{name} {version} answers at {url}")
    if is_sentinel(url):
        yield from _sentinels(SentinelUrl.parse(url))


def _sentinels(url: SentinelUrl) -> Iterator[Finding]:
    """Ask each sentinel: a failover needs most of them, and one that is away is found only here."""
    for host, address in zip(url.hosts, url.sentinels, strict=True):
        try:
            with closing(connect(address, decode_responses=True)) as client:
                at: Any = client.sentinel_get_master_addr_by_name(url.service)
        except redis.RedisError as error:
            yield warning(f"the sentinel {host}: {sentence_of(error)}", "start it: a failover needs most sentinels")
            continue
        if at:
            yield right(f"the sentinel {host} knows {url.service} at {at[0]}:{at[1]}")
        else:
            yield warning(f"the sentinel {host} does not watch {url.service}", "configure it like the others")


def is_too_old(version: str) -> bool:
    """Whether a server of this version lacks a command that dream uses. A server without a version counts as new."""
    numbers = tuple(int(part) for part in version.split(".") if part.isdigit())
    return () < numbers < _OLDEST_REDIS


def _redis_settings(url: str) -> Iterator[Finding]:
    with closing(connect(url)) as client:
        try:
            found: dict[Any, Any] = client.config_get(*_WANTED)
        except redis.ResponseError as error:
            yield warning(
                f"this server does not show its settings, as managed ones do not ({str(error).split(',')[0]})",
                "look in its console: it must persist every write and evict nothing",
            )
            return
    for name, (wanted, danger, advice) in _WANTED.items():
        value = found.get(name)
        if value == wanted:
            yield right(f"{name} {value}")
        else:
            yield wrong(f"{name} is {value}, not {wanted}: {danger}", advice)


# --- RabbitMQ


def _rabbitmq(url: str) -> Iterator[Finding]:
    import pika

    try:
        pika.BlockingConnection(pika.URLParameters(url)).close()
    except (pika.exceptions.AMQPError, OSError) as error:
        raise BrokerUnavailable(f"RabbitMQ at {url}: {sentence_of(error)}") from error
    yield right(f"RabbitMQ answers at {url}")


def _queues(settings: Settings) -> Iterator[Finding]:
    from dream.work.broker.rabbitmq import RabbitmqBroker

    names = [settings.queue_prefix + queue for queue in QUEUES]
    with closing(RabbitmqBroker(url=settings.broker_url, middleware=[])) as broker:
        try:
            for name in names:
                broker.declare_queue(name, ensure=True)
        except SettingsError as error:
            yield wrong(str(error), "set the same DREAM_QUEUE_PREFIX for all processes of dream")
            return
    yield right(f"the queues {' and '.join(names)} are declared")


# --- database


def _database(settings: Settings) -> Iterator[Finding]:
    url = make_url(settings.database_url)
    # A connection would create the file.
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
        yield wrong(f"there is no database at {url.database}", "run `dream migrate`, or look at DREAM_DATABASE_URL")
        return
    database = Database(settings)
    try:
        with _plain(), database.read() as session:
            if url.get_backend_name() == "sqlite":
                yield _journal(str(url.database), str(session.scalar(text("PRAGMA journal_mode"))))
            else:
                yield _postgresql(str(session.scalar(text("SHOW server_version"))))
    finally:
        database.dispose()


@contextmanager
def _plain() -> Iterator[None]:
    """Turn an error of the database into one plain sentence."""
    try:
        yield
    except SQLAlchemyError as error:
        raise DatabaseUnavailable(sentence_of(explain(error))) from error


def _journal(path: str, mode: str) -> Finding:
    if mode == "wal":
        return right(f"SQLite answers, in WAL mode ({path})")
    advice = "keep the file on a local disk: WAL does not work on network file systems"
    return wrong(f"SQLite is in {mode} mode: readers and writers would wait for each other ({path})", advice)


def _postgresql(version: str) -> Finding:
    major = version.split(".")[0]
    if major.isdigit() and int(major) < _OLDEST_POSTGRESQL:
        return warning(f"PostgreSQL {version} answers", f"dream is tested with {_OLDEST_POSTGRESQL} and newer")
    return right(f"PostgreSQL {version} answers")


def _migrations(settings: Settings) -> Iterator[Finding]:
    current, head = (
        migrate.current(
            settings.database_url, schema=settings.database_schema, behind_pgbouncer=settings.database_pgbouncer
        ),
        migrate.head(),
    )
    if current == head:
        yield right(f"at head ({head})")
    elif current is None:
        yield wrong("the database has no tables of dream yet", "run `dream migrate`")
    else:
        yield wrong(
            f"the database is at {current}, this release at {head}",
            "run `dream migrate`; if it does not know the database's revision, this release is older than the database",
        )


def _owners_checks(settings: Settings) -> Iterator[Check]:
    if settings.owners_sql is not None:
        advice = "correct DREAM_OWNERS_SQL; it runs in the database of DREAM_DATABASE_URL, as that URL's user"
        yield Check("owners", partial(_owners, settings, settings.owners_sql), advice, needs=["database"])


def _owners(settings: Settings, owners_sql: str) -> Iterator[Finding]:
    """Run the query for the dream of the newest picture, or for dream 1: a wrong query fails without rows too."""
    database = Database(settings)
    try:
        with explained(), database.read() as session:
            newest = select(DreamImage.dream_id).order_by(DreamImage.id.desc()).limit(1)
            dream_id = session.scalar(newest) if inspect(session.connection()).has_table("dream_images") else None
            owner = owner_of(session, dream_id or 1, owners_sql)
    finally:
        database.dispose()
    if owner is not None:
        yield right(f"DREAM_OWNERS_SQL gives dream {dream_id or 1} to the user {owner.user}, named {owner.username!r}")
    elif dream_id is None:
        yield right("DREAM_OWNERS_SQL runs; there is no picture yet to try it with")
    else:
        said = f"DREAM_OWNERS_SQL runs, but it finds no owner of dream {dream_id}, the dream of the newest picture"
        yield warning(said, "if that dream exists, correct the query")


def _blacklist_checks(settings: Settings) -> Iterator[Check]:
    if settings.token_blacklist == "simplejwt":  # noqa: S105 (no password)
        advice = "DREAM_DATABASE_URL must name the site's database: run its `manage.py migrate token_blacklist` there"
        yield Check("revoked tokens", partial(_blacklist, settings), advice, needs=["database"])


def _blacklist(settings: Settings) -> Iterator[Finding]:
    database = Database(settings)
    try:
        with explained(), database.read() as session:
            simplejwt.check(session)
    finally:
        database.dispose()
    yield right("simplejwt's tables of revoked tokens are there")


# --- objects


def _bucket_checks(settings: Settings) -> Iterator[Check]:
    if settings.is_bucket_per_user:
        yield Check("bucket", lambda: [right(f"one for each user: {settings.s3_bucket}")], _STORE_ADVICE)
    else:
        yield Check("bucket", partial(_bucket, settings, settings.s3_bucket), _STORE_ADVICE)
    staging = settings.staging_bucket
    if staging != settings.s3_bucket:
        yield Check("staging bucket", partial(_bucket, settings, staging), _STORE_ADVICE)
    # Pages of other sites than the gateway's own are the ones that may send files to the store.
    origins = [each for each in settings.allowed_origins if "*" not in each]
    if settings.direct_upload_ttl_s and origins:
        yield Check("direct uploads", partial(_direct_uploads, settings, origins), _STORE_ADVICE)
    if settings.originals_bucket not in (None, settings.s3_bucket, staging):
        yield Check("originals bucket", partial(_bucket, settings, settings.originals_bucket or ""), _STORE_ADVICE)
    if settings.staging_dir is not None:
        yield Check("staging folder", partial(_staging_folder, Path(settings.staging_dir)), _FOLDER_ADVICE)


def _direct_uploads(settings: Settings, origins: Sequence[str]) -> Iterator[Finding]:
    storage, bucket = Storage(settings), settings.staging_bucket
    for origin in origins:
        if storage.lets_pages_put(bucket, origin):
            yield right(f"{bucket} takes files from pages of {origin}")
        else:
            yield warning(
                f"{bucket} takes no files from pages of {origin}, which only direct uploads need",
                "add a CORS rule (docs/uploads.md), or set DREAM_DIRECT_UPLOAD_TTL_S=0",
            )


def _bucket(settings: Settings, bucket: str) -> Iterator[Finding]:
    storage = Storage(settings)
    try:
        storage.check_bucket(bucket)
    except BucketMissing as error:
        yield wrong(
            str(error), "create it, or correct DREAM_S3_BUCKET, DREAM_S3_STAGING_BUCKET, DREAM_ORIGINALS_BUCKET"
        )
        return
    except AccessDenied as error:
        # An error about missing credentials needs no further words.
        refused = "" if "no credentials" in str(error) else "wrong S3 credentials, or no right to the bucket: "
        yield wrong(f"{refused}{error}", _STORE_ADVICE)
        return
    except ObjectStoreUnavailable as error:
        yield wrong(sentence_of(error), _STORE_ADVICE)
        return
    yield right(f"{bucket} answers at {settings.s3_endpoint_url or 'AWS'}")
    key = new_staging_key()
    try:
        storage.put_bytes(bucket, key, _PROBE)
    except DreamError as error:
        yield wrong(f"nothing can be written: {error}", "allow PutObject, and make sure that there is space")
        return
    is_read, failed = _read_back(storage, bucket, key), storage.delete(bucket, [key])
    if not is_read:
        yield wrong("an object came back with other bytes than were written", _STORE_ADVICE)
    elif failed or storage.exists(bucket, key):
        yield wrong(f"the object {key} cannot be deleted", "allow DeleteObject")
    else:
        yield right("a small object was written, read and deleted")


def _staging_folder(path: Path) -> Iterator[Finding]:
    folder = StagingFolder(path)
    key = folder.put(_PROBE)
    with tempfile.TemporaryDirectory() as name:
        target = Path(name) / "file"
        folder.fetch(key, target)
        is_read = target.read_bytes() == _PROBE
    failed = folder.delete([key])
    if failed or not is_read:
        yield wrong(f"a file that was written to {path} cannot be read or deleted", _FOLDER_ADVICE)
        return
    yield right(f"a small file was written, read and deleted in {path}")
    for temporary in _TEMPORARY:
        if path.resolve().is_relative_to(temporary):
            said = f"each systemd unit has a {temporary} of its own, and a restart of the machine may empty it"
            yield warning(said, "let DREAM_STAGING_DIR name another folder")


def _read_back(storage: Storage, bucket: str, key: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "object"
        storage.download(bucket, key, target)
        return target.read_bytes() == _PROBE


# --- disks of this machine


def _disk_space(settings: Settings) -> Iterator[Finding]:
    """Free space in the folders of this machine that dream writes to."""
    url = make_url(settings.database_url)
    folders = {
        "files during a run": settings.work_dir or tempfile.gettempdir(),
        "staged uploads": settings.staging_dir,
        "the database": Path(url.database).parent if url.get_backend_name() == "sqlite" and url.database else None,
    }
    for use, folder in folders.items():
        if folder is not None:
            yield judge_space(shutil.disk_usage(folder).free, f"{folder} ({use})")


def judge_space(free_bytes: int, where: str) -> Finding:
    """Judge the free space of a folder."""
    said = f"{size_text(free_bytes)} are free in {where}"
    if free_bytes >= _LEAST_FREE_BYTES:
        return right(said)
    make_room = "make room, or name a folder on another disk"
    return warning(said, make_room) if free_bytes >= _NO_SPACE_BYTES else wrong(said, make_room)


# --- clocks


def judge_clock(ahead_s: float, whose: str) -> Finding:
    """Judge a clock by its distance to this machine's.

    Parameters:
      ahead_s: seconds by which the clock is ahead; negative if it is behind.
      whose: the name of the clock.
    """
    off_s = abs(ahead_s)
    if off_s <= _SKEW_WARNING_S:
        return right(f"{whose} and this machine agree within {_SKEW_WARNING_S:g} s")
    said = f"{whose} is {off_s:.1f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine"
    return wrong(said, _CLOCK_ADVICE) if off_s > _SKEW_WRONG_S else warning(said, _CLOCK_ADVICE)


def _database_clock(settings: Settings) -> Iterator[Finding]:
    if settings.database_url.startswith("sqlite"):
        yield right("SQLite uses this machine's clock")
        return
    database = Database(settings)
    try:
        with database.read() as session:
            before = time.time()
            clock = session.scalar(select(now()))
            here = (before + time.time()) / 2
    finally:
        database.dispose()
    if clock is not None:
        yield judge_clock(clock.timestamp() - here, "the database's clock")


def _redis_clock_checks(settings: Settings) -> Iterator[Check]:
    name = "events" if settings.redis_url else "broker"
    look = partial(_redis_clock, settings)
    yield Check("clock of Redis", look, "look at DREAM_REDIS_URL", needs=[name])


def _redis_clock(settings: Settings) -> Iterator[Finding]:
    with closing(connect(settings.events_url)) as client:
        before = time.time()
        seconds, microseconds = client.time()
        here = (before + time.time()) / 2
    yield judge_clock(float(seconds) + float(microseconds) / 1_000_000 - here, "the clock of Redis")


# --- keys and addresses


def _tokens(settings: Settings) -> Iterator[Finding]:
    from dream.gateway.keys import Keys

    keys, accepted = Keys(settings), ", ".join(settings.jwt_algorithms)
    if missing := keys.missing_bytes():
        yield wrong(
            f"DREAM_JWT_SECRET is {missing} bytes too short for {accepted}: it can be guessed",
            f"{_KEY_ADVICE}; a new key makes all tokens of the old one invalid",
        )
    elif settings.jwt_secret is not None:
        yield right(f"DREAM_JWT_SECRET is set and long enough for {accepted}")
    for source, place in (("DREAM_JWT_KEY_FILE", settings.jwt_key_file), ("DREAM_JWT_JWKS", settings.jwt_jwks)):
        found = [f"{key.kid or 'without a name'} ({', '.join(key.algorithms)})" for key in keys if key.source == source]
        if found:
            yield right(f"{source}={place} has {len(found)} keys: {', '.join(found)}")
        elif place is not None:
            yield wrong(f"{source}={place} was not read: the log above says why", "look at the address and the network")
    if settings.jwt_jwks is not None and not settings.jwt_audience:
        yield warning(
            "tokens of this issuer for other applications are accepted too", "set DREAM_JWT_AUDIENCE to this site's"
        )


def _report_checks(settings: Settings) -> list[Check]:
    """Sentry's SDK, if a DSN is set. Web processes need none, so it is no error of the setting."""
    if settings.sentry_dsn is None:
        return []
    return [Check("error reports", _sentry, "install the extra, or unset DREAM_SENTRY_DSN")]


def _sentry() -> Iterator[Finding]:
    if find_spec("sentry_sdk") is None:
        yield wrong("DREAM_SENTRY_DSN needs Sentry's SDK", "pip install 'dream-pictures[sentry]'")
    else:
        yield right("Sentry's SDK is installed")


def _addresses(settings: Settings) -> Iterator[Finding]:
    url = urlsplit(settings.gateway_url)
    advice = "set DREAM_GATEWAY_URL to where browsers reach the gateway: every picture's URL starts with it for ever"
    if settings.public_url:
        yield right(f"pictures are at {settings.public_url}, the gateway is at {settings.gateway_url}")
        if passed_by := _settings_passed_by(settings):
            said = "browsers read pictures at DREAM_PUBLIC_URL, past the gateway, so these have no effect on them"
            yield warning(f"{said}: {passed_by}", f"unset DREAM_PUBLIC_URL, or {passed_by}")
    elif url.hostname not in _LOOPBACK:
        said = f"pictures are at {settings.media_url}"
        is_plain = url.scheme == "http"
        yield warning(f"{said}, not encrypted", "use https://") if is_plain else right(said)
    elif settings.host not in _LOOPBACK:
        yield warning(
            f"DREAM_HOST={settings.host} serves other machines, but {settings.gateway_url} names this one",
            advice,
        )
    elif url.port != settings.port and settings.port:
        yield warning(f"DREAM_GATEWAY_URL={settings.gateway_url}, but DREAM_PORT={settings.port}", advice)
    else:
        yield right(f"pictures are at {settings.media_url}, for browsers on this machine only")


def _settings_passed_by(settings: Settings) -> str:
    """The settings of `/media` that have no effect with `DREAM_PUBLIC_URL`."""
    mode = f"DREAM_MEDIA_MODE={settings.media_mode}" if settings.media_mode != "redirect" else ""
    return " and ".join(filter(None, [mode, "DREAM_NEGOTIATE" if settings.negotiate else ""]))
