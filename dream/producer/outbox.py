"""What follows the commit of a caller's own transaction, and what its rollback undoes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["follow"]

#: Where the session keeps what is to follow.
_OUTBOX = "dream_outbox"


def follow(session: Session, *, commit: Callable[[], None], rollback: Callable[[], None]) -> None:
    """Call `commit` after the session's transaction has committed, or `rollback` after it was rolled back."""
    from sqlalchemy import event

    if _OUTBOX not in session.info:
        session.info[_OUTBOX] = []
        event.listen(session, "after_commit", _committed)
        event.listen(session, "after_rollback", _rolled_back)
    session.info[_OUTBOX].append((commit, rollback))


def _committed(session: Session) -> None:
    # The release of a savepoint is no commit.
    if not session.in_nested_transaction():
        for send, _ in _emptied(session):
            send()


def _rolled_back(session: Session) -> None:
    # Where only a savepoint goes, the message still follows; its worker finds no row and drops it.
    if not session.in_nested_transaction():
        for _, forget in _emptied(session):
            forget()


def _emptied(session: Session) -> list[tuple[Callable[[], None], Callable[[], None]]]:
    outbox: list[tuple[Callable[[], None], Callable[[], None]]] = session.info[_OUTBOX]
    session.info[_OUTBOX] = []
    return outbox
