"""Text that every database can hold, and sizes for people."""

from __future__ import annotations

from typing import Any

from dream.errors import InvalidArguments

__all__ = ["checked_text", "counted", "is_text", "size_text"]

#: Sizes below this are shown in bytes: in MB with one decimal they would be 0.0.
_SMALLEST_IN_MB = 100_000


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


def counted(count: int, noun: str) -> str:
    """A number with its noun, in singular or plural: `1 file`, `2 files`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def size_text(size_bytes: int) -> str:
    """A size for people: in MB (10^6 bytes) with one decimal; a small size in bytes."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= _SMALLEST_IN_MB else f"{size_bytes} bytes"
