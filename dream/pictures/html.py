"""HTML for pictures. Every text is escaped here, and only here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape

from dream.errors import InvalidArguments
from dream.messages.srcset import Source

__all__ = ["Html", "background", "element", "named", "with_sources"]

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_COLOUR = re.compile(r"#[0-9a-f]{6}")


class Html(str):
    """HTML that templates of Django and Jinja do not escape again."""

    __slots__ = ()

    def __html__(self) -> Html:
        return self


def named(given: Mapping[str, object]) -> dict[str, str]:
    """Attributes by the names of HTML: `data_id` means `data-id`, `for_` means `for`; None leaves one out.

    Raises:
      InvalidArguments: no attribute can have such a name.
    """
    found = {name.rstrip("_").replace("_", "-"): str(value) for name, value in given.items() if value is not None}
    for name in found:
        if not _NAME.fullmatch(name):
            raise InvalidArguments(f"{name!r:.100} cannot be the name of an attribute: use a-z, 0-9 and _")
    return found


def element(name: str, attributes: Mapping[str, str]) -> Html:
    """An element without content."""
    return Html(" ".join([f"<{name}", *(f'{key}="{escape(value)}"' for key, value in attributes.items())]) + ">")


def with_sources(sources: Iterable[Source], sizes: str, image: Html) -> Html:
    """`<picture>` with other formats before the image."""
    offered = [
        element("source", {"type": each.content_type, "srcset": each.srcset, "sizes": sizes}) for each in sources
    ]
    return Html(f"<picture>{''.join(offered)}{image}</picture>")


def background(colour: str | None, url: str | None) -> str:
    """The style of a picture that has not loaded: a colour, a blurred picture over it, or nothing."""
    parts = [colour] if colour and _COLOUR.fullmatch(colour) else []
    if url:
        parts.append(f"url({url}) center/cover no-repeat")
    return f"background:{' '.join(parts)}" if parts else ""
