"""The `Content-Disposition` of a download: a valid header for any file name (RFC 6266, RFC 8187)."""

from __future__ import annotations

import re
from urllib.parse import quote

from dream.messages.pictures import OUTPUT_FORMATS

__all__ = ["attachment", "picture_name"]

_MOST_CHARACTERS = 150
_PLAIN = re.compile(r"[^A-Za-z0-9 ._()-]")
#: The characters that RFC 8187 allows beside letters and digits.
_UNQUOTED = "!#$&+-.^_`|~"
#: The extensions that a media type may have; dream's own is the first.
_EXTENSIONS = {each.content_type: [each.extension] for each in OUTPUT_FORMATS.values()}
_EXTENSIONS |= {"image/jpeg": ["jpg", "jpeg"], "image/png": ["png"], "image/gif": ["gif"]}
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,5}\Z")


def attachment(filename: str) -> str:
    """The header that makes a browser save the file under its name.

    A hostile name cannot end the header, leave the folder or hide its extension: control characters, slashes and
    characters that turn text around are replaced.
    """
    name = "".join(letter if letter.isprintable() and letter not in "/\\" else "_" for letter in filename)
    name = name.strip(". ")[-_MOST_CHARACTERS:].lstrip(". ") or "original"
    plain = _PLAIN.sub("_", name)
    if plain == name:
        return f'attachment; filename="{plain}"'
    encoded = quote(name.encode(errors="replace"), safe=_UNQUOTED)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"


def picture_name(filename: str, content_type: str | None) -> str:
    """The name of a processed picture: the uploaded file's name, with the extension of the result's format."""
    allowed = _EXTENSIONS.get(content_type or "", [])
    found = _EXTENSION.search(filename)
    if not allowed or (found and found[0][1:].lower() in allowed):
        return filename
    return f"{filename[: found.start()] if found else filename}.{allowed[0]}"
