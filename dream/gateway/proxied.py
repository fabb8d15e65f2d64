"""Pass a picture on from the object store to a client (`DREAM_MEDIA_MODE=proxy`).

A client that has the picture gets 304 from the row alone. A whole picture comes from `memory`, if it can be kept there.
Else the store's answer is passed on piece by piece: whole, or one range of it. An error of the store becomes an error
of the gateway while nothing has been sent; after that the connection is cut, so that nobody takes a part for the whole.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC
from email.utils import format_datetime, parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dream.errors import AccessDenied, ObjectStoreUnavailable
from dream.gateway.faults import RETRY_AFTER_S, log_fault
from dream.gateway.objects import Objects, StoreSilent
from dream.gateway.refusals import Code, Refused
from dream.observe.metrics import MEDIA_READS
from dream.observe.watching import count_store_answer

if TYPE_CHECKING:
    from starlette.datastructures import Headers

    from dream.gateway.catalogue import Shown
    from dream.gateway.memory import CopyAnswer, Memory
    from dream.gateway.objects import StoreAnswer
    from dream.storage.signing import SignedUrl

__all__ = ["Proxied", "has_it", "not_modified"]

#: One range; several are answered with the whole picture, which RFC 9110 allows.
_RANGE = re.compile(r"bytes=(?:[0-9]{1,15}-[0-9]{0,15}|-[0-9]{1,15})", re.ASCII)
_TAGS = re.compile(r'(?:W/)?("[^"]*")')
#: Headers of the store's answer that the client sees.
_PASSED_ON = ("content-length", "content-range", "last-modified")


def has_it(headers: Headers, tag: str) -> bool:
    """Whether the client has the object with this entity tag (`If-None-Match`)."""
    asked = ", ".join(headers.getlist("if-none-match"))
    return asked.strip() == "*" or tag in _TAGS.findall(asked)


def not_modified(headers: Mapping[str, str]) -> Response:
    """304: the client shows the picture that it has."""
    return Response(status_code=304, headers=headers)


class Proxied:
    """A picture that is passed on; an ASGI application for one request.

    Parameters:
      objects: the client of the object store.
      memory: pictures that were read before.
      shown: the picture.
      headers: those of the answer, without the ones that describe the bytes.
      sign: gives a presigned URL for the method of the request.
      is_gone: called if the store does not have the object.
    """

    def __init__(
        self,
        objects: Objects,
        memory: Memory,
        shown: Shown,
        headers: Mapping[str, str],
        sign: Callable[[], Awaitable[SignedUrl]],
        is_gone: Callable[[], None],
    ) -> None:
        self._objects = objects
        self._memory = memory
        self._shown = shown
        self._headers = headers
        self._sign = sign
        self._is_gone = is_gone
        self._is_started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the picture. When the client goes, the connection to the store ends too."""
        wishes = self._wishes(scope)
        is_whole = scope["method"] == "GET" and not wishes
        if is_whole and (kept := self._memory.whole(self._shown)):
            await self._pass_on(kept, scope, send)
            return
        watch = asyncio.create_task(_until_gone(receive))
        try:
            async with asyncio.timeout(None) as patience:

                def leave(done: asyncio.Task[None]) -> None:
                    if not done.cancelled():
                        with suppress(RuntimeError):  # everything was sent in the same moment
                            patience.reschedule(0)

                watch.add_done_callback(leave)
                await self._pass_on(await self._read(scope["method"], wishes, is_whole), scope, send)
        except TimeoutError:
            if not self._is_started:
                raise ClientDisconnect from None
        finally:
            watch.cancel()

    async def _pass_on(self, answer: StoreAnswer | CopyAnswer, scope: Scope, send: Send) -> None:
        try:
            self._check(answer)
            piece = await answer.piece()  # before the head, so that an error can still be answered
            await send({"type": "http.response.start", "status": answer.status, "headers": self._head(answer)})
            self._is_started = True
            while not answer.is_read:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                piece = await answer.piece()
            await send({"type": "http.response.body", "body": piece})
        except ObjectStoreUnavailable as error:
            if not self._is_started:
                raise _told(error) from error
            log_fault("picture_cut_off", error, path=scope["path"])
        finally:
            answer.close()

    def _wishes(self, scope: Scope) -> dict[str, str]:
        """The headers of the request that the store should see."""
        given = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        headers = {}
        asked = given.get("range", "")
        # A date in If-Range cannot be compared with the row, and another tag means another object.
        is_of_this = given.get("if-range", self._shown.tag) == self._shown.tag
        if scope["method"] == "GET" and is_of_this and _RANGE.fullmatch(asked):
            headers["range"] = asked
        said = given.get("if-modified-since")
        if said and "if-none-match" not in given and (since := _date(said)):
            headers["if-modified-since"] = since
        return headers

    async def _read(self, method: str, wishes: Mapping[str, str], is_whole: bool) -> StoreAnswer | CopyAnswer:
        async def ask() -> StoreAnswer:
            MEDIA_READS.add("store")
            url, operation, began = (await self._sign()).url, f"{method.title()}Object", time.perf_counter()
            try:
                answer = await self._objects.get(url, method, wishes)
            except ObjectStoreUnavailable:
                count_store_answer(operation, began, None)
                raise
            count_store_answer(operation, began, answer.status)
            return answer

        try:
            return (is_whole and await self._memory.read(self._shown, ask)) or await ask()
        except ObjectStoreUnavailable as error:
            raise _told(error) from error

    def _check(self, answer: StoreAnswer | CopyAnswer) -> None:
        """Raise the error for the client if the store answered with one; its sentence has no word of the store's."""
        if answer.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT, HTTPStatus.NOT_MODIFIED):
            return
        if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            size = {"Content-Range": answer.headers["content-range"]} if "content-range" in answer.headers else {}
            raise Refused(Code.RANGE_NOT_THERE, "the picture has no such range of bytes", size)
        if answer.status == HTTPStatus.NOT_FOUND:
            self._is_gone()
            raise Refused(Code.IMAGE_NOT_FOUND, "there is no such picture")
        if answer.status == HTTPStatus.FORBIDDEN:
            raise AccessDenied("could not read an object: the object store refused our credentials")
        raise ObjectStoreUnavailable(f"could not read an object: the object store answered {answer.status}")

    def _head(self, answer: StoreAnswer | CopyAnswer) -> list[tuple[bytes, bytes]]:
        about = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
        if answer.status == HTTPStatus.NOT_MODIFIED:
            about.pop("content-length", None)
        else:
            found = self._shown.content_type or answer.headers.get("content-type")
            about |= {"content-type": found or "application/octet-stream", "accept-ranges": "bytes"}
        return [(name.lower().encode(), value.encode("latin-1")) for name, value in {**self._headers, **about}.items()]


def _date(value: str) -> str | None:
    """A date of HTTP in its usual form; None if the value is none, which a server ignores (RFC 9110, 13.1.3)."""
    try:
        return format_datetime(parsedate_to_datetime(value).astimezone(UTC), usegmt=True)
    except (OverflowError, TypeError, ValueError):
        return None


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _told(error: ObjectStoreUnavailable) -> Exception:
    """The error for a client: 504 if the store is silent, else the error of the store, which becomes 503."""
    if not isinstance(error, StoreSilent):
        return error
    log_fault("server_fault", error)
    retry = {"Retry-After": str(RETRY_AFTER_S)}
    return Refused(Code.STORE_TOO_SLOW, "the object store does not answer; try again later", retry)
