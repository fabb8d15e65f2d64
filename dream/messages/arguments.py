"""Check callers' arguments at the call: a mistake is one clear error, and nothing is stored.

Over HTTP a bad file is refused by itself (`refusal_of`) and the others are accepted.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from dream.errors import ImageRejected, InvalidArguments, Reason
from dream.work.messages import HIGHEST_PRIORITY
from dream.work.text import checked_text, counted, is_text, size_text

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = [
    "MAX_ID",
    "MAX_NAME_LENGTH",
    "MAX_POSITION",
    "STAGING_PREFIX",
    "EncodedFile",
    "ImageFile",
    "UrlToDelete",
    "check_deletion",
    "check_dream_id",
    "check_files",
    "check_focus",
    "check_image_id",
    "check_inline",
    "check_positions",
    "check_priority",
    "check_upload",
    "decode_inline",
    "named",
    "refusal_of",
]

#: The prefix of staged files. No message may name another object.
STAGING_PREFIX = "staging/"

#: The largest id that a database column holds.
MAX_ID = 2**63 - 1
#: The most characters of a file's name that a row holds: the last ones.
MAX_NAME_LENGTH = 255
#: The largest position, for a column of 32 bits.
MAX_POSITION = 2**31 - 1
#: A ten-thousandth of a side is less than two pixels of the largest picture.
_FOCUS_DECIMALS = 4
#: Databases accept some tens of thousands of parameters in a statement, and each picture needs two.
_MAX_DELETIONS = 10_000


class ImageFile(TypedDict):
    """A file as callers hand it to `upload_images`."""

    name: str
    data: bytes
    #: The point that crops keep: `[x, y]`, each 0 to 1, from the top left of the upright picture.
    focus: NotRequired[Sequence[float] | None]


class EncodedFile(TypedDict):
    """A file in a message: either the key of its staged bytes (claim-check), or its bytes as base64."""

    name: str
    staged: NotRequired[str]
    data: NotRequired[str]
    #: As in `ImageFile`.
    focus: NotRequired[Sequence[float] | None]


class UrlToDelete(TypedDict):
    """A picture in a call of `delete_images`; `id` is the caller's own, and events echo it.

    Without a `url` the id names a row of this dream; an empty `url` names nothing.
    """

    id: int
    url: NotRequired[str]


def refusal_of(name: str, size_bytes: int, max_bytes: int) -> ImageRejected | None:
    """The error that refuses a file of that name and size; None if it is accepted."""
    if not is_text(name):
        return ImageRejected.because(Reason.FILE_NAME_INVALID)
    if size_bytes == 0:
        return ImageRejected.because(Reason.FILE_EMPTY)
    if size_bytes > max_bytes:
        size, most = size_text(size_bytes), size_text(max_bytes)
        # In MB, a few bytes too many would not be visible.
        reason = Reason.FILE_SLIGHTLY_TOO_LARGE if size == most else Reason.FILE_TOO_LARGE
        return ImageRejected.because(reason, size=size, most=most)
    return None


def named(refusal: ImageRejected, file: object) -> str:
    """The sentence of a refusal with a name in place of "the file"."""
    return f"{file} {str(refusal).removeprefix('the file ')}"


def check_upload(settings: Settings, dream_id: Any, image_files: Any, positions: Any) -> list[int]:
    """Check the arguments of an upload; returns the position of each file.

    Raises:
      InvalidArguments: what is wrong, and where.
    """
    check_dream_id(dream_id)
    check_files(image_files, "image_files", settings.max_files_per_upload)
    for index, file in enumerate(image_files):
        _check_file(file, f"image_files[{index}]", settings.max_upload_bytes)
    return check_positions(positions, len(image_files))


def check_inline(
    settings: Settings, dream_id: Any, encoded_files: Any, positions: Any
) -> tuple[dict[int, ImageFile], list[int]]:
    """Check the arguments of an upload that came as a message.

    Returns:
      The files whose bytes are in the message, by their place in it; and the position of each file, staged or not.

    Raises:
      InvalidArguments: what is wrong, and where.
    """
    check_dream_id(dream_id)
    check_files(encoded_files, "encoded_files", settings.max_files_per_upload)
    offsets = check_positions(positions, len(encoded_files))
    inline: dict[int, ImageFile] = {}
    for index, file in enumerate(encoded_files):
        where = f"encoded_files[{index}]"
        if isinstance(file, Mapping) and "staged" in file:
            name = checked_text(file.get("name"), f"{where}: name")
            check_focus(file.get("focus"), f"{where} ({name}): focus")
            if not checked_text(file["staged"], f"{where}: staged").startswith(STAGING_PREFIX):
                # The run reads this object and deletes it, so a message must name no other object.
                raise InvalidArguments(f"{where}: staged must be a key under {STAGING_PREFIX}")
        else:
            inline[index] = _decoded(file, where)
            _check_file(inline[index], where, settings.max_upload_bytes)
    return inline, offsets


def _decoded(file: Any, where: str) -> ImageFile:
    try:
        return decode_inline(file)
    except InvalidArguments as error:
        name = file.get("name") if isinstance(file, Mapping) else None
        named = f"{where} ({name})" if isinstance(name, str) and is_text(name) else where
        raise InvalidArguments(f"{named}: {error}") from None


def check_files(files: Any, called: str, most: int, *, fields: str = "{name, data}") -> None:
    """Check that the argument `called` is a list of 1 to `most` items, each with these fields.

    Raises:
      InvalidArguments: what is wrong.
    """
    if not isinstance(files, Sequence) or isinstance(files, str | bytes):
        raise InvalidArguments(f"{called} must be a list of {fields}, not {type(files).__name__}")
    if not files:
        raise InvalidArguments(f"{called} is empty: there is nothing to upload")
    if len(files) > most:
        raise InvalidArguments(
            f"{len(files)} files are more than the {most} allowed in one call (DREAM_MAX_FILES_PER_UPLOAD)"
        )


def check_dream_id(dream_id: Any) -> None:
    """Check the id of a dream.

    Raises:
      InvalidArguments: it is no positive integer, or too large for a database.
    """
    _check_id(dream_id, "dream_id")


def check_image_id(image_id: Any) -> None:
    """Check the id of a picture; errors as of `check_dream_id`."""
    _check_id(image_id, "image_id")


def _check_id(value: Any, name: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_ID:
        raise InvalidArguments(f"{name} must be a positive integer, not {value!r:.60}")


def _check_file(file: Any, where: str, max_bytes: int) -> None:
    if not isinstance(file, Mapping) or not {"name", "data"} <= file.keys():
        raise InvalidArguments(f'{where} must be {{"name": str, "data": bytes}}')
    name, data = checked_text(file["name"], f"{where}: name"), file["data"]
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InvalidArguments(f"{where} ({name}): data must be bytes, not {type(data).__name__}")
    check_focus(file.get("focus"), f"{where} ({name}): focus")
    if refusal := refusal_of(name, memoryview(data).nbytes, max_bytes):
        setting = " (DREAM_MAX_UPLOAD_BYTES)" if refusal.code == Reason.FILE_TOO_LARGE.code else ""
        raise InvalidArguments(f"{named(refusal, f'{where} ({name})')}{setting}")


def check_focus(focus: Any, where: str) -> list[float] | None:
    """The focal point as rows hold it; None if none is given.

    Parameters:
      where: its name in the caller's arguments.

    Raises:
      InvalidArguments: it is no pair of numbers from 0 to 1.
    """
    if focus is None:
        return None
    is_pair = isinstance(focus, Sequence) and not isinstance(focus, str | bytes) and len(focus) == 2
    if not is_pair or not all(_is_share(share) for share in focus):
        raise InvalidArguments(f"{where} must be [x, y], two numbers from 0 to 1, not {focus!r:.60}")
    return [round(float(share), _FOCUS_DECIMALS) for share in focus]


def _is_share(value: Any) -> bool:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and bool(0 <= value <= 1)


def check_positions(positions: Any, count: int) -> list[int]:
    """The position of each of `count` files; 0 for all if none are given.

    Raises:
      InvalidArguments: there are too few or too many, or one is no integer.
    """
    if positions is None:
        return [0] * count
    if not isinstance(positions, Sequence) or isinstance(positions, str | bytes):
        raise InvalidArguments(f"positions must be a list of integers, not {type(positions).__name__}")
    if len(positions) != count:
        counts = f"{counted(count, 'file')} but {counted(len(positions), 'position')}"
        raise InvalidArguments(f"{counts}: each file needs one")
    for index, position in enumerate(positions):
        if not isinstance(position, int) or isinstance(position, bool) or abs(position) > MAX_POSITION:
            raise InvalidArguments(f"positions[{index}] must be an integer, not {position!r}")
    return list(positions)


def check_deletion(dream_id: Any, image_urls: Any, username: Any) -> list[UrlToDelete]:
    """Check the arguments of a deletion; returns its items.

    Raises:
      InvalidArguments: what is wrong, and where.
    """
    check_dream_id(dream_id)
    if not isinstance(image_urls, Sequence) or isinstance(image_urls, str | bytes):
        raise InvalidArguments(f"image_urls must be a list of {{id, url}}, not {type(image_urls).__name__}")
    if len(image_urls) > _MAX_DELETIONS:
        raise InvalidArguments(f"{len(image_urls)} images are more than the {_MAX_DELETIONS} that one call may delete")
    if username is not None:
        checked_text(username, "username")
    return [_checked_url(item, f"image_urls[{index}]") for index, item in enumerate(image_urls)]


def check_priority(priority: Any) -> None:
    """Check the priority of an upload or a deletion; None is the normal one.

    Raises:
      InvalidArguments: what is wrong.
    """
    is_number = isinstance(priority, int) and not isinstance(priority, bool)
    if priority is not None and not (is_number and 0 <= priority <= HIGHEST_PRIORITY):
        raise InvalidArguments(f"priority must be an integer from 0 to {HIGHEST_PRIORITY}, not {priority!r:.60}")


def _checked_url(item: Any, where: str) -> UrlToDelete:
    if not isinstance(item, Mapping) or not {"id", "url"} & item.keys():
        raise InvalidArguments(f'{where} must be {{"id": int, "url": str}}')
    image_id = item.get("id", 0)
    if not isinstance(image_id, int) or isinstance(image_id, bool) or abs(image_id) > MAX_ID:
        raise InvalidArguments(f"{where}: id must be an integer, not {image_id!r}")
    if "url" not in item:
        return {"id": image_id}
    return {"id": image_id, "url": checked_text(item["url"], f"{where}: url")}


def decode_inline(file: EncodedFile) -> ImageFile:
    """The bytes that a caller sent as base64 inside the message.

    Raises:
      InvalidArguments: it is not base64.
    """
    try:
        decoded: ImageFile = {"name": file["name"], "data": base64.b64decode(file["data"], validate=True)}
        return {**decoded, "focus": file["focus"]} if "focus" in file else decoded
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise InvalidArguments('each file must be {"name", "data": base64} or {"name", "staged": key}') from None
