"""JSON as kombu writes and reads it, so that arguments and results pass between Celery and dream unchanged.

Values for which JSON has no type are `{"__type__": <type>, "__value__": …}`: datetime, date, time, decimal, uuid, bytes
(UTF-8) and base64 (other bytes). Source: `kombu/utils/json.py`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

__all__ = ["dumps", "loads"]

#: A datetime is a date too, so it comes first.
_ENCODERS: tuple[tuple[type, str, Callable[[Any], Any]], ...] = (
    (datetime, "datetime", datetime.isoformat),
    (date, "date", date.isoformat),
    (time, "time", time.isoformat),
    (Decimal, "decimal", str),
    (UUID, "uuid", lambda value: {"hex": value.hex}),
)
_DECODERS: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": lambda value: datetime.fromisoformat(value).date(),
    "time": time.fromisoformat,
    "decimal": Decimal,
    "uuid": lambda value: UUID(hex=value["hex"]),
    "bytes": str.encode,
    "base64": base64.b64decode,
}


def dumps(value: Any) -> str:
    """The value as JSON.

    Raises:
      TypeError: JSON cannot carry a value in it.
      ValueError: it contains itself, is nested too deeply, or has a `__json__` or `__repr__` that fails.
    """
    try:
        return json.dumps(value, default=_encode)
    except (TypeError, ValueError):
        raise
    except Exception as error:
        raise ValueError(f"JSON cannot carry it: {type(error).__name__}: {error}") from error


def loads(text: str | bytes) -> Any:
    """The value that was written.

    Raises:
      ValueError: it is not JSON, or names a type that is not known.
    """
    return json.loads(text, object_hook=_decode)


def _encode(value: Any) -> Any:
    if hasattr(value, "__json__"):
        return value.__json__()
    for kind, name, encode in _ENCODERS:
        if isinstance(value, kind):
            return _typed(name, encode(value))
    if isinstance(value, bytes):
        try:
            return _typed("bytes", value.decode())
        except UnicodeDecodeError:
            return _typed("base64", base64.b64encode(value).decode())
    # Django's lazy text, found by its name, because dream does not import Django.
    if any(f"{kind.__module__}.{kind.__name__}" == "django.utils.functional.Promise" for kind in type(value).__mro__):
        return str(value)
    raise TypeError(f"JSON cannot carry {type(value).__name__}: {value!r:.80}")


def _typed(name: str, value: Any) -> dict[str, Any]:
    return {"__type__": name, "__value__": value}


def _decode(found: dict[str, Any]) -> Any:
    if found.keys() != {"__type__", "__value__"}:
        return found
    name, value = found["__type__"], found["__value__"]
    if name not in _DECODERS:
        raise ValueError(f"JSON with the unknown type {name!r}")
    try:
        return _DECODERS[name](value)
    except (ArithmeticError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"JSON with a {name} that is none: {value!r:.80}") from error
