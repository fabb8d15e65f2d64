"""Checks of callers' arguments, made at the call: a mistake is one clear error, and nothing is stored.

Over HTTP a bad file is refused by itself and the others are accepted; `RefusalCode` lists the reasons.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from dream.errors import InvalidArguments
from dream.messages import STAGING_PREFIX, EncodedFile, ImageFile, UrlToDelete

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = [
    "MAX_ID",
    "Refusal",
    "RefusalCode",
    "check_deletion",
    "check_dream_id",
    "check_inline",
    "check_owner",
    "check_positions",
    "check_upload",
    "checked_text",
    "decode_inline",
    "is_text",
    "refusal_of",
    "size_text",
]

#: The largest id that a database column holds.
MAX_ID = 2**63 - 1
_MAX_POSITION = 2**31 - 1
_MAX_USERNAME_LENGTH = 150
#: Databases take some tens of thousands of parameters in a statement, and each image is two.
_MAX_DELETIONS = 10_000
#: Sizes below this are shown in bytes: in MB with one decimal they would be 0.0.
_SMALLEST_IN_MB = 100_000


class RefusalCode(StrEnum):
    """Why one file of an upload is refused (`docs/contract.md`, "REST of the gateway")."""

    FILE_EMPTY = "file_empty"
    FILE_NAME_INVALID = "file_name_invalid"
    FILE_TOO_LARGE = "file_too_large"


@dataclass(frozen=True)
class Refusal:
    """Why a file is refused.

    Parameters:
      code: for programs.
      fault: for people; it follows the file's name, or `the file`.
    """

    code: RefusalCode
    fault: str


def refusal_of(name: str, size_bytes: int, max_bytes: int) -> Refusal | None:
    """Why a file of that name and size is refused; None where it is accepted."""
    if not is_text(name):
        return Refusal(RefusalCode.FILE_NAME_INVALID, "has characters in its name that are not text")
    if size_bytes == 0:
        return Refusal(RefusalCode.FILE_EMPTY, "is empty")
    if size_bytes > max_bytes:
        size, most = size_text(size_bytes), size_text(max_bytes)
        # A few bytes too many do not show in MB.
        fault = f"has more than the {most} allowed" if size == most else f"has {size}, more than the {most} allowed"
        return Refusal(RefusalCode.FILE_TOO_LARGE, fault)
    return None


def size_text(size_bytes: int) -> str:
    """A size for people: in MB (10^6 bytes) with one decimal; a small size in bytes."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= _SMALLEST_IN_MB else f"{size_bytes} bytes"


def check_upload(settings: Settings, dream_id: Any, image_files: Any, positions: Any) -> list[int]:
    """Check the arguments of an upload; returns the position of each file.

    Raises:
      InvalidArguments: what is wrong, and where.
    """
    check_dream_id(dream_id)
    _check_files(image_files, "image_files", settings.max_files_per_upload)
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
    _check_files(encoded_files, "encoded_files", settings.max_files_per_upload)
    offsets = check_positions(positions, len(encoded_files))
    inline: dict[int, ImageFile] = {}
    for index, file in enumerate(encoded_files):
        where = f"encoded_files[{index}]"
        if isinstance(file, Mapping) and "staged" in file:
            checked_text(file.get("name"), f"{where}: name")
            if not checked_text(file["staged"], f"{where}: staged").startswith(STAGING_PREFIX):
                # It is read, and deleted after the run: no other object may be named here.
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


def _check_files(files: Any, called: str, most: int) -> None:
    if not isinstance(files, Sequence) or isinstance(files, str | bytes):
        raise InvalidArguments(f"{called} must be a list of {{name, data}}, not {type(files).__name__}")
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
    if not isinstance(dream_id, int) or isinstance(dream_id, bool) or not 0 < dream_id <= MAX_ID:
        raise InvalidArguments(f"dream_id must be a positive integer, not {dream_id!r}")


def _check_file(file: Any, where: str, max_bytes: int) -> None:
    if not isinstance(file, Mapping) or not {"name", "data"} <= file.keys():
        raise InvalidArguments(f'{where} must be {{"name": str, "data": bytes}}')
    name, data = checked_text(file["name"], f"{where}: name"), file["data"]
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InvalidArguments(f"{where} ({name}): data must be bytes, not {type(data).__name__}")
    if refusal := refusal_of(name, memoryview(data).nbytes, max_bytes):
        setting = " (DREAM_MAX_UPLOAD_BYTES)" if refusal.code is RefusalCode.FILE_TOO_LARGE else ""
        raise InvalidArguments(f"{where} ({name}) {refusal.fault}{setting}")


def checked_text(value: Any, where: str) -> str:
    """A string that every database can hold."""
    if not isinstance(value, str):
        raise InvalidArguments(f"{where} must be a string, not {type(value).__name__}")
    if not is_text(value):
        raise InvalidArguments(f"{where} has characters that are not text: {value!a}")
    return value


def is_text(value: str) -> bool:
    """Whether every database and every encoding of Unicode can hold the text: no NUL, no lone surrogate."""
    return "\x00" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


def check_positions(positions: Any, count: int) -> list[int]:
    """The position of each of `count` files; 0 for all where none are given.

    Raises:
      InvalidArguments: there are too few or too many, or one is no integer.
    """
    if positions is None:
        return [0] * count
    if not isinstance(positions, Sequence) or isinstance(positions, str | bytes):
        raise InvalidArguments(f"positions must be a list of integers, not {type(positions).__name__}")
    if len(positions) != count:
        raise InvalidArguments(f"{count} files but {len(positions)} positions: each file needs one")
    for index, position in enumerate(positions):
        if not isinstance(position, int) or isinstance(position, bool) or abs(position) > _MAX_POSITION:
            raise InvalidArguments(f"positions[{index}] must be an integer, not {position!r}")
    return list(positions)


def check_deletion(dream_id: Any, image_urls: Any, username: Any) -> list[UrlToDelete]:
    """Check the arguments of a deletion; returns what it names.

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


def check_owner(dream_id: Any, user_id: Any, username: Any) -> None:
    """Check the arguments of `set_owner`.

    Raises:
      InvalidArguments: what is wrong.
    """
    check_dream_id(dream_id)
    if not isinstance(user_id, int) or isinstance(user_id, bool) or abs(user_id) > MAX_ID:
        raise InvalidArguments(f"user_id must be an integer, not {user_id!r:.60}")
    length = len(checked_text(username, "username"))
    if length > _MAX_USERNAME_LENGTH:
        raise InvalidArguments(f"a username may have at most {_MAX_USERNAME_LENGTH} characters, not {length}")


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
        return {"name": file["name"], "data": base64.b64decode(file["data"], validate=True)}
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise InvalidArguments('each file must be {"name", "data": base64} or {"name", "staged": key}') from None
