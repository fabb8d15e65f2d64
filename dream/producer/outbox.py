"""The outbox of a caller's own transaction: messages to send after its commit, bytes to remove after its rollback."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dream.errors import InvalidArguments

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, SessionTransaction

__all__ = ["check_session", "follow"]

#: Keys in the session's `info`: the outbox, and whether the COMMIT has begun.
_OUTBOX = "dream_outbox"
_IS_COMMITTING = "dream_is_committing"


def check_session(session: object) -> None:
    """Check that rows can join the session: an `AsyncSession` or a connection is refused.

    Raises:
      InvalidArguments
    """
    if session is None:
        return
    from sqlalchemy.orm import Session, scoped_session

    if not isinstance(session, Session | scoped_session):
        raise InvalidArguments(f"session must be a SQLAlchemy Session, not {type(session).__name__}")


def follow(session: Session, *, commit: Callable[[], None], rollback: Callable[[], None]) -> None:
    """Call `commit` after the session's transaction is committed, or `rollback` after it is rolled back.

    If a COMMIT fails, neither is called: the database may have committed, and only the answer is lost.
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
    # The session was rolled back, or closed without a commit. After the rollback of a savepoint alone the message is
    # sent all the same; its worker finds no row and drops it.
    if transaction.parent is None:
        is_uncertain = session.info.pop(_IS_COMMITTING, False)
        for _, forget in _emptied(session):
            if not is_uncertain:
                forget()


def _emptied(session: Session) -> list[tuple[Callable[[], None], Callable[[], None]]]:
    outbox: list[tuple[Callable[[], None], Callable[[], None]]] = session.info[_OUTBOX]
    session.info[_OUTBOX] = []
    return outbox
