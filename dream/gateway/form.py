"""Read a multipart upload within limits, with its files on disk.

Starlette's parser spools each file to disk, but it limits neither a file nor the request. This one limits both while it
reads. It skips a file that is too large and accepts the others. It refuses a request that is too large or has too many
files.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from dream.gateway.faults import RETRY_AFTER_S, log_fault
from dream.gateway.refusals import Code, Refused
from dream.messages.arguments import ImageFile, check_focus, check_positions, refusal_of
from dream.messages.receipts import RefusedFile, refused_file
from dream.work.text import counted, size_text

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["Upload", "parse_focus", "parse_positions", "read_upload", "too_many_files"]

#: Room for all text fields, such as positions, and for the headers around each file.
_OVERHEAD_BYTES = 256 * 1024
#: Python's names of the charsets of forms. The time of some others grows with the square of a text: punycode, idna.
_CHARSETS = frozenset({"utf-8", "ascii", "iso8859-1"})
#: A client that sends nothing for this time counts as gone.
_SILENCE_S = 30.0
#: A refused body is read on within these limits, because some clients read the answer only after they have sent all.
_DRAIN_BYTES = 64 * 2**20
_DRAIN_S = 5.0


class SpooledFile(Mapping[str, Any]):
    """An `ImageFile` with bytes on disk; they are read on access.

    Parameters:
      focus: the focal point that came with it.
    """

    def __init__(self, file: UploadFile, focus: list[float] | None) -> None:
        self._file = file
        self._focus = focus

    def __getitem__(self, key: str) -> str | bytes | list[float] | None:
        if key == "name":
            return _name_of(self._file)
        if key == "data":
            self._file.file.seek(0)
            return self._file.file.read()
        if key == "focus":
            return self._focus
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(("name", "data", "focus"))

    def __len__(self) -> int:
        return 3


@dataclass(frozen=True)
class Upload:
    """The files of a request: the accepted ones with their positions, and the refused ones."""

    files: Sequence[ImageFile]
    positions: Sequence[int]
    refused: list[RefusedFile]


def _name_of(file: UploadFile) -> str:
    return file.filename or "picture"


class _Parser(MultiPartParser):
    """Starlette's parser with limits on each file and on their number. It keeps no byte of a file that is too large.

    `sizes_bytes` has the real size of each file.
    """

    #: A request has up to a hundred files, so only small ones stay in memory.
    spool_max_size = 64 * 1024

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], settings: Settings) -> None:
        count = settings.max_files_per_upload
        super().__init__(headers, stream, max_files=10 * count, max_fields=10 * count, max_part_size=_OVERHEAD_BYTES)
        self._most_files = count
        self._most_bytes = settings.max_upload_bytes
        self._part_bytes = 0
        self._text_bytes = 0
        self._has_ended = False
        self.sizes_bytes: dict[UploadFile, int] = {}

    async def parse(self) -> FormData:
        """Parse the form, and refuse it without its end: its last file may be cut off."""
        _, options = parse_options_header(self.headers["Content-Type"])
        if not _is_plain(options.get(b"charset", b"utf-8").decode("latin-1")):
            raise MultiPartException("Its charset must be UTF-8")
        try:
            form = await super().parse()
        except BaseException:
            for file in self._files_to_close_on_error:  # older versions of Starlette leave some open
                file.close()
            raise
        if not self._has_ended:
            await form.close()
            raise MultiPartException("It has no end")
        return form

    def on_end(self) -> None:
        self._has_ended = True

    def on_part_begin(self) -> None:
        super().on_part_begin()
        self._part_bytes = 0

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        before, self._part_bytes = self._part_bytes, self._part_bytes + end - start
        file = self._current_part.file
        if file is None:
            self._text_bytes += end - start
            if self._text_bytes > _OVERHEAD_BYTES:
                raise MultiPartException(f"Its text fields have more than {_OVERHEAD_BYTES // 1024} KiB")
        if file is None or self._part_bytes <= self._most_bytes:
            super().on_part_data(data, start, end)
        elif before <= self._most_bytes:
            self._file_parts_to_write = [each for each in self._file_parts_to_write if each[0].file is not file]
            file.file.close()  # frees the bytes so far

    def on_part_end(self) -> None:
        file = self._current_part.file
        if file is None or self._part_bytes <= self._most_bytes:
            super().on_part_end()
        else:
            self.items.append((self._current_part.field_name, file))
        if file is not None:
            self.sizes_bytes[file] = self._part_bytes
        if len(self.sizes_bytes) > self._most_files:
            raise too_many_files(self._most_files)


def too_many_files(most: int) -> Refused:
    """The answer to a request with more files than `most`."""
    return Refused(Code.TOO_MANY_FILES, f"there are more than the {most} files allowed in one upload")


def _is_plain(charset: str) -> bool:
    """Whether the time for a text in this charset is linear."""
    try:
        return codecs.lookup(charset).name in _CHARSETS
    except LookupError:
        return False


@asynccontextmanager
async def read_upload(request: Request, settings: Settings) -> AsyncIterator[Upload]:
    """Read the request's files and positions. The files exist until the block ends.

    Raises:
      Refused: 400 for a malformed form, 408 for a client that stopped sending, 413 for a request that is too
        large or has too many files, 415 for another content type, 503 without room on the disk.
      InvalidArguments: the positions do not match the files.
    """
    form: FormData | None = None
    try:
        form, sizes_bytes = await _parse(request, settings)
        yield _upload_of(form, sizes_bytes, settings.max_upload_bytes)
    finally:
        if form is not None:
            await form.close()


async def _parse(request: Request, settings: Settings) -> tuple[FormData, Mapping[UploadFile, int]]:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Refused(Code.TYPE_NOT_ACCEPTED, "send the files as multipart/form-data")
    body = request.stream()
    try:
        _check_length(request, settings)
        parser = _Parser(request.headers, _bounded(body, _most_bytes(settings)), settings)
        return await parser.parse(), parser.sizes_bytes
    except MultiPartException as error:
        raise Refused(
            Code.FORM_INVALID, f"the form is malformed: {error.message[:1].lower()}{error.message[1:]}"
        ) from None
    except OSError as error:  # its disk is full, for example
        log_fault("upload_not_written", error)
        retry = {"Retry-After": str(RETRY_AFTER_S)}
        raise Refused(Code.GATEWAY_FULL, "the gateway has no room for the files; try again later", retry) from None
    except Refused as error:
        # A client with `Expect: 100-continue` has not sent its body.
        if error.status_code == 413 and "100-continue" not in request.headers.get("expect", ""):
            await _drain(body)
        raise


def _most_bytes(settings: Settings) -> int:
    return settings.max_request_bytes + _OVERHEAD_BYTES


def _too_large(most_bytes: int) -> Refused:
    most = size_text(most_bytes - _OVERHEAD_BYTES)
    return Refused(Code.BODY_TOO_LARGE, f"the upload has more than the {most} allowed; send the files in several")


def _check_length(request: Request, settings: Settings) -> None:
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > _most_bytes(settings):
        raise _too_large(_most_bytes(settings))


async def _bounded(body: AsyncGenerator[bytes, None], most_bytes: int) -> AsyncGenerator[bytes, None]:
    read_bytes = 0
    while True:
        try:
            async with asyncio.timeout(_SILENCE_S):
                chunk = await anext(body, None)
        except TimeoutError:
            raise Refused(Code.REQUEST_TOO_SLOW, "the upload stopped") from None
        if chunk is None:
            return
        read_bytes += len(chunk)
        if read_bytes > most_bytes:
            raise _too_large(most_bytes)
        yield chunk


async def _drain(body: AsyncGenerator[bytes, None]) -> None:
    left_bytes = _DRAIN_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            async for chunk in body:
                left_bytes -= len(chunk)
                if left_bytes <= 0:
                    return


def _upload_of(form: FormData, sizes_bytes: Mapping[UploadFile, int], max_bytes: int) -> Upload:
    items = form.multi_items()
    # Browsers send an empty file field as a file without name and bytes.
    sent = [value for _, value in items if isinstance(value, UploadFile) and (value.filename or sizes_bytes[value])]
    if not sent:
        raise Refused(Code.FORM_INVALID, "there are no files in the form")
    positions = check_positions(parse_positions(_texts(items, "positions")), len(sent))
    focuses = parse_focus(_texts(items, "focus"), list(map(_name_of, sent)))
    refusals = [refusal_of(_name_of(file), sizes_bytes[file], max_bytes) for file in sent]
    accepted = [index for index, refusal in enumerate(refusals) if refusal is None]
    return Upload(
        files=cast("list[ImageFile]", [SpooledFile(sent[index], focuses[index]) for index in accepted]),
        positions=[positions[index] for index in accepted],
        refused=[refused_file(index, _name_of(sent[index]), each) for index, each in enumerate(refusals) if each],
    )


def _texts(items: Sequence[tuple[str, Any]], field: str) -> list[str]:
    return [value for name, value in items if name in {field, f"{field}[]"} and isinstance(value, str)]


def parse_positions(texts: Sequence[str]) -> list[int] | None:
    """Parse positions from repeated fields, or from one field with commas or a JSON list; None if there are none.

    Raises:
      Refused: 400 if a position is no whole number.
    """
    try:
        if len(texts) == 1 and texts[0].strip().startswith("["):
            values = json.loads(texts[0])
        elif len(texts) == 1:
            values = [part for part in texts[0].split(",") if part.strip()]
        else:
            values = list(texts)
        if any(isinstance(value, bool | float) for value in values):
            raise ValueError
        return [int(value) for value in values] or None
    except (ValueError, TypeError, RecursionError):
        raise Refused(Code.FORM_INVALID, "positions must be whole numbers, one for each file") from None


def parse_focus(texts: Sequence[str], names: Sequence[str]) -> list[list[float] | None]:
    """Parse focal points from repeated fields (`0.5,0.3`, or empty for none), or from one field with a JSON list.

    Parameters:
      texts: the values of the fields; none mean that no file has a focal point.
      names: the names of the files.

    Raises:
      Refused: 400 if they do not match the files.
      InvalidArguments: one is no pair of numbers from 0 to 1.
    """
    try:
        points = [_parsed(text) for text in texts]
    except (ValueError, RecursionError):
        raise Refused(
            Code.FORM_INVALID, "focus must be x,y for each file, or one JSON list of [x, y] or null"
        ) from None
    if len(points) == 1 and isinstance(points[0], list) and not any(map(_is_number, points[0])):
        points = points[0]  # the list of all points
    if len(points) not in (0, len(names)):
        counts = f"{counted(len(names), 'file')} but {counted(len(points), 'focal point')}"
        raise Refused(Code.FORM_INVALID, f"{counts}: each file needs one, or null")
    given = points or [None] * len(names)
    return [check_focus(point, f"{name}: focus") for point, name in zip(given, names, strict=True)]


def _parsed(text: str) -> Any:
    if text.lstrip().startswith(("[", "null")):
        return json.loads(text)
    return [float(share) for share in text.split(",")] if text.strip() else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | str)
