"""What callers may pass: checked at the call, so that a mistake is one clear error and nothing is stored."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dream.errors import InvalidArguments
from dream.messages import EncodedFile, ImageFile, UrlToDelete

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["check_deletion", "check_upload", "decode_inline"]

_MAX_ID = 2**63 - 1
_MAX_POSITION = 2**31 - 1


def check_upload(settings: Settings, dream_id: Any, image_files: Any, positions: Any) -> list[int]:
    """Check the arguments of an upload; returns the position of each file.

    Raises:
      InvalidArguments: what is wrong, and where.
    """
    _check_dream_id(dream_id)
    if not isinstance(image_files, Sequence) or isinstance(image_files, str | bytes):
        raise InvalidArguments(f"image_files must be a list of {{name, data}}, not {type(image_files).__name__}")
    if not image_files:
        raise InvalidArguments("image_files is empty: there is nothing to upload")
    if len(image_files) > settings.max_files_per_upload:
        raise InvalidArguments(
            f"{len(image_files)} files are more than the {settings.max_files_per_upload} allowed in one call "
            "(DREAM_MAX_FILES_PER_UPLOAD)"
        )
    for index, file in enumerate(image_files):
        _check_file(file, f"image_files[{index}]", settings.max_upload_bytes)
    return _checked_positions(positions, len(image_files))


def _check_dream_id(dream_id: Any) -> None:
    if not isinstance(dream_id, int) or isinstance(dream_id, bool) or not 0 < dream_id <= _MAX_ID:
        raise InvalidArguments(f"dream_id must be a positive integer, not {dream_id!r}")


def _check_file(file: Any, where: str, max_bytes: int) -> None:
    if not isinstance(file, Mapping) or not {"name", "data"} <= file.keys():
        raise InvalidArguments(f'{where} must be {{"name": str, "data": bytes}}')
    if not isinstance(file["name"], str):
        raise InvalidArguments(f"{where}: name must be a string, not {type(file['name']).__name__}")
    data = file["data"]
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InvalidArguments(f"{where} ({file['name']}): data must be bytes, not {type(data).__name__}")
    if len(data) == 0:
        raise InvalidArguments(f"{where} ({file['name']}) is empty")
    if len(data) > max_bytes:
        raise InvalidArguments(
            f"{where} ({file['name']}) has {len(data)} bytes, more than the {max_bytes} allowed "
            "(DREAM_MAX_UPLOAD_BYTES)"
        )


def _checked_positions(positions: Any, count: int) -> list[int]:
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
    _check_dream_id(dream_id)
    if not isinstance(image_urls, Sequence) or isinstance(image_urls, str | bytes):
        raise InvalidArguments(f"image_urls must be a list of {{id, url}}, not {type(image_urls).__name__}")
    if username is not None and not isinstance(username, str):
        raise InvalidArguments(f"username must be a string, not {type(username).__name__}")
    return [_checked_url(item, f"image_urls[{index}]") for index, item in enumerate(image_urls)]


def _checked_url(item: Any, where: str) -> UrlToDelete:
    if not isinstance(item, Mapping) or not {"id", "url"} & item.keys():
        raise InvalidArguments(f'{where} must be {{"id": int, "url": str}}')
    image_id, url = item.get("id", 0), item.get("url", "")
    if not isinstance(url, str):
        raise InvalidArguments(f"{where}: url must be a string, not {type(url).__name__}")
    if not isinstance(image_id, int) or isinstance(image_id, bool):
        raise InvalidArguments(f"{where}: id must be an integer, not {image_id!r}")
    return {"id": image_id, "url": url}


def decode_inline(file: EncodedFile) -> ImageFile:
    """The bytes that a caller sent as base64 inside the message.

    Raises:
      InvalidArguments: it is not base64.
    """
    try:
        return {"name": file["name"], "data": base64.b64decode(file["data"], validate=True)}
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise InvalidArguments('each file must be {"name", "data": base64} or {"name", "staged": key}') from None
