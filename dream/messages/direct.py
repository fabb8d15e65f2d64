"""Direct uploads: the files that a client announces and then puts into the object store itself, and their checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from dream.errors import ImageRejected, InvalidArguments
from dream.messages.arguments import MAX_ID, MAX_NAME_LENGTH, check_dream_id, check_files, check_focus, check_positions
from dream.messages.arguments import refusal_of as refusal_of_size
from dream.messages.receipts import RefusedFile, refused_file

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["UNKNOWN_TYPE", "AnnouncedFile", "AwaitedFile", "DirectUpload", "PutOrder", "check_direct", "total_bytes"]

#: The media type of a file whose client does not know it.
UNKNOWN_TYPE = "application/octet-stream"
_FIELDS = {"name", "size", "type", "position", "focus"}


class AnnouncedFile(TypedDict):
    """A file as its client announces it.

    Parameters:
      index: its place among the files of the request, from 0.
      name: its name.
      size: its bytes, exactly.
      type: its media type.
      position: its offset in the dream's text.
      focus: the focal point that came with it.
    """

    index: int
    name: str
    size: int
    type: str
    position: int
    focus: list[float] | None


class AwaitedFile(AnnouncedFile):
    """An accepted file in the row of its upload, with the key under which the client puts it."""

    staged: str


class PutOrder(TypedDict):
    """The request by which a client puts one file: method, URL and headers; its body is the file."""

    index: int
    name: str
    method: str
    url: str
    headers: dict[str, str]


class DirectUpload(TypedDict):
    """The answer to a direct upload that was begun.

    Parameters:
      upload_id: the id for its completion, and of its task then.
      dream_id: the dream.
      expires_in_s: seconds for which the URLs are valid.
      files: one request for each accepted file.
      refused: the refused files.
    """

    upload_id: str
    dream_id: int
    expires_in_s: int
    files: list[PutOrder]
    refused: list[RefusedFile]


def check_direct(
    settings: Settings, dream_id: Any, files: Any, refusal_of_type: Callable[[str], ImageRejected | None]
) -> tuple[list[AnnouncedFile], list[RefusedFile]]:
    """Check the announced files of a direct upload.

    Parameters:
      refusal_of_type: gives the error that refuses a file of a media type, or None.

    Returns:
      The accepted files, and the refused ones.

    Raises:
      InvalidArguments: what is wrong, and where.
    """
    check_dream_id(dream_id)
    check_files(files, "files", settings.max_files_per_upload, fields="{name, size, type}")
    accepted: list[AnnouncedFile] = []
    refused: list[RefusedFile] = []
    for index, file in enumerate(files):
        announced = _checked(file, index)
        refusal = refusal_of_size(announced["name"], announced["size"], settings.max_upload_bytes)
        refusal = refusal or (None if announced["type"] == UNKNOWN_TYPE else refusal_of_type(announced["type"]))
        if refusal is None:
            accepted.append(announced)
        else:
            refused.append(refused_file(index, announced["name"], refusal))
    return accepted, refused


def _checked(file: Any, index: int) -> AnnouncedFile:
    where = f"files[{index}]"
    if not isinstance(file, Mapping) or not {"name", "size"} <= file.keys() <= _FIELDS:
        raise InvalidArguments(f"{where} must be {{name, size}}, perhaps with type, position and focus")
    name, size, kind = file["name"], file["size"], file.get("type")
    kind = UNKNOWN_TYPE if kind in (None, "") else kind
    if not isinstance(name, str) or not isinstance(kind, str):
        raise InvalidArguments(f"{where}: name and type must be strings")
    # A larger number is no float, so no sentence could name the size.
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_ID:
        raise InvalidArguments(f"{where}: size must be the number of the file's bytes, not {size!r:.60}")
    try:
        [position] = check_positions([file.get("position", 0)], 1)
    except InvalidArguments:
        raise InvalidArguments(f"{where}: position must be an integer, not {file['position']!r:.60}") from None
    return {
        "index": index,
        "name": name[-MAX_NAME_LENGTH:] or "picture",
        "size": size,
        "type": kind.strip().lower(),
        "position": position,
        "focus": check_focus(file.get("focus"), f"{where}: focus"),
    }


def total_bytes(files: Sequence[AnnouncedFile]) -> int:
    """The bytes of these files together."""
    return sum(file["size"] for file in files)
