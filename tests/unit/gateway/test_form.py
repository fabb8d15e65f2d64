"""Positions as forms write them, and the policy that the page is served with."""

from __future__ import annotations

import asyncio
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import pytest
from starlette import formparsers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from dream.errors import InvalidArguments
from dream.gateway.form import parse_focus, parse_positions, read_upload
from dream.gateway.headers import content_security_policy
from dream.settings import Settings


def sent(pieces: Iterator[bytes], content_type: str) -> Request:
    async def receive() -> Message:
        piece = next(pieces, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    return Request({"type": "http", "headers": [(b"content-type", content_type.encode())]}, receive)


def part(name: bytes, data: bytes) -> bytes:
    return b"--b\r\nContent-Disposition: form-data; name=" + name + b"\r\n\r\n" + data + b"\r\n"


def test_many_small_files_of_one_form_are_on_disk() -> None:
    """Each fits into Starlette's own buffer of 1 MiB, and a form has up to a hundred of them."""
    count, size = 60, 200_000

    async def held_bytes() -> int:
        pieces = (part(b"files; filename=a.jpg", b"x" * size) for _ in range(count))
        before, _ = tracemalloc.get_traced_memory()
        ended = (piece for pieces_of in (pieces, [b"--b--\r\n"]) for piece in pieces_of)
        async with read_upload(sent(ended, "multipart/form-data; boundary=b"), Settings()) as form:
            assert len(form.files) == count
            return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        assert asyncio.run(held_bytes()) < 2_000_000
    finally:
        tracemalloc.stop()


def test_text_fields_together_are_small() -> None:
    """A form may have a thousand of them, and they stay in memory."""

    async def read() -> None:
        body = iter([*(part(b"more", b"x" * 60_000) for _ in range(5)), b"--b--\r\n"])
        async with read_upload(sent(body, "multipart/form-data; boundary=b"), Settings()):
            pass

    with pytest.raises(HTTPException, match="text fields have more than 256 KiB") as error:
        asyncio.run(read())
    assert error.value.status_code == 400


def test_a_gateway_without_room_on_its_disk_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder that is not there stands for a full one: the first write to the disk fails."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))

    async def read() -> None:
        body = iter([part(b"files; filename=a.jpg", b"x" * 100_000), b"--b--\r\n"])
        async with read_upload(sent(body, "multipart/form-data; boundary=b"), Settings()):
            pass

    with pytest.raises(HTTPException, match="no room") as error:
        asyncio.run(read())
    assert (error.value.status_code, error.value.headers) == (503, {"Retry-After": "5"})


@pytest.mark.parametrize(
    ("charset", "is_accepted"),
    [
        *((each, True) for each in ("UTF-8", "utf8", "US-ASCII", "iso-8859-1")),
        *((each, False) for each in ("punycode", "idna", "unicode_escape", "undefined", "hex", "nonsense")),
    ],
)
def test_a_form_is_in_a_charset_whose_time_is_linear(charset: str, *, is_accepted: bool) -> None:
    """A field of 64 KiB in punycode would hold the event loop for a quarter of a second, and a form has a thousand."""

    async def read() -> int:
        body = iter([part(b"positions", b"4"), part(b"files; filename=a.jpg", b"x"), b"--b--\r\n"])
        async with read_upload(sent(body, f"multipart/form-data; boundary=b; charset={charset}"), Settings()) as form:
            return form.positions[0]

    if is_accepted:
        assert asyncio.run(read()) == 4
    else:
        with pytest.raises(HTTPException, match="charset") as error:
            asyncio.run(read())
        assert error.value.status_code == 400


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], None),
        ([""], None),
        (["[]"], None),
        (["7"], [7]),
        (["1", "2"], [1, 2]),
        (["1, 2"], [1, 2]),
        (["[1,2]"], [1, 2]),
    ],
)
def test_positions_are_read_in_every_form(texts: list[str], expected: list[int] | None) -> None:
    """Repeated fields, commas and a JSON list mean the same; none means none."""
    assert parse_positions(texts) == expected


@pytest.mark.parametrize("text", ["x", "1.5", "[1.5]", "[true]", "[[1]]", "[1", "1;2", "[" * 5000])
def test_a_position_that_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(HTTPException) as error:
        parse_positions([text])
    assert error.value.status_code == 400


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], [None, None]),
        (["[]"], [None, None]),
        (["0.5,0.25", "1, 0"], [[0.5, 0.25], [1, 0]]),
        (["0.5,0.25", ""], [[0.5, 0.25], None]),
        (["null", "[0.5, 0.25]"], [None, [0.5, 0.25]]),
        (["[[0.5, 0.25], null]"], [[0.5, 0.25], None]),
    ],
)
def test_focal_points_are_read_in_every_form(texts: list[str], expected: list[list[float] | None]) -> None:
    """Repeated fields and a JSON list mean the same; empty and null mean none."""
    assert parse_focus(texts, ["a.jpg", "b.jpg"]) == expected


@pytest.mark.parametrize("text", ["0.5,0.25", "[0.5, 0.25]", "[[0.5, 0.25]]"])
def test_one_file_may_have_its_focal_point_alone(text: str) -> None:
    assert parse_focus([text], ["a.jpg"]) == [[0.5, 0.25]]


@pytest.mark.parametrize("text", ["x", "0.5;0.5", "[0.5", "[" * 5000, "nullify", "[1e", "[" + "9" * 5000 + ",0]"])
def test_a_focal_point_that_is_no_point_is_refused(text: str) -> None:
    with pytest.raises(HTTPException) as error:
        parse_focus([text], ["a.jpg"])
    assert error.value.status_code == 400


@pytest.mark.parametrize(
    "text", ["0.5", "1,2", "nan,0", "0,inf", "[1e999, 0]", "[true, 0]", "[NaN, 0]", '["0", 0]', "[{}]"]
)
def test_a_focal_point_outside_the_picture_names_its_file(text: str) -> None:
    with pytest.raises(InvalidArguments, match=r"a\.jpg: focus must be"):
        parse_focus([text], ["a.jpg"])


@pytest.mark.parametrize("texts", [["0.5,0.5"], ["[0.5, 0.5]"], ["[null]"], ["0,0", "0,0", "0,0"]])
def test_each_file_needs_a_focal_point_or_null(texts: list[str]) -> None:
    with pytest.raises(HTTPException, match=r"2 files but \d focal points?: each file needs one, or null"):
        parse_focus(texts, ["a.jpg", "b.jpg"])


def test_pictures_may_come_from_where_they_lie_and_nowhere_else() -> None:
    """The policy names the gateway, the store (path and virtual-host style) and the CDN."""
    settings = Settings(
        s3_endpoint_url="https://oss.example.com",
        public_url="https://cdn.example.org/x",
        gateway_url="https://d.example.net",
    )
    images = next(part for part in content_security_policy(settings).split("; ") if part.startswith("img-src"))
    assert images.split() == [
        *("img-src", "'self'", "blob:", "data:", "https://*.oss.example.com"),
        *("https://cdn.example.org", "https://d.example.net", "https://oss.example.com"),
    ]


def test_pictures_through_nginx_come_from_the_gateways_origin_alone() -> None:
    settings = Settings(
        s3_endpoint_url="https://oss.example.com", gateway_url="https://d.example.net", media_mode="accel"
    )
    assert "oss.example.com" not in content_security_policy(settings)
    assert "https://d.example.net" in content_security_policy(settings)


def test_a_form_whose_client_goes_leaves_no_open_file(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[SpooledTemporaryFile[bytes]] = []

    def noted(*arguments: Any, **options: Any) -> SpooledTemporaryFile[bytes]:
        opened.append(SpooledTemporaryFile(*arguments, **options))  # noqa: SIM115 (the parser closes it)
        return opened[-1]

    monkeypatch.setattr(formparsers, "SpooledTemporaryFile", noted)

    async def read() -> None:
        begun = part(b"files; filename=a.jpg", b"x")
        messages: list[Message] = [{"type": "http.request", "body": begun, "more_body": True}]

        async def receive() -> Message:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        request = Request({"type": "http", "headers": [(b"content-type", b"multipart/form-data; boundary=b")]}, receive)
        async with read_upload(request, Settings()):
            pass

    with pytest.raises(ClientDisconnect):
        asyncio.run(read())
    assert [file.closed for file in opened] == [True]
