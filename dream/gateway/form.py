"""A multipart upload read within limits, its files on disk.

Starlette's parser spools each file to disk but bounds neither a file nor the whole; this one does both, while it reads.
It skips a file that is too large and accepts the others. It refuses a request that is too large as a whole or has too
many files.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, cast

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from dream.arguments import Refusal, RefusalCode, check_positions, is_text, refusal_of, size_text
from dream.messages import ImageFile

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["RefusedFile", "Upload", "parse_positions", "read_upload"]

#: Beside the files a request has headers of parts and positions.
_OVERHEAD_BYTES = 256 * 1024
_MAX_TEXT_BYTES = 64 * 1024
#: A client that sends nothing for this long has gone.
_SILENCE_S = 30.0
#: What is refused is read on for a while, so that the client gets to read the answer.
_DRAIN_BYTES = 64 * 2**20
_DRAIN_S = 5.0


class SpooledFile(Mapping[str, Any]):
    """An `ImageFile` whose bytes stay on disk until they are asked for."""

    def __init__(self, file: UploadFile) -> None:
        self._file = file

    def __getitem__(self, key: str) -> str | bytes:
        if key == "name":
            return _name_of(self._file)
        if key == "data":
            self._file.file.seek(0)
            return self._file.file.read()
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(("name", "data"))

    def __len__(self) -> int:
        return 2


class RefusedFile(TypedDict):
    """A file that was not accepted, as the answer names it.

    Parameters:
      index: its place among the files of the request.
      name: its name; `picture` where it has none.
      code: one of `dream.arguments.RefusalCode`.
      error: a sentence for a person.
    """

    index: int
    name: str
    code: str
    error: str


@dataclass(frozen=True)
class Upload:
    """The files of a request: those that are accepted, with their positions, and those that are refused."""

    files: Sequence[ImageFile]
    positions: Sequence[int]
    refused: Sequence[RefusedFile]

    @property
    def refusal_status(self) -> int:
        """The status of the answer where no file is accepted."""
        return 413 if self.refused[0]["code"] == RefusalCode.FILE_TOO_LARGE else 400

    @property
    def refusal_text(self) -> str:
        """The error of the answer where no file is accepted."""
        first, *others = self.refused
        more = f" (and {len(others)} more refused)" if others else ""
        return f"{first['name']}: {first['error']}{more}"


def _name_of(file: UploadFile) -> str:
    return file.filename or "picture"


class _Parser(MultiPartParser):
    """Starlette's parser with limits on each file and on their number. It keeps no byte of a file that is too large.

    `sizes_bytes` has the true size of each file.
    """

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], settings: Settings) -> None:
        count = settings.max_files_per_upload
        super().__init__(headers, stream, max_files=10 * count, max_fields=10 * count, max_part_size=_MAX_TEXT_BYTES)
        self._most_files = count
        self._most_bytes = settings.max_upload_bytes
        self._part_bytes = 0
        self._has_ended = False
        self.sizes_bytes: dict[UploadFile, int] = {}

    async def parse(self) -> FormData:
        """The form, which is whole: what was cut off in its last file would be taken without it."""
        form = await super().parse()
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
        if file is None or self._part_bytes <= self._most_bytes:
            super().on_part_data(data, start, end)
        elif before <= self._most_bytes:
            self._file_parts_to_write = [each for each in self._file_parts_to_write if each[0].file is not file]
            file.file.close()  # frees the part that was kept

    def on_part_end(self) -> None:
        file = self._current_part.file
        if file is None or self._part_bytes <= self._most_bytes:
            super().on_part_end()
        else:
            self.items.append((self._current_part.field_name, file))
        if file is not None:
            self.sizes_bytes[file] = self._part_bytes
        if len(self.sizes_bytes) > self._most_files:
            raise HTTPException(413, f"there are more than the {self._most_files} files allowed in one upload")


@asynccontextmanager
async def read_upload(request: Request, settings: Settings) -> AsyncIterator[Upload]:
    """The request's files and positions; the files live until the block ends.

    Raises:
      HTTPException: 400 for a malformed form, 408 for a client that stopped sending, 413 where the whole is too large
        or has too many files, 415 for anything but multipart.
      InvalidArguments: the positions do not fit the files.
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
        raise HTTPException(415, "send the files as multipart/form-data")
    body = request.stream()
    try:
        _check_length(request, settings)
        parser = _Parser(request.headers, _bounded(body, _most_bytes(settings)), settings)
        return await parser.parse(), parser.sizes_bytes
    except MultiPartException as error:
        raise HTTPException(400, f"the form is malformed: {error.message[:1].lower()}{error.message[1:]}") from None
    except UnicodeError:  # Starlette expects fewer errors of a codec than there are
        raise HTTPException(400, "the form is malformed: its text is not in the charset that it names") from None
    except HTTPException as error:
        # A client that asked first, and was not told to go on, sends nothing.
        if error.status_code == 413 and "100-continue" not in request.headers.get("expect", ""):
            await _drain(body)
        raise


def _most_bytes(settings: Settings) -> int:
    return settings.max_request_bytes + _OVERHEAD_BYTES


def _too_large(most_bytes: int) -> HTTPException:
    most = size_text(most_bytes - _OVERHEAD_BYTES)
    return HTTPException(413, f"the upload has more than the {most} allowed; send the files in several")


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
            raise HTTPException(408, "the upload stopped") from None
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
    # A file field that was left empty is sent as a nameless file without bytes.
    sent = [value for _, value in items if isinstance(value, UploadFile) and (value.filename or sizes_bytes[value])]
    if not sent:
        raise HTTPException(400, "there are no files in the form")
    texts = [value for name, value in items if name in {"positions", "positions[]"} and isinstance(value, str)]
    positions = check_positions(parse_positions(texts), len(sent))
    refusals = [refusal_of(_name_of(file), sizes_bytes[file], max_bytes) for file in sent]
    accepted = [index for index, refusal in enumerate(refusals) if refusal is None]
    return Upload(
        files=cast("list[ImageFile]", [SpooledFile(sent[index]) for index in accepted]),
        positions=[positions[index] for index in accepted],
        refused=[_refused(index, sent[index], refusal) for index, refusal in enumerate(refusals) if refusal],
    )


def _refused(index: int, file: UploadFile, refusal: Refusal) -> RefusedFile:
    name = "".join(character if is_text(character) else "\N{REPLACEMENT CHARACTER}" for character in _name_of(file))
    return {"index": index, "name": name, "code": refusal.code, "error": f"the file {refusal.fault}"}


def parse_positions(texts: Sequence[str]) -> list[int] | None:
    """Positions from repeated fields, or from one field with commas or a JSON list; None where there are none.

    Raises:
      HTTPException: 400 where one is no whole number.
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
        raise HTTPException(400, "positions must be whole numbers, one for each file") from None
