"""The user of a token, of a dream or of an upload: a text, and the number that stands for it in columns and messages.

A whole number of 64 bits is its own number, and `5` and `"5"` are the same user. Another text, a UUID for example, gets
a stable negative number from its hash. Numbers serve to count and to take turns only: owners are compared by the text.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any
from uuid import UUID

from dream.errors import InvalidArguments
from dream.messages.arguments import MAX_ID, check_dream_id
from dream.work.text import checked_text, is_text

__all__ = ["MAX_USER_LENGTH", "UserId", "check_owner", "number_and_text", "user_number", "user_text"]

UserId = int | str | UUID

MAX_USER_LENGTH = 255
_MAX_USERNAME_LENGTH = 150
#: A number in its only spelling: `05` and `+5` are texts, because a site may have a user `05` beside its user `5`.
_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)


def user_text(value: Any, name: str = "user_id") -> str:
    """The user as a text.

    Raises:
      InvalidArguments: it is no whole number of 64 bits, no UUID, and no text of 1 to 255 characters.
    """
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > MAX_ID:
            raise InvalidArguments(f"{name} is larger than any id, a number of 64 bits")
        return str(value)
    if isinstance(value, str) and 0 < len(value) <= MAX_USER_LENGTH and is_text(value):
        return value
    raise InvalidArguments(
        f"{name} must be a whole number or a text of 1 to {MAX_USER_LENGTH} characters, not {value!r:.60}"
    )


def user_number(value: UserId) -> int:
    """The number that stands for a user.

    Raises:
      InvalidArguments: see `user_text`.
    """
    text = user_text(value)
    if _NUMBER.fullmatch(text) and abs(int(text)) <= MAX_ID:
        return int(text)
    digest = hashlib.sha256(text.encode()).digest()
    return -1 - int.from_bytes(digest[:8]) % MAX_ID


def number_and_text(value: UserId) -> tuple[int, str | None]:
    """The user's number, and the text if the number does not say it all.

    Raises:
      InvalidArguments: see `user_text`.
    """
    number, text = user_number(value), user_text(value)
    return number, None if text == str(number) else text


def check_owner(dream_id: Any, user_id: Any, username: Any) -> None:
    """Check the arguments of `set_owner`.

    Raises:
      InvalidArguments: what is wrong.
    """
    check_dream_id(dream_id)
    user_text(user_id)
    length = len(checked_text(username, "username"))
    if length > _MAX_USERNAME_LENGTH:
        raise InvalidArguments(f"a username may have at most {_MAX_USERNAME_LENGTH} characters, not {length}")
