"""`dream up` on servers of the caller's: they are used, and nothing of theirs is embedded."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import jwt
import pytest
from sqlalchemy import text

from dream.db.session import make_engine
from tests.commands import command, dream
from tests.pictures import noise

pytestmark = pytest.mark.slow

SECRET = "a secret of the caller's, 32 bytes or more"
OWNERS_SQL = "SELECT owner, 'ann' FROM albums WHERE id = :dream_id"


@contextmanager
def up(data: Path, environment: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """A `dream up`: the gateway's URL, and what it has said on standard error."""
    errors = data.with_name("errors")
    with (
        errors.open("wb") as file,
        subprocess.Popen(
            command("up", "--port", 0, "--data", data),
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("ready "), errors.read_text()
            yield line.removeprefix("ready ").strip(), errors
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()


def exported(printed: str) -> dict[str, str]:
    """The output of `dream env`, as a shell reads it."""
    shell = subprocess.run(
        ["sh", "-c", f"{printed}\nenv -0"], env={}, capture_output=True, text=True, check=True, timeout=20
    )
    pairs = (line.partition("=") for line in shell.stdout.split("\0"))
    return {name: value for name, _, value in pairs if name.startswith("DREAM_")}


@pytest.fixture
def albums(postgres_server_url: str) -> Iterator[str]:
    """The caller's database, without a table of ours, with one that knows the owners."""
    from tests.conftest import created_database

    with created_database(postgres_server_url, f"dream_albums_{os.getpid()}") as url:
        engine = make_engine(url)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE albums (id bigint PRIMARY KEY, owner bigint)"))
            connection.execute(text("INSERT INTO albums VALUES (7, 3)"))
        engine.dispose()
        yield url


def test_servers_that_the_environment_names_are_used(environment: dict[str, str], albums: str, tmp_path: Path) -> None:
    """All of them the caller's: an upload by way of `dream env` is in his database, and its owner sees it."""
    own = {name: value for name, value in environment.items() if name not in ("DREAM_PORT", "DREAM_GATEWAY_URL")}
    own |= {
        "DREAM_DATABASE_URL": albums,
        "DREAM_DATABASE_SCHEMA": "pictures",
        "DREAM_OWNERS_SQL": OWNERS_SQL,
        "DREAM_JWT_SECRET": SECRET,
    }
    data = tmp_path / "data"
    with up(data, own) as (url, errors):
        assert not (data / "logs" / "valkey.log").exists()
        assert not (data / "logs" / "weed.log").exists()
        said = errors.read_text()
        assert "embedded: nothing" in said
        assert "DREAM_DATABASE_URL=postgresql://" in said
        assert environment["DREAM_S3_SECRET_KEY"] not in said

        pointed = exported(dream({}, "env", "--data", data).stdout)
        for name in ("DREAM_DATABASE_URL", "DREAM_DATABASE_SCHEMA", "DREAM_OWNERS_SQL", "DREAM_S3_BUCKET"):
            assert pointed[name] == own[name]
        assert pointed["DREAM_GATEWAY_URL"] == url

        (tmp_path / "a.jpg").write_bytes(noise())
        uploaded = dream(pointed, "upload", tmp_path / "a.jpg", "--dream-id", 7, "--wait")
        assert uploaded.returncode == 0, uploaded.stderr
        token = jwt.encode({"user_id": 3, "exp": time.time() + 60}, SECRET, "HS256")
        listed = httpx.get(
            f"{url}/api/dreams/7/images", headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=20
        )
        assert [image["state"] for image in listed.json()] == ["completed"]
    engine = make_engine(albums)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM pictures.dream_images")) == 1
    engine.dispose()


def test_what_the_environment_does_not_name_is_embedded(albums: str, tmp_path: Path) -> None:
    """Only the database is the caller's; a second start is in a shell that `dream env` has pointed at the first."""
    data = tmp_path / "data"
    own = {"DREAM_DATABASE_URL": albums, "DREAM_OWNERS_SQL": OWNERS_SQL}
    with up(data, own) as (_, errors):
        assert "embedded: Valkey, SeaweedFS; yours: DREAM_DATABASE_URL=" in errors.read_text()
        pointed = exported(dream({}, "env", "--data", data).stdout)
        doctor = dream(pointed, "doctor")
        assert "DREAM_OWNERS_SQL runs" in doctor.stdout
    del pointed["DREAM_PORT"]
    with up(data, pointed) as (url, errors):
        assert "embedded: Valkey, SeaweedFS; yours: DREAM_DATABASE_URL=" in errors.read_text()
        assert httpx.get(f"{url}/readyz", trust_env=False, timeout=20).status_code == 200


@pytest.mark.parametrize(
    ("own", "said"),
    [
        pytest.param(
            {"DREAM_BROKER_URL": "redis://:hunter2@127.0.0.1:9/0"},
            "dream: DREAM_BROKER_URL=redis://***@127.0.0.1:9/0: nothing listens at this address",
            marks=pytest.mark.slow,  # `dream up` waits 20 s for a broker that starts beside it
        ),
        (
            {"DREAM_DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:9/d"},
            "dream: DREAM_DATABASE_URL: nothing listens at this address",
        ),
        ({"DREAM_S3_ACCESS_KEY": "hunter2"}, "DREAM_S3_SECRET_KEY is not"),
    ],
)
def test_an_own_server_that_is_away_is_told_in_a_line(own: dict[str, str], said: str, tmp_path: Path) -> None:
    ended = dream(own, "up", "--port", 0, "--data", tmp_path / "data", timeout_s=110)
    assert ended.returncode != 0
    assert ended.stdout == ""
    assert said in ended.stderr.splitlines()[-1]
    assert "hunter2" not in ended.stderr
    assert "Traceback" not in ended.stderr
