"""Clients behind real sentinels: they find the master, and the next one after it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError

from dream.work.redis_client import RedisScript, connect, connect_async, master_of
from tests.conftest import wait_for
from tests.sentinels import PASSWORD, SERVICE, Sentinels, running


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    with running(tmp_path_factory.mktemp("sentinels")) as servers:
        yield servers


def test_every_kind_of_client_goes_on_with_the_next_master(sentinels: Sentinels, tmp_path: Path) -> None:
    """Commands, a script's kept connection and an event loop, through an ordered failover.

    The old master still takes commands then, and forgets them soon: nobody may stay there.
    """
    (tmp_path / "add.lua").write_text("return redis.call('INCR', KEYS[1])")

    async def use() -> None:
        on_loop = connect_async(sentinels.url, max_connections=2, timeout_s=5)
        await asyncio.gather(*(on_loop.incr("loop") for _ in range(20)))
        await asyncio.to_thread(sentinels.switch)
        while master_of(on_loop) != ("127.0.0.1", sentinels.master_port()):
            await on_loop.ping()
        assert int(await on_loop.incr("loop")) == 21
        await on_loop.aclose()

    with closing(connect(sentinels.url)) as client, closing(connect(sentinels.url, repeats=False)) as for_script:
        script = RedisScript(for_script, tmp_path / "add.lua")
        assert (client.incr("commands"), script(["scripts"], [])) == (1, 1)
        before = master_of(client)
        asyncio.run(use())
        assert script(["scripts"], []) == 2
        assert _kept_by(sentinels, "scripts") == b"2"
        wait_for(lambda: client.ping() and master_of(client) != before, 5, what="the next master")
        assert client.incr("commands") == 2


def _kept_by(sentinels: Sentinels, key: str) -> Any:
    """The value in the present master."""
    with closing(connect(f"redis://:{PASSWORD}@127.0.0.1:{sentinels.master_port()}/0")) as client:
        return client.get(key)


def test_a_sentinel_that_is_gone_is_passed_over(sentinels: Sentinels) -> None:
    gone = sentinels.sentinel_ports[0]
    sentinels.kill(gone)
    try:
        with closing(connect(sentinels.url)) as client:
            assert client.ping()
    finally:
        sentinels.start_sentinel(gone)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ((f"/{SERVICE}/", "/nobody/"), f"the sentinels watch no service 'nobody', but {SERVICE}"),
        (("sentinel_password=", "sentinel_password=x"), "no sentinel answers of 127.0.0.1:"),
        ((f":{PASSWORD}@", ":wrong@"), "invalid username-password pair"),
    ],
    ids=["service", "password of the sentinels", "password of Redis"],
)
def test_a_wrong_part_of_the_url_is_named(sentinels: Sentinels, change: tuple[str, str], told: str) -> None:
    with closing(connect(sentinels.url.replace(*change))) as client, pytest.raises(RedisError, match=told):
        client.ping()


def test_no_sentinel_is_an_outage_with_their_addresses() -> None:
    url = "sentinel://127.0.0.1:1,127.0.0.1:2/pictures/0"
    with closing(connect(url)) as client, pytest.raises(RedisError, match=r"no sentinel answers of 127.0.0.1:1, 127"):
        client.ping()
