"""The client of the object store in the gateway: connections that it keeps."""

from __future__ import annotations

import asyncio
import gc
import ssl

from dream.gateway.objects import Objects
from dream.settings import Settings


def test_a_connection_that_the_store_has_ended_is_kept_no_longer() -> None:
    """With a bucket for each user a store has a host for each, and most are asked once."""

    async def ask() -> None:
        is_over = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
            await is_over.wait()
            writer.close()

        objects = Objects(Settings(), ssl.create_default_context)
        servers = [await asyncio.start_server(serve, "127.0.0.1", 0) for _ in range(3)]
        before = connections()
        for server in servers:
            port = server.sockets[0].getsockname()[1]
            answer = await objects.get(f"http://127.0.0.1:{port}/x?y", "GET", {})
            assert await answer.piece() == b"x"
            assert await answer.piece() == b""
        assert connections() == before + 3
        is_over.set()
        async with asyncio.timeout(10):
            while connections() > before:
                await asyncio.sleep(0.01)
        for server in servers:
            server.close()

    asyncio.run(ask())


def connections() -> int:
    gc.collect()
    return sum(type(each).__name__ == "_Connection" for each in gc.get_objects())
