"""The checks of `dream doctor`: database, objects, clocks, keys and addresses; brokers have a file of their own."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sqlalchemy import inspect, make_url, select, text
from sqlalchemy.exc import SQLAlchemyError

from dream.arguments import size_text
from dream.cli.access import explained
from dream.cli.broker_checks import broker_checks, redis_clock_s
from dream.cli.findings import Check, Finding, right, warning, wrong
from dream.db import Database, DreamImage, migrate
from dream.db.clock import now
from dream.db.dreams import owner_of
from dream.db.faults import explain
from dream.errors import AccessDenied, BucketMissing, DatabaseUnavailable, DreamError, ObjectStoreUnavailable
from dream.server_words import sentence_of
from dream.storage import Storage, new_staging_key
from dream.storage.folder import StagingFolder

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["checks_of", "judge_clock"]

_SKEW_WARNING_S = 2.0
_SKEW_WRONG_S = 60.0
_OLDEST_POSTGRESQL = 13
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PROBE = b"written by `dream doctor`, which removes it at once"
_STORE_ADVICE = "look at DREAM_S3_ENDPOINT_URL, DREAM_S3_REGION, the keys and the bucket's policy"
_FOLDER_ADVICE = "look at DREAM_STAGING_DIR: every part must see the same folder, and may write there"
_LEAST_FREE_BYTES = 2**30
_KEY_ADVICE = "make a key: python3 -c 'import secrets; print(secrets.token_hex(32))'"
_CLOCK_ADVICE = "set the clock of both machines by NTP"


def checks_of(settings: Settings) -> list[Check]:
    """Every check, in the order of the report."""
    database_advice = "look at DREAM_DATABASE_URL and at the server"
    return [
        *broker_checks(settings),
        Check("database", partial(_database, settings), database_advice),
        Check("migrations", partial(_migrations, settings), "run `dream migrate`", needs=["database"]),
        *_owners_checks(settings),
        *_bucket_checks(settings),
        Check("clock of the database", partial(_database_clock, settings), database_advice, needs=["database"]),
        *_redis_clock_checks(settings),
        Check("tokens", partial(_tokens, settings), _KEY_ADVICE),
        Check("addresses", partial(_addresses, settings), "set DREAM_GATEWAY_URL to where browsers reach the gateway"),
    ]


# --- database


def _database(settings: Settings) -> Iterator[Finding]:
    url = make_url(settings.database_url)
    # To connect would make the file.
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
    """Say in one plain sentence why the database does not let us in."""
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
    current, head = migrate.current(settings.database_url, schema=settings.database_schema), migrate.head()
    if current == head:
        yield right(f"at head ({head})")
    elif current is None:
        yield wrong("the database has no tables of ours yet", "run `dream migrate`")
    else:
        yield wrong(
            f"the database is at {current}, this release at {head}",
            "run `dream migrate`; if that does not know the database's revision, this release is the older one",
        )


def _owners_checks(settings: Settings) -> Iterator[Check]:
    if settings.owners_sql is not None:
        advice = "correct DREAM_OWNERS_SQL; it runs in the database of DREAM_DATABASE_URL, by its role"
        yield Check("owners", partial(_owners, settings, settings.owners_sql), advice, needs=["database"])


def _owners(settings: Settings, owners_sql: str) -> Iterator[Finding]:
    """Run the query for the newest picture's dream, else for dream 1: errors of SQL need no row."""
    database = Database(settings)
    try:
        with explained(), database.read() as session:
            newest = select(DreamImage.dream_id).order_by(DreamImage.id.desc()).limit(1)
            dream_id = session.scalar(newest) if inspect(session.connection()).has_table("dream_images") else None
            owner = owner_of(session, dream_id or 1, owners_sql)
    finally:
        database.dispose()
    if owner is not None:
        yield right(f"DREAM_OWNERS_SQL gives dream {dream_id or 1} to the user {owner.user_id}")
    elif dream_id is None:
        yield right("DREAM_OWNERS_SQL runs; there is no picture yet whose dream it could be tried with")
    else:
        said = f"DREAM_OWNERS_SQL runs, and finds no owner of dream {dream_id}, which has the newest picture"
        yield warning(said, "if that dream is there, correct the query")


# --- objects


def _bucket_checks(settings: Settings) -> Iterator[Check]:
    if settings.is_bucket_per_user:
        yield Check("bucket", lambda: [right(f"one for each user: {settings.s3_bucket}")], _STORE_ADVICE)
    else:
        yield Check("bucket", partial(_bucket, settings, settings.s3_bucket), _STORE_ADVICE)
    staging = settings.staging_bucket
    if staging != settings.s3_bucket:
        yield Check("staging bucket", partial(_bucket, settings, staging), _STORE_ADVICE)
    if settings.staging_dir is not None:
        yield Check("staging folder", partial(_staging_folder, Path(settings.staging_dir)), _FOLDER_ADVICE)


def _bucket(settings: Settings, bucket: str) -> Iterator[Finding]:
    storage = Storage(settings)
    try:
        storage.check_bucket(bucket)
    except BucketMissing as error:
        yield wrong(str(error), "create it, or correct DREAM_S3_BUCKET or DREAM_S3_STAGING_BUCKET")
        return
    except AccessDenied as error:
        # Without any, that is what it says.
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
        yield wrong(f"nothing can be written: {error}", "allow PutObject, and see that there is space")
        return
    is_read, failed = _read_back(storage, bucket, key), storage.delete(bucket, [key])
    if not is_read:
        yield wrong("an object that was written reads differently", _STORE_ADVICE)
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
    free_bytes = shutil.disk_usage(path).free
    if free_bytes < _LEAST_FREE_BYTES:
        yield warning(f"{size_text(free_bytes)} are free there", "uploads wait there: make room")


def _read_back(storage: Storage, bucket: str, key: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "object"
        storage.download(bucket, key, target)
        return target.read_bytes() == _PROBE


# --- clocks


def judge_clock(ahead_s: float, whose: str) -> Finding:
    """What to think of a clock that is that many seconds ahead of this machine's (negative: behind)."""
    off_s = abs(ahead_s)
    if off_s <= _SKEW_WARNING_S:
        return right(f"{whose} and this machine agree within {_SKEW_WARNING_S:g} s")
    said = f"{whose} is {off_s:.1f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine"
    return wrong(said, _CLOCK_ADVICE) if off_s > _SKEW_WRONG_S else warning(said, _CLOCK_ADVICE)


def _database_clock(settings: Settings) -> Iterator[Finding]:
    if settings.database_url.startswith("sqlite"):
        yield right("SQLite has this machine's")
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
    before = time.time()
    clock_s = redis_clock_s(settings.events_url)
    yield judge_clock(clock_s - (before + time.time()) / 2, "the clock of Redis")


# --- keys and addresses


def _tokens(settings: Settings) -> Iterator[Finding]:
    from dream.gateway.auth import missing_key_bytes

    algorithms = ", ".join(settings.jwt_algorithms)
    if missing := missing_key_bytes(settings):
        yield wrong(
            f"DREAM_JWT_SECRET is {missing} bytes too short for {algorithms}: it can be guessed",
            f"{_KEY_ADVICE}; tokens signed with the old one end with it",
        )
    else:
        yield right(f"DREAM_JWT_SECRET is set and long enough for {algorithms}")


def _addresses(settings: Settings) -> Iterator[Finding]:
    url = urlsplit(settings.gateway_url)
    advice = "set DREAM_GATEWAY_URL to where browsers reach the gateway: every picture's URL starts with it for ever"
    if settings.public_url:
        yield right(f"pictures are at {settings.public_url}, the gateway is at {settings.gateway_url}")
    elif url.hostname not in _LOOPBACK:
        said = f"pictures are at {settings.media_url}"
        is_plain = url.scheme == "http"
        yield warning(f"{said}, not encrypted", "use https://") if is_plain else right(said)
    elif settings.host not in _LOOPBACK:
        yield warning(f"DREAM_HOST={settings.host} is open to others, but {settings.gateway_url} is not", advice)
    elif url.port != settings.port and settings.port:
        yield warning(f"DREAM_GATEWAY_URL={settings.gateway_url}, but DREAM_PORT={settings.port}", advice)
    else:
        yield right(f"pictures are at {settings.media_url}, for browsers on this machine only")
