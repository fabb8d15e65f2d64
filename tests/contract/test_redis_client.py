"""Lua scripts on a real server, as each task calls them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from redis.exceptions import ConnectionError as RedisIsAway

from dream.work.redis_client import RedisScript, connect

ECHO = "return ARGV[1]"
FORKING = """
import os, sys
from pathlib import Path
from dream.work.redis_client import connect
from dream.work.redis_client import RedisScript

script = RedisScript(connect(sys.argv[1], repeats=False), Path(sys.argv[2]))
script([], ["before"])
child = os.fork()
for number in range(500):
    word = f"{bool(child)}-{number}".encode()
    assert script([], [word]) == word
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


class Named:
    """The connections of one name, which the name's URL makes."""

    def __init__(self, url: str) -> None:
        self.name = uuid4().hex
        self.url = f"{url}?client_name={self.name}"
        self.client = redis.Redis.from_url(url)

    def ids(self) -> list[str]:
        clients: Any = self.client.client_list()
        return [each["id"] for each in clients if each["name"] == self.name]


@pytest.fixture
def named(local_redis_url: str) -> Iterator[Named]:
    named = Named(local_redis_url)
    yield named
    named.client.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "echo.lua").write_text(ECHO)
    return tmp_path / "echo.lua"


@pytest.fixture
def script(named: Named, path: Path) -> Iterator[RedisScript]:
    client = connect(named.url, repeats=False)
    yield RedisScript(client, path)
    client.close()


def test_a_connection_is_used_again(named: Named, script: RedisScript) -> None:
    assert [script([], [word]) for word in ("one", "two")] == [b"one", b"two"]
    assert len(named.ids()) == 1


def test_a_server_that_has_forgotten_the_script_learns_it_again(named: Named, script: RedisScript) -> None:
    assert script([], ["one"]) == b"one"
    named.client.script_flush()
    assert script([], ["two"]) == b"two"


def test_a_lost_connection_is_an_error_once(named: Named, script: RedisScript) -> None:
    """It is not sent again by itself: whoever calls knows whether it may be."""
    script([], ["one"])
    named.client.client_kill_filter(_id=named.ids()[0])
    with pytest.raises(RedisIsAway):
        script([], ["two"])
    assert script([], ["three"]) == b"three"


def test_a_forked_process_has_a_connection_of_its_own(named: Named, path: Path) -> None:
    """Two processes on one connection would read each other's answers."""
    command = [sys.executable, "-c", FORKING, named.url, path]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
