"""An order's rows: written in a transaction of their own or the caller's; looked up where a COMMIT went unanswered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dream.errors import AcceptanceUnknown, DatabaseUnavailable
from dream.fault_points import step
from dream.log import get_logger
from dream.messages import DELETE_IMAGES
from dream.producer.delivery import Delivery

if TYPE_CHECKING:
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.orm import Session

    from dream.db import Database, DreamImage
    from dream.settings import Settings

__all__ = ["Order", "Recorder"]

log = get_logger(__name__)


@dataclass(frozen=True)
class Order:
    """A task on its way into the database and onto a queue."""

    task_id: str
    name: str
    args: list[Any]
    delivery: Delivery


class Recorder:
    """Writes orders down.

    Parameters:
      settings: how URLs name pictures.
      database: where to.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database

    def record(self, order: Order, rows: Sequence[DreamImage]) -> bool:
        """Write the task and its pictures; False where a task of that id exists, whose rows stay as they are.

        Raises:
          DatabaseUnavailable: nothing was written.
          AcceptanceUnknown: it may be written.
        """
        return self._committed(order, lambda session: self._write(session, order, rows))

    def record_task(self, order: Order) -> bool:
        """As `record`, for a task without pictures."""
        return self._committed(order, lambda session: _add(session, order))

    def _committed(self, order: Order, write: Callable[[Session], None]) -> bool:
        from sqlalchemy.exc import IntegrityError, SQLAlchemyError

        is_at_commit = False
        try:
            with self._database.begin() as session:
                write(session)
                is_at_commit = True
        except IntegrityError as error:
            if self._is_recorded(order.task_id):
                return False
            raise DatabaseUnavailable(f"nothing was accepted: {_said(error)}") from error
        except SQLAlchemyError as error:
            is_recorded = self._is_recorded(order.task_id) if is_at_commit else False
            if is_recorded is None:
                raise AcceptanceUnknown(f"it is not known whether this was accepted: {_said(error)}") from error
            if not is_recorded:
                raise DatabaseUnavailable(f"nothing was accepted: {_said(error)}") from error
            log.warning("commit_answer_lost", task_id=order.task_id)
        return True

    def record_within(self, session: Session, order: Order, rows: Sequence[DreamImage]) -> bool:
        """As `record`, in the caller's transaction.

        Raises:
          DatabaseUnavailable: the transaction is to be rolled back.
        """
        from sqlalchemy.exc import SQLAlchemyError

        from dream.db import DreamTask

        try:
            # Asked for first: to meet a row that exists would spoil the caller's transaction.
            if session.get(DreamTask, order.task_id) is not None:
                return False
            self._write(session, order, rows)
        except SQLAlchemyError as error:
            raise DatabaseUnavailable(f"nothing was accepted; roll back: {_said(error)}") from error
        return True

    @step("record")
    def _write(self, session: Session, order: Order, rows: Sequence[DreamImage]) -> None:
        from dream.db import images
        from dream.targets import resolve

        _add(session, order)
        session.add_all(rows)
        # A deletion that may expire hides nothing before it runs.
        if order.name == DELETE_IMAGES and order.delivery.expires_in_s is None:
            targets = resolve(session, self._settings, *order.args)
            images.mark_deleting(session, [target.image.id for target in targets if target.image])
        session.flush()

    def _is_recorded(self, task_id: str) -> bool | None:
        """Whether a commit took place though its answer was lost; None where that cannot be known."""
        from sqlalchemy.exc import SQLAlchemyError

        from dream.db import DreamTask

        is_recorded = None
        # Known once it is read, whatever becomes of the connection after that.
        with suppress(SQLAlchemyError), self._database.read() as session:
            is_recorded = session.get(DreamTask, task_id) is not None
        return is_recorded


def _add(session: Session, order: Order) -> None:
    from dream.db import tasks

    delivery = order.delivery
    when = delivery.due_in_s, delivery.expires_in_s
    tasks.add(session, order.task_id, order.name, order.args, *when, delivery.queue)
    session.flush()


def _said(error: SQLAlchemyError) -> str:
    """What the database said, in a line."""
    return str(getattr(error, "orig", None) or error).splitlines()[0]
