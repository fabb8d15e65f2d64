"""The clean-up of expired tokens on tables with millions of rows, and the waits of logins and requests meanwhile.

    python -m benchmarks.tokens [--rows 500000] [--expired 300000] [--simplejwt] [URL…]

A URL is as in `benchmarks.rows`. With `--simplejwt` the tables are those of Django simplejwt, made by its own
migrations; half of the expired tokens are blacklisted. docs/architecture.md has the figures of
`--rows 5000000 --expired 3000000`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from sqlalchemy import Connection, make_url

from benchmarks.tables import SERVER, Others, filling, numbers, own_database
from dream.db import Database
from dream.db.batches import in_batches
from dream.db.blacklist import Blacklist, blacklist_of
from dream.settings import Settings

_AT_ONCE = 500_000
_OWN = "dream_revoked_tokens"
_OUTSTANDING, _BLACKLISTED = "token_blacklist_outstandingtoken", "token_blacklist_blacklistedtoken"
_RANDOM = {"postgresql": "md5(random()::text || i)", "sqlite": "lower(hex(randomblob(16)))"}
#: SQL for a time within a month before or after now.
_WHEN = {
    "postgresql": "now() {sign} (1 + i * 7919 % 2592000) * interval '1 second'",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', 'now', '{sign}' || (1 + i * 7919 % 2592000) || ' seconds')",
}
#: As long as a token of simplejwt's.
_TOKEN = "a" * 260
_MIGRATE = """
import json, sys
import django
from django.conf import settings
from django.core.management import call_command
apps = ["django.contrib.contenttypes", "django.contrib.auth", "rest_framework_simplejwt.token_blacklist"]
settings.configure(INSTALLED_APPS=apps, DATABASES={"default": json.loads(sys.argv[1])}, USE_TZ=True)
django.setup()
call_command("migrate", verbosity=0)
"""


def _migrate_simplejwt(database: Database) -> None:
    url = database.engine.url
    site = {
        "ENGINE": f"django.db.backends.{'sqlite3' if url.get_backend_name() == 'sqlite' else 'postgresql'}",
        "NAME": url.database,
        "USER": url.username or "",
        "PASSWORD": url.password or "",
        "HOST": url.host or "",
        "PORT": str(url.port or ""),
    }
    subprocess.run([sys.executable, "-c", _MIGRATE, json.dumps(site)], check=True)


def _fill(database: Database, count: int, expired: int, *, of_simplejwt: bool) -> None:
    """Fill the tables. Expired and live tokens are mixed, as in a site that has run for long."""
    dialect = database.engine.dialect.name
    when = f"CASE WHEN i % 1000 < {1000 * expired // count} THEN {_WHEN[dialect]} ELSE {_WHEN[dialect]} END"
    when = when.replace("{sign}", "-", 1).replace("{sign}", "+", 1)
    random = _RANDOM[dialect]
    own = f"INSERT INTO {_OWN} (jti, expires_at) SELECT {random}, {when} FROM {{numbers}}"  # noqa: S608
    outstanding = f"""INSERT INTO {_OUTSTANDING} (jti, token, created_at, expires_at)
        SELECT {random}, '{_TOKEN}', {when}, {when} FROM {{numbers}}"""  # noqa: S608
    with filling(database, [_OUTSTANDING, _BLACKLISTED] if of_simplejwt else [_OWN]) as connection:
        _run(connection, dialect, outstanding if of_simplejwt else own, count)
        if of_simplejwt:
            now = "now()" if dialect == "postgresql" else "'2026-01-01 00:00:00'"
            half = f"""INSERT INTO {_BLACKLISTED} (token_id, blacklisted_at)
                SELECT id, {now} FROM {_OUTSTANDING} WHERE id % 2 = 0"""  # noqa: S608
            connection.exec_driver_sql(half.replace("%", "%%") if dialect == "postgresql" else half)
            connection.commit()


def _run(connection: Connection, dialect: str, statement: str, count: int) -> None:
    for start in range(1, count + 1, _AT_ONCE):
        filled = statement.format(numbers=numbers(dialect, start, min(count, start + _AT_ONCE - 1)))
        connection.exec_driver_sql(filled.replace("%", "%%") if dialect == "postgresql" else filled)
        connection.commit()


def _clean_up(database: Database, blacklist: Blacklist, count: int) -> None:
    def insert() -> None:
        with database.begin() as session:
            blacklist.revoke(session, uuid4().hex, datetime.now(UTC) + timedelta(days=1), 1)

    def look_up() -> None:
        with database.read() as session:
            blacklist.is_revoked(session, uuid4().hex)

    calls = {"insert": insert, "look-up": look_up}
    with Others(calls) as idle:
        time.sleep(10)
    print(f"  nothing else: {idle.told()}", flush=True)
    old = blacklist.expired()
    with Others(calls) as others:
        begun, deleted, longest_s = time.perf_counter(), 0, 0.0
        last = begun
        for hit in in_batches(database, old.delete):
            deleted += hit
            longest_s, last = max(longest_s, time.perf_counter() - last), time.perf_counter()
        took_s = time.perf_counter() - begun
    print(f"  {deleted} of {count} removed in {took_s:.1f} s, a batch in at most {longest_s * 1000:.0f} ms")
    print(f"  meanwhile: {others.told()}", flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tokens")
    parser.add_argument("urls", nargs="*", default=[SERVER], metavar="URL")
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--expired", type=int, default=300_000)
    parser.add_argument("--simplejwt", action="store_true", help="Django simplejwt's tables instead of dream's own")
    given = parser.parse_args()
    kind = "simplejwt" if given.simplejwt else "dream"
    for url in given.urls:
        print(f"{make_url(url).get_backend_name()}, {kind}", flush=True)
        with own_database(url) as database:
            if given.simplejwt:
                _migrate_simplejwt(database)
            _fill(database, given.rows, given.expired, of_simplejwt=given.simplejwt)
            _clean_up(database, blacklist_of(Settings(token_blacklist=kind)), given.rows)


if __name__ == "__main__":
    main()
