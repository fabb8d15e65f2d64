"""How work is accepted: stage, record, send. Each step is undone where a later one fails."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dream.arguments import check_deletion, check_owner, check_upload
from dream.blocking import warn_on_loop
from dream.errors import AcceptanceUnknown, DatabaseUnavailable, DreamError, SettingsError
from dream.fault_points import step
from dream.log import get_logger
from dream.messages import DELETE_IMAGES, PROCESS_IMAGES, EncodedFile, ImageFile, UrlToDelete
from dream.producer.backlog import check_backlog
from dream.producer.connections import Connections
from dream.producer.delivery import AT_ONCE, Delivery
from dream.producer.listing import ImageList, list_images
from dream.producer.outbox import check_session, follow
from dream.producer.recording import Order, Recorder
from dream.producer.staging import Staging

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dream.db import DreamImage, DreamTask

__all__ = ["Producer"]

log = get_logger(__name__)


class Producer(Connections):
    """Accepts work for the workers. One a process; safe to use from several threads.

    Parameters:
      settings: where the servers are, and what is accepted.
      database, storage, broker: see `Connections`.
    """

    @cached_property
    def _recorder(self) -> Recorder:
        return Recorder(self._settings, self.database)

    @cached_property
    def staging(self) -> Staging:
        return Staging(self.staging_area)

    def upload_images(
        self,
        dream_id: int,
        image_files: Sequence[ImageFile],
        positions: Sequence[int] | None = None,
        *,
        session: Session | None = None,
        task_id: str | None = None,
        delivery: Delivery = AT_ONCE,
        user_id: int | None = None,
    ) -> str:
        """Accept pictures for processing.

        Parameters:
          dream_id: the dream they belong to; its row need not be visible yet.
          image_files: each `{"name": str, "data": bytes}`.
          positions: offset of each in the dream's text; 0 where not given.
          session: the caller's SQLAlchemy session: the rows join its transaction, the message follows its commit.
          task_id: the id to use, a new one by default; where a task of that id exists, nothing else is accepted.
          delivery: when and how it is sent.
          user_id: who uploads, where that is known; their waiting pictures are counted.

        Returns:
          The task's id.

        Raises:
          InvalidArguments: the arguments are wrong.
          TooManyPending: as many pictures wait as may.
          ObjectStoreUnavailable, AccessDenied, BucketMissing: nothing was accepted.
          DatabaseUnavailable: nothing was accepted; the transaction of a `session` is to be rolled back.
          AcceptanceUnknown: a COMMIT went unanswered, and the database cannot be asked.
        """
        check_session(session)
        order = self.order_upload(dream_id, image_files, positions, task_id=task_id, delivery=delivery, user_id=user_id)
        self.accept(order, session)
        return order.task_id

    def delete_images(
        self,
        dream_id: int,
        image_urls: Sequence[UrlToDelete],
        username: str,
        *,
        session: Session | None = None,
        task_id: str | None = None,
        delivery: Delivery = AT_ONCE,
    ) -> str:
        """Accept the deletion of pictures; from the commit on they are gone for every reader.

        Parameters:
          dream_id: the dream they belong to.
          image_urls: each `{"id": int, "url": str}`; the URL (or key) names the picture, the id is echoed.
          username: the owner, for objects in a bucket per user.
          session, task_id, delivery: as for `upload_images`.

        Returns:
          The task's id.

        Raises:
          InvalidArguments: the arguments are wrong.
          DatabaseUnavailable, AcceptanceUnknown: as for `upload_images`.
        """
        check_session(session)
        order = self.order_deletion(dream_id, image_urls, username, task_id=task_id, delivery=delivery)
        self.accept(order, session)
        return order.task_id

    def list_images(self, dream_id: int, *, limit: int | None = None, cursor: str | None = None) -> ImageList:
        """List a dream's pictures in the order of its text; those being deleted are not among them.

        Parameters:
          dream_id: the dream.
          limit: the most pictures of one page; all by default.
          cursor: the `next_cursor` of the page before.

        Returns:
          The pictures, each with the fields that REST gives; `next_cursor` of the list is None on the last page.

        Raises:
          InvalidArguments: the arguments are wrong.
          DatabaseUnavailable
        """
        warn_on_loop("list_images")
        return list_images(self.database, dream_id, limit, cursor)

    @step("submit")
    def submit(self, name: str, args: Sequence[Any], *, task_id: str, delivery: Delivery = AT_ONCE) -> bool:
        """Record and send any task of ours; False where a task of that id exists already.

        Raises:
          DatabaseUnavailable, AcceptanceUnknown: as for `upload_images`.
        """
        return self.accept(Order(task_id, name, list(args), delivery))

    def send_again(self, task: DreamTask) -> None:
        """Send a task that is recorded already; where the broker is away, the sweep does."""
        self._send(Order(task.id, task.name, list(task.args), Delivery(queue=task.queue)))

    # --- steps

    def set_owner(self, dream_id: int, user_id: int, username: str = "", *, session: Session | None = None) -> None:
        """Register the owner of a dream in dream's own table; a later call changes it.

        Parameters:
          username: the owner's name; where there is a bucket per user, it names the bucket.
          session: as for `upload_images`.

        Raises:
          InvalidArguments: the arguments are wrong.
          SettingsError: `DREAM_OWNERS_SQL` is set, so the owner is in the application's tables.
          DatabaseUnavailable: nothing was written; roll back the transaction of a `session`.
        """
        warn_on_loop("set_owner")
        check_session(session)
        check_owner(dream_id, user_id, username)
        if self._settings.owners_sql:
            raise SettingsError("DREAM_OWNERS_SQL is set: a dream's owner is in a table of yours; change it there")
        self._recorder.record_owner(session, dream_id, user_id, username)

    def order_upload(
        self,
        dream_id: int,
        image_files: Sequence[ImageFile],
        positions: Sequence[int] | None = None,
        *,
        task_id: str | None = None,
        delivery: Delivery = AT_ONCE,
        user_id: int | None = None,
    ) -> Order:
        """Check an upload and stage its bytes; `accept` does the rest. Arguments and errors as of `upload_images`."""
        warn_on_loop("upload_images")
        offsets = check_upload(self._settings, dream_id, image_files, positions)
        check_backlog(self._settings, self.database, len(offsets), dream_id, user_id)
        task_id = task_id or str(uuid4())
        encoded = self.staging.put(image_files)
        rows = self.image_rows(dream_id, task_id, encoded, offsets, user_id)
        return Order(task_id, PROCESS_IMAGES, [dream_id, encoded, offsets], delivery, rows)

    def order_deletion(
        self,
        dream_id: int,
        image_urls: Sequence[UrlToDelete],
        username: str,
        *,
        task_id: str | None = None,
        delivery: Delivery = AT_ONCE,
    ) -> Order:
        """Check a deletion; `accept` does the rest. Arguments and errors as of `delete_images`."""
        warn_on_loop("delete_images")
        wanted = check_deletion(dream_id, image_urls, username)
        return Order(task_id or str(uuid4()), DELETE_IMAGES, [dream_id, wanted, username or ""], delivery)

    def accept(self, order: Order, session: Session | None = None) -> bool:
        """Write an order's rows and send its message; False where a task of that id exists.

        Raises:
          DatabaseUnavailable, AcceptanceUnknown: as for `upload_images`.
        """
        if session is None:
            return self.accept_all([order])[0]
        try:
            is_new = self._recorder.record_within(session, order)
        except DatabaseUnavailable:
            self.staging.remove(order.staged)
            raise
        if is_new:
            follow(session, commit=partial(self._send, order), rollback=partial(self.staging.remove, order.staged))
        else:
            self._forget(order)
        return is_new

    def accept_all(self, orders: Sequence[Order]) -> list[bool]:
        """As `accept`, many in one transaction: all of them, or none.

        Returns:
          For each whether it is new.
        """
        first = {order.task_id: order for order in reversed(orders)}
        try:
            new = self._recorder.record(list(first.values()))
        except AcceptanceUnknown:
            raise  # the rows may be there and need their bytes; where they are not, the nightly sweep takes those
        except Exception:
            self.staging.remove([key for order in orders for key in order.staged])
            raise
        accepted = [order.task_id in new and first[order.task_id] is order for order in orders]
        for order, is_new in zip(orders, accepted, strict=True):
            if is_new:
                self._send(order)
            else:
                self._forget(order)
        return accepted

    def _forget(self, order: Order) -> None:
        self.staging.remove(order.staged)
        log.info("task_exists", task_id=order.task_id)

    def image_rows(
        self,
        dream_id: int,
        task_id: str,
        encoded: Sequence[EncodedFile],
        offsets: Sequence[int],
        user_id: int | None = None,
    ) -> list[DreamImage]:
        """The rows of staged files, pending, with their keys fixed."""
        from dream.db import DreamImage
        from dream.storage import new_key_stem

        bucket = None if self._settings.is_bucket_per_user else self._settings.s3_bucket
        return [
            DreamImage(
                dream_id=dream_id,
                user_id=user_id,
                task_id=task_id,
                index=index,
                position=position,
                filename=file["name"],
                bucket=bucket,
                storage_key=new_key_stem(),
                staging_key=file["staged"],
            )
            for index, (file, position) in enumerate(zip(encoded, offsets, strict=True))
        ]

    @step("enqueue")
    def _send(self, order: Order) -> None:
        from dream.broker import message_of, send

        log.info("task_accepted", task_id=order.task_id, task=order.name, files=len(order.rows))
        if not order.delivery.is_sent:
            return
        message = message_of(self._settings, order.task_id, order.name, order.args, queue=order.delivery.queue)
        try:
            send(self.broker, message, order.delivery.due_in_s)
        except DreamError as error:
            # Away, or set up wrongly: the rows are committed, so the task is accepted, and the sweep sends it.
            log.warning(
                "message_deferred",
                task_id=order.task_id,
                error=str(error),
                do="nothing for this task: it is accepted, and the scheduler sends it once the broker is back",
            )
