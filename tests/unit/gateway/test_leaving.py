"""Answers in portions: they end when the client leaves, and break off when a server behind the gateway fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator

from starlette.types import Message

from dream.errors import DatabaseUnavailable, ObjectStoreUnavailable
from dream.gateway.listing import _Whole
from dream.gateway.originals import _Streamed

SCOPE = {"type": "http", "path": "/"}


async def leave() -> Message:
    return {"type": "http.disconnect"}


async def stay() -> Message:
    return await asyncio.Future()


def test_a_list_is_read_no_further_after_its_client_has_left() -> None:
    """The server drops what is sent to nobody, so nothing else would end the queries."""

    async def endless() -> AsyncIterator[str]:
        while True:
            yield "["
            await asyncio.sleep(0)

    async def send(_message: Message) -> None: ...

    asyncio.run(asyncio.wait_for(_Whole(endless())(SCOPE, leave, send), 10))


def test_a_list_breaks_off_without_the_database() -> None:
    async def texts() -> AsyncIterator[str]:
        yield "["
        raise DatabaseUnavailable("the database did not answer")

    assert sent_by(_Whole(texts())) == [b"["]


def test_an_original_breaks_off_without_the_store() -> None:
    def portions() -> Generator[bytes]:
        yield b"half"
        raise ObjectStoreUnavailable("could not read an object: the object store broke off")

    assert sent_by(_Streamed(portions())) == [b"half"]


def sent_by(answer: _Whole | _Streamed) -> list[bytes]:
    """The body as far as it came; an answer that raised would be a traceback in the log."""
    came: list[bytes] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            assert message["more_body"]
            came.append(message["body"])

    asyncio.run(asyncio.wait_for(answer(SCOPE, stay, send), 10))
    return came
