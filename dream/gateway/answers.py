"""The JSON of the HTTP API: the shapes of bodies and answers, as `/openapi.json` describes them."""

from __future__ import annotations

from typing import Annotated, NotRequired

from annotated_types import Ge, Le, Len
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from dream.messages.arguments import MAX_ID, MAX_POSITION
from dream.messages.pictures import ImageInfo, PhotoFacts
from dream.messages.receipts import RefusedFile

__all__ = [
    "AcceptedImage",
    "AnnouncedFiles",
    "ClientSettings",
    "ErrorAnswer",
    "FileToSend",
    "Focus",
    "FocusOfImage",
    "Health",
    "ImageDetail",
    "ListedImage",
    "NewPosition",
    "NewPositions",
    "PositionsOfImages",
    "Readiness",
    "Retry",
    "Ticket",
]

#: Bodies: no unknown field, and no text in the place of a number.
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Share = Annotated[float, Ge(0), Le(1)]


class ErrorAnswer(TypedDict):
    """The answer to a refused request: a sentence for people, a code for programs."""

    error: str
    code: str
    #: The files of an upload, if none of them was accepted.
    refused: NotRequired[list[RefusedFile]]


class Retry(TypedDict):
    """The next attempt of an upload after a failed one; `retry_at` is in seconds since the epoch."""

    attempt: int
    max_retries: int
    retry_at: float


class ListedImage(ImageInfo):
    """A picture as its owner lists it."""

    #: While it waits for another attempt.
    retry: NotRequired[Retry]
    #: With `DREAM_MEDIA_ACCESS=signed`.
    signed_url: NotRequired[str | None]
    signed_srcset: NotRequired[str | None]


class ImageDetail(ListedImage):
    """A picture with the private facts about the photo."""

    facts: PhotoFacts | None


@with_config(ConfigDict(extra="forbid"))
class FileToSend(TypedDict):
    """A file that a client will put into the object store: its name, its exact size in bytes, its media type."""

    name: str
    size: Annotated[int, Ge(0), Le(MAX_ID)]
    type: NotRequired[str | None]
    position: NotRequired[Annotated[int, Ge(1 - 2**31), Le(2**31 - 1)]]
    focus: NotRequired[Annotated[list[Share], Len(2, 2)] | None]


@with_config(ConfigDict(extra="forbid"))
class AnnouncedFiles(TypedDict):
    """The files of a direct upload."""

    files: Annotated[list[FileToSend], Len(1)]


class AcceptedImage(TypedDict):
    """The task that works on one picture."""

    task_id: str
    dream_id: int
    id: int


@with_config(_STRICT)
class Focus(TypedDict):
    """The point that crops keep, `[x, y]` from the top left; null brings the found point back."""

    focus: Annotated[list[Share], Len(2, 2)] | None


@with_config(_STRICT)
class NewPosition(TypedDict):
    """The position of a picture in the dream's text."""

    id: Annotated[int, Ge(1), Le(MAX_ID)]
    position: Annotated[int, Ge(-MAX_POSITION), Le(MAX_POSITION)]


@with_config(_STRICT)
class NewPositions(TypedDict):
    """New positions of pictures: all of them are written, or none. Each picture comes once."""

    positions: Annotated[list[NewPosition], Len(1, 1000)]


class PositionsOfImages(TypedDict):
    """The positions that were written."""

    dream_id: int
    positions: list[NewPosition]


class FocusOfImage(TypedDict):
    """The points of a picture: the given one, and the found one."""

    dream_id: int
    id: int
    focus: list[float] | None
    found_focus: list[float] | None


class ClientSettings(TypedDict):
    """The limits and formats that a page needs before it sends a file."""

    accept: str
    max_upload_bytes: int
    media_access: str


class Health(TypedDict):
    """The process is up."""

    status: str


class Readiness(TypedDict):
    """The servers behind the gateway: `ok`, or the fault of each."""

    status: str
    database: str
    redis: str
    bucket: str
    error: NotRequired[str]
    code: NotRequired[str]


class Ticket(TypedDict):
    """A ticket, which opens one WebSocket or one stream of events."""

    ticket: str
    expires_in_s: int
