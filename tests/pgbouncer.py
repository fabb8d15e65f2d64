"""A PgBouncer of a test's own, in transaction mode, before the PostgreSQL of the tests."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from dream.stack.ports import choose
from tests.conftest import wait_for
from tests.postgresql import as_nobody

__all__ = ["POOL_SIZE", "binary", "running", "through"]

#: Connections to a database of the server; clients may be many more.
POOL_SIZE = 3
_DEBIANS = "/usr/sbin"


def binary() -> str | None:
    """The program, if it is installed. Debian has it where not every user looks."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path=_DEBIANS)


@contextmanager
def running(server_url: str, *options: str) -> Iterator[int]:
    """Start it before a server; yields its port.

    Parameters:
      options: more lines of its configuration.
    """
    url = make_url(server_url)
    port = choose()
    program, folder = binary(), Path(tempfile.mkdtemp(prefix="dream-pgbouncer-"))
    assert program is not None
    password = f" password={url.password}" if url.password else ""
    (folder / "users.txt").write_text(f'"{url.username}" "{url.password or ""}"\n')
    config = folder / "pgbouncer.ini"
    config.write_text(
        "\n".join(
            [
                "[databases]",
                f"* = host={url.host} port={url.port or 5432} user={url.username}{password}",
                "[pgbouncer]",
                f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =",
                f"auth_type = trust\nauth_file = {folder}/users.txt",
                f"pool_mode = transaction\ndefault_pool_size = {POOL_SIZE}\nmax_client_conn = 200",
                *options,
            ]
        )
    )
    as_other = as_nobody(folder)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*as_other, program, str(config)], stderr=log)
    try:
        wait_for(lambda: process.poll() is not None or _answers(port, url.username or ""), what="PgBouncer")
        assert process.poll() is None, (folder / "log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


def through(port: int, database_url: str) -> str:
    """The URL of a database by way of a PgBouncer."""
    return make_url(database_url).set(host="127.0.0.1", port=port).render_as_string(hide_password=False)


def _answers(port: int, user: str) -> bool:
    try:
        psycopg.connect(host="127.0.0.1", port=port, user=user, dbname="postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
