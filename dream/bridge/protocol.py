"""Read messages of Celery: protocol 2, as kombu puts it into Redis and RabbitMQ.

    headers   task, id, eta, expires, retries, timelimit, root_id, parent_id, group, ignore_result, shadow, origin, …
    body      JSON [args, kwargs, {"callbacks", "errbacks", "chain", "chord"}], in Redis mostly as base64

Source: `celery/app/amqp.py` (`as_task_v2`) and `kombu/transport/virtual/base.py`.
"""

from __future__ import annotations

import base64
import binascii
import bz2
import json
import lzma
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from dream.compat.envelope import Envelope
from dream.work.messages import MAX_ID_LENGTH
from dream.work.text import checked_text, size_text

__all__ = ["Refused", "Taken", "body_of", "read", "task_of", "text_of"]

_JSON_TYPES = ("application/json", "json")
#: Headers that describe the message itself; the others are the caller's own.
_OF_CELERY = frozenset(
    {
        *("lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit"),
        *("root_id", "parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting"),
        *("stamped_headers", "stamps", "redelivered", "compression", "x-delivery-count", "x-death"),
    }
)
#: The compressions of kombu that Python has. Its gzip is zlib's.
_OPENERS: dict[str, Callable[[], Any]] = {
    "application/x-gzip": zlib.decompressobj,
    "application/x-bz2": bz2.BZ2Decompressor,
    "application/x-lzma": lzma.LZMADecompressor,
}
#: The largest value that Redis stores.
_LARGEST_BODY_BYTES = 512 * 2**20


class Refused(Exception):
    """The message cannot be handed over; the text gives the reason."""


@dataclass(frozen=True)
class Taken:
    """A message that a source has taken.

    Parameters:
      tag: the name by which the source knows it.
      queue: Celery's name of the queue in which it waited.
      raw: as kombu writes it into Redis: `{"body", "content-type", "content-encoding", "headers", "properties"}`; or
        its bytes, if they are no such message.
      is_held: one of Celery's workers still has it; the bridge only reads it.
    """

    tag: str
    queue: str
    raw: Mapping[str, Any] | bytes
    is_held: bool = False


def task_of(taken: Taken) -> str:
    """The task that a message names, even if the bridge does not understand the message; "-" if it names none."""
    headers = taken.raw.get("headers") if isinstance(taken.raw, Mapping) else None
    return str(headers.get("task") or "-") if isinstance(headers, Mapping) else "-"


def read(taken: Taken, zone: tzinfo) -> Envelope:
    """Read a message.

    Parameters:
      zone: the zone of a time without one.

    Raises:
      Refused
    """
    raw = taken.raw
    if not isinstance(raw, Mapping):
        raise Refused("it is not a message of kombu's")
    headers, properties = _mapping(raw, "headers"), _mapping(raw, "properties")
    if "task" not in headers:
        raise Refused("it is of protocol 1 (set task_protocol = 2 in its sender), or no task at all")
    args, kwargs, embed = _said(raw)
    _check_canvas(embed)
    try:
        return Envelope(
            task=text_of(headers["task"], "task"),
            id=text_of(headers.get("id"), "id"),
            args=args,
            kwargs=kwargs,
            queue=taken.queue,
            eta=_moment(headers.get("eta"), zone),
            expires=_moment(headers.get("expires"), zone),
            retries=int(headers.get("retries") or 0),
            root_id=_other_id(headers, "root_id"),
            parent_id=headers.get("parent_id"),
            group=headers.get("group"),
            ignore_result=bool(headers.get("ignore_result")),
            timelimit=_limits(headers.get("timelimit")),
            link=_links(embed, "callbacks"),
            link_error=_links(embed, "errbacks"),
            headers={name: value for name, value in headers.items() if name not in _OF_CELERY},
            shadow=headers.get("shadow"),
            origin=headers.get("origin"),
            priority=properties.get("priority") or None,
            delivery_info=_mapping(properties, "delivery_info"),
            reply_to=properties.get("reply_to") or None,
        )
    except (ArithmeticError, TypeError, ValueError) as error:
        raise Refused(f"a header is wrong: {error}") from None


def body_of(raw: Mapping[str, Any]) -> Any:
    """Read the body of a message, in JSON's types.

    Parameters:
      raw: the message as kombu writes it into Redis.

    Raises:
      Refused
    """
    if raw.get("content-type") not in _JSON_TYPES:
        raise Refused(f"its content type is {raw.get('content-type')!r}, and only JSON is read")
    headers, properties = _mapping(raw, "headers"), _mapping(raw, "properties")
    try:
        body = raw["body"]
        if properties.get("body_encoding") == "base64":
            body = base64.b64decode(body, validate=True)
        if headers.get("compression"):
            body = _decompressed(body, headers["compression"])
        return json.loads(body)
    except (KeyError, RecursionError, TypeError, ValueError, binascii.Error) as error:
        raise Refused(f"its body is not JSON: {error}") from None


def text_of(value: Any, name: str) -> str:
    """A name or an id that every server can store.

    Raises:
      ValueError
    """
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_LENGTH:
        raise ValueError(f"{name} must be a string of 1 to {MAX_ID_LENGTH} characters, not {value!r:.80}")
    return checked_text(value, name)


def _said(raw: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """The arguments of a task, and its links."""
    body = body_of(raw)
    if isinstance(body, list) and len(body) == 3:
        args, kwargs, embed = body
        if isinstance(args, list) and isinstance(kwargs, dict) and isinstance(embed, dict | None):
            return args, kwargs, embed or {}
    raise Refused("its body is not [args, kwargs, embed]")


def _decompressed(body: Any, kind: Any) -> bytes:
    opener = _OPENERS.get(kind) if isinstance(kind, str) else None
    if opener is None or not isinstance(body, bytes):
        raise Refused(f"it is compressed ({kind!r:.80}), and only gzip, bzip2 and lzma are read")
    opened = opener()
    try:
        text: bytes = opened.decompress(body, _LARGEST_BODY_BYTES)
    except (OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise Refused(f"its body is not what it is compressed as ({kind}): {error}") from None
    if not opened.eof:
        raise Refused(f"its compressed body is cut off, or over {size_text(_LARGEST_BODY_BYTES)}")
    return text


def _check_canvas(embed: Mapping[str, Any]) -> None:
    for name in ("chain", "chord"):
        if embed.get(name):
            raise Refused(f"it is part of a {name}, which is not supported")
    for name in ("callbacks", "errbacks"):
        for link in _links(embed, name):
            _check_link(link)


def _check_link(link: Mapping[str, Any]) -> None:
    """Refuse a link that would fail only after this task has run."""
    if link.get("subtask_type"):
        raise Refused(f"its link is a {link['subtask_type']!s:.80}, which is not supported")
    options = _mapping(link, "options")
    for name in ("link", "link_error"):
        following = options.get(name) or ()
        for each in following if isinstance(following, list | tuple) else [following]:
            if not isinstance(each, Mapping):
                raise Refused("a link of its link is no signature")
            _check_link(each)


def _mapping(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = raw.get(name) or {}
    if not isinstance(value, Mapping):
        raise Refused(f"its {name} are {type(value).__name__}, not a map")
    return value


def _links(embed: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    links = embed.get(name) or ()
    if not isinstance(links, list | tuple) or not all(isinstance(link, Mapping) for link in links):
        raise Refused(f"its {name} are not a list of signatures")
    return links


def _other_id(headers: Mapping[str, Any], name: str) -> str | None:
    """An id, or None if it is the message's own."""
    value = headers.get(name)
    return value if value != headers.get("id") else None


def _moment(value: Any, zone: tzinfo) -> str | None:
    if not value:
        return None
    moment = datetime.fromisoformat(value)
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).isoformat()


def _limits(value: Any) -> tuple[float | None, float | None]:
    hard, soft = value or (None, None)
    for limit in (hard, soft):
        if limit and not (isinstance(limit, int | float) and limit > 0):
            raise ValueError(f"timelimit must be two numbers of seconds, not {value!r:.80}")
    return hard or None, soft or None
