"""Write the rows of orders in one transaction, dream's or the caller's; look them up if a COMMIT's answer is lost."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from dream.errors import AcceptanceUnknown, DatabaseUnavailable, InvalidArguments, UploadUnknown
from dream.fault_points import step
from dream.log import get_logger
from dream.messages.registry import DELETE_IMAGES

if TYPE_CHECKING:
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.orm import Session

    from dream.db import Database
    from dream.messages.users import UserId
    from dream.producer.orders import Order
    from dream.settings import Settings

__all__ = ["Recorder"]

log = get_logger(__name__)


class Recorder:
    """Writes orders down.

    Parameters:
      settings: the form of URLs.
      database: gets the rows.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database

    def record(self, orders: Sequence[Order]) -> set[str]:
        """Write all tasks and their pictures, or none. A task whose id exists keeps its rows.

        Parameters:
          orders: each with an id of its own.

        Returns:
          The ids of the new tasks.

        Raises:
          InvalidArguments: the database cannot hold a value; nothing was written.
          DatabaseUnavailable: nothing was written.
          AcceptanceUnknown: the rows may be written.
          UploadUnknown: another completion of a direct upload was first, or its time is over; nothing was written.
        """
        from sqlalchemy.exc import IntegrityError

        new = {order.task_id: order for order in orders}
        while new:
            try:
                self._commit(list(new.values()))
                break
            except IntegrityError as error:
                recorded = self._recorded(new) or set()
                if not recorded:
                    raise _failed("nothing was accepted", error) from error
                for task_id in recorded:
                    del new[task_id]
        return set(new)

    def _commit(self, orders: Sequence[Order]) -> None:
        from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

        is_at_commit = False
        try:
            with self._database.begin() as session:
                self._write(session, orders)
                is_at_commit = True
        except IntegrityError:
            raise
        except DataError as error:
            raise InvalidArguments(f"the database cannot hold it: {_said(error)}") from error
        except SQLAlchemyError as error:
            recorded = self._recorded([orders[0].task_id]) if is_at_commit else set()
            if recorded is None:
                raise AcceptanceUnknown(f"it is not known whether this was accepted: {_said(error)}") from error
            if not recorded:
                raise _failed("nothing was accepted", error) from error
            log.warning("commit_answer_lost", task_id=orders[0].task_id, tasks=len(orders))

    def record_within(self, session: Session, order: Order) -> bool:
        """Record one order in the caller's transaction; return False if a task of that id exists.

        Raises:
          DatabaseUnavailable: the caller must roll back the transaction.
        """
        from sqlalchemy.exc import SQLAlchemyError

        from dream.db import DreamTask
        from dream.db.session import in_our_schema

        try:
            with in_our_schema(session, self._settings.database_schema):
                # Look first: an insert that meets an existing row would spoil the caller's transaction.
                if session.get(DreamTask, order.task_id) is not None:
                    return False
                self._write(session, [order])
        except SQLAlchemyError as error:
            raise _failed("nothing was accepted; roll back", error) from error
        return True

    def record_owner(self, session: Session | None, dream_id: int, user_id: UserId, username: str) -> None:
        """Record the owner of a dream, in a transaction of its own or in the caller's.

        Raises:
          DatabaseUnavailable
        """
        from dream.db.dreams import give_to
        from dream.db.faults import explained
        from dream.db.session import in_our_schema

        with explained():
            if session is not None:
                with in_our_schema(session, self._settings.database_schema):
                    give_to(session, dream_id, user_id, username)
                return
            with self._database.begin() as own:
                give_to(own, dream_id, user_id, username)

    def _write(self, session: Session, orders: Sequence[Order]) -> None:
        from dream.db import tasks, uploads

        for order in orders:
            # Of two completions one deletes the row; the sweep may be first, too, and then the bytes are gone.
            if order.is_direct and not uploads.close(session, order.task_id):
                raise UploadUnknown
            delivery = order.delivery
            when = delivery.due_in_s, delivery.expires_in_s
            tasks.add(session, order.task_id, order.name, order.args, *when, delivery.queue, order.receipt)
        session.flush()
        if with_pictures := [order for order in orders if order.rows or order.name == DELETE_IMAGES]:
            self._write_pictures(session, with_pictures)

    @step("record")
    def _write_pictures(self, session: Session, orders: Sequence[Order]) -> None:
        from dream.db import images
        from dream.runs.targets import resolve_all

        session.add_all([row for order in orders for row in order.rows])
        # A deletion with an expiry hides no picture before it runs.
        deletions = [
            (order.args[0], order.args[1], order.args[2])
            for order in orders
            if order.name == DELETE_IMAGES and order.delivery.expires_in_s is None
        ]
        found = resolve_all(session, self._settings, deletions)
        images.mark_deleting(session, {each.image.id for targets in found for each in targets if each.image})
        session.flush()

    def _recorded(self, task_ids: Collection[str]) -> set[str] | None:
        """The tasks that exist after the answer to a COMMIT was lost; None if the database is away."""
        from sqlalchemy import select
        from sqlalchemy.exc import SQLAlchemyError

        from dream.db import DreamTask

        recorded = None
        # Read inside the block: the answer counts even if the connection fails afterwards.
        with suppress(SQLAlchemyError), self._database.read() as session:
            recorded = set(session.scalars(select(DreamTask.id).where(DreamTask.id.in_(list(task_ids)))))
        return recorded


def _failed(what: str, error: SQLAlchemyError) -> DatabaseUnavailable:
    from dream.db.faults import explain

    return explain(error, what)


def _said(error: SQLAlchemyError) -> str:
    from dream.db.faults import words_of

    return words_of(error)
