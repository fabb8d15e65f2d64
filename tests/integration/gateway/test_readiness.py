"""`/readyz` while servers are away: it holds up nobody, and one answer serves all who ask."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from sqlalchemy import create_engine, text

from dream.db import migrate
from dream.settings import Settings
from tests.conftest import wait_for
from tests.gateway import DREAM, Gateway, auth
from tests.valkey import Valkey


@pytest.fixture
def silent_store() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.slow
def test_hundreds_who_ask_while_the_store_is_silent_hold_up_nobody(
    start: Callable[..., Gateway], silent_store: str
) -> None:
    """Requests of others are as quick as before, and the store is asked once."""
    with start(s3_endpoint_url=silent_store, max_requests_per_user_s="0") as gateway, ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(gateway.http.get, "/readyz") for _ in range(400)]
        wait_for(lambda: any(each.running() for each in asked), what="the first of them")
        while not all(each.done() for each in asked):
            began = time.monotonic()
            assert gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).status_code == 200
            assert gateway.http.get("/healthz").status_code == 200
            assert time.monotonic() - began < 3
        answers = [each.result() for each in asked]
        assert {answer.status_code for answer in answers} == {503}
        assert {answer.json()["bucket"] for answer in answers} == {"no answer in time"}
        assert {answer.json()["database"] for answer in answers} == {"ok"}


@pytest.mark.slow
def test_ready_means_the_tables_of_this_release(
    environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """503 before the first migration and before that of this release; a newer release's tables do."""
    other = {"DREAM_DATABASE_URL": f"sqlite:///{tmp_path}/other.db"}

    def set_revision(value: str) -> None:
        engine = create_engine(other["DREAM_DATABASE_URL"])
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE {migrate.VERSION_TABLE} SET version_num = '{value}'"))  # noqa: S608
        engine.dispose()

    with Gateway({**environment, **other}, settings, tmp_path) as gateway:

        def said() -> str:
            return str(gateway.http.get("/readyz").json()["database"])

        answer = gateway.http.get("/readyz")
        assert answer.status_code == 503
        assert "run `dream migrate`" in answer.json()["database"]
        migrate.upgrade(other["DREAM_DATABASE_URL"])
        wait_for(lambda: said() == "ok", what="being ready")
        set_revision("0004")
        wait_for(lambda: "dream migrate" in said(), what="that the tables are old")
        set_revision("9999")
        wait_for(lambda: said() == "ok", what="being ready")


def test_who_asks_again_within_a_second_gets_the_same_answer(start: Callable[..., Gateway], tmp_path: Path) -> None:
    """Two hundred calls in a row ask Redis once a second, not two hundred times."""
    valkey = Valkey(tmp_path)
    try:
        valkey.start()
        with start(redis_url=valkey.url) as gateway, redis.Redis.from_url(valkey.url) as client:

            def pings() -> int:
                return int(client.info("commandstats").get("cmdstat_ping", {}).get("calls", 0))

            before, began = pings(), time.monotonic()
            assert {gateway.http.get("/readyz").status_code for _ in range(200)} == {200}
            # Its other connections ask too, now and then.
            assert 1 <= pings() - before <= 2 * (time.monotonic() - began) + 4
    finally:
        valkey.kill()
