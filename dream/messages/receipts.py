"""Receipts: the answer to an accepted upload, which its task's row keeps so that a repeated request gets it again.

The entries of `refused` are here too: a bad file is refused by itself, and the upload's other files are accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired

from typing_extensions import TypedDict

from dream.errors import ImageRejected
from dream.work.text import is_text

__all__ = ["AcceptedUpload", "Receipt", "RefusedFile", "all_refused_text", "refused_file"]


class RefusedFile(TypedDict):
    """A refused file in the answer.

    Parameters:
      index: its number among the files of the request, from 0.
      name: its name; `picture` if it has none.
      code: the code of a `dream.errors.Reason`.
      error: a sentence for a person.
    """

    index: int
    name: str
    code: str
    error: str


class Receipt(TypedDict):
    """The part of an answer that the rows of the upload's pictures do not tell.

    Parameters:
      files: the number of accepted files.
      refused: the refused files.
      fingerprint: a hash of the request's content, if the request had an idempotency key.
    """

    files: int
    refused: list[RefusedFile]
    fingerprint: NotRequired[str]


class AcceptedUpload(TypedDict):
    """The task of an upload, the number of its accepted files, and the others."""

    task_id: str
    dream_id: int
    files: int
    refused: list[RefusedFile]


def refused_file(index: int, name: str, refusal: ImageRejected) -> RefusedFile:
    """The entry of a file in `refused`; characters of its name that are no text are replaced."""
    shown = "".join(character if is_text(character) else "\N{REPLACEMENT CHARACTER}" for character in name)
    return {"index": index, "name": shown, "code": refusal.code, "error": str(refusal)}


def all_refused_text(refused: Sequence[RefusedFile]) -> str:
    """The error of an upload of which every file is refused."""
    first, *others = refused
    more = f" (and {len(others)} more refused)" if others else ""
    return f"{first['name']}: {first['error']}{more}"
