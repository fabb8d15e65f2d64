"""What follows the commit of a caller's own transaction, and what its rollback undoes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dream.errors import InvalidArguments

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, SessionTransaction

__all__ = ["check_session", "follow"]

#: Where the session keeps what is to follow, and whether its COMMIT has begun.
_OUTBOX = "dream_outbox"
_IS_COMMITTING = "dream_is_committing"


def check_session(session: object) -> None:
    """Whether rows can join it: an `AsyncSession` or a connection has no unit of work of ours.

    Raises:
      InvalidArguments
    """
    if session is None:
        return
    from sqlalchemy.orm import Session, scoped_session

    if not isinstance(session, Session | scoped_session):
        raise InvalidArguments(f"session must be a SQLAlchemy Session, not {type(session).__name__}")


def follow(session: Session, *, commit: Callable[[], None], rollback: Callable[[], None]) -> None:
    """Call `commit` after the session's transaction has committed, or `rollback` where it was not to be committed.

    Where a COMMIT fails neither is called: it may have taken place all the same, and its answer been lost.
    """
    from sqlalchemy import event
    from sqlalchemy.orm import scoped_session

    if isinstance(session, scoped_session):
        # A listener on the registry would listen to every session of its factory.
        session = session()
    if _OUTBOX not in session.info:
        session.info[_OUTBOX] = []
        event.listen(session, "before_commit", _committing)
        event.listen(session, "after_commit", _committed)
        event.listen(session, "after_transaction_end", _ended)
    session.info[_OUTBOX].append((commit, rollback))


def _committing(session: Session) -> None:
    if not session.in_nested_transaction():
        session.info[_IS_COMMITTING] = True


def _committed(session: Session) -> None:
    # The release of a savepoint is no commit.
    if not session.in_nested_transaction():
        for send, _ in _emptied(session):
            send()


def _ended(session: Session, transaction: SessionTransaction) -> None:
    # Rolled back, or closed without a word. Where only a savepoint goes, the message still follows; its worker finds
    # no row and drops it.
    if transaction.parent is None:
        is_uncertain = session.info.pop(_IS_COMMITTING, False)
        for _, forget in _emptied(session):
            if not is_uncertain:
                forget()


def _emptied(session: Session) -> list[tuple[Callable[[], None], Callable[[], None]]]:
    outbox: list[tuple[Callable[[], None], Callable[[], None]]] = session.info[_OUTBOX]
    session.info[_OUTBOX] = []
    return outbox
