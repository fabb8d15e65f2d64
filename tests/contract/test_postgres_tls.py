"""PostgreSQL by TLS: the server's certificate is checked, and another one is refused."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from dream.db import Database, migrate
from dream.db.faults import explained
from dream.errors import DatabaseUnavailable
from dream.settings import Settings
from dream.stack.ports import choose
from tests.certificates import Certificates
from tests.conftest import wait_for
from tests.postgresql import as_nobody, programs


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Certificates]]:
    """A PostgreSQL that admits TLS only, as a URL without options, and its certificates."""
    binaries = programs()
    folder = Path(tempfile.mkdtemp(prefix="dream-tls-"))
    files, port = Certificates.made_in(folder), choose()
    as_other = as_nobody(folder)
    data = folder / "data"
    create = [binaries / "initdb", "-D", data, "-U", "dream", "-A", "trust", "--no-sync"]
    subprocess.run([*as_other, *map(str, create)], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 trust\n")
    options = {"port": port, "ssl": "on", "ssl_cert_file": files.server, "ssl_key_file": files.server_key}
    options |= {"unix_socket_directories": "", "listen_addresses": "127.0.0.1", "fsync": "off"}
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*as_other, str(binaries / "postgres"), "-D", str(data), *words], stderr=log, cwd=folder
        )
    try:
        wait_for(lambda: b"ready to accept" in (folder / "log").read_bytes(), what="PostgreSQL")
        yield f"postgresql://dream@127.0.0.1:{port}/postgres", files
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


def test_a_checked_connection_is_encrypted(server: tuple[str, Certificates]) -> None:
    url = f"{server[0]}?sslmode=verify-full&sslrootcert={server[1].ca}"
    migrate.upgrade(url)
    assert migrate.current(url) == migrate.head()
    database = Database(Settings(database_url=url))
    with database.read() as session:
        assert session.scalar(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")) is True
    database.dispose()


@pytest.mark.parametrize(
    ("host", "authority", "told"),
    [("127.0.0.1", "other", "certificate verify failed"), ("localhost", "ca", "does not match host name")],
    ids=["another authority", "another name"],
)
def test_a_wrong_certificate_is_refused(server: tuple[str, Certificates], host: str, authority: str, told: str) -> None:
    url = server[0].replace("127.0.0.1", host)
    url = f"{url}?sslmode=verify-full&sslrootcert={getattr(server[1], authority)}"
    database = Database(Settings(database_url=url))
    with pytest.raises(DatabaseUnavailable, match=told), explained(), database.read() as session:
        session.scalar(text("SELECT 1"))
    database.dispose()
