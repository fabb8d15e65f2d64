"""Accept work: stage, record, send. A failed step undoes the steps before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dream.blocking import warn_on_loop
from dream.errors import AcceptanceUnknown, DatabaseUnavailable, DreamError, SettingsError
from dream.fault_points import step
from dream.log import get_logger
from dream.messages.arguments import (
    EncodedFile,
    ImageFile,
    UrlToDelete,
    check_deletion,
    check_focus,
    check_inline,
    check_priority,
    check_upload,
)
from dream.messages.registry import DELETE_IMAGES, PROCESS_IMAGES
from dream.messages.users import UserId, check_owner, user_number
from dream.observe import tracing
from dream.producer.backlog import check_backlog, check_quota
from dream.producer.listing import ImageList, list_images, stored_image
from dream.producer.orders import AT_ONCE, Delivery, Order, crops_anew
from dream.producer.outbox import check_session, follow
from dream.producer.recording import Recorder
from dream.runs.connections import Connections

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dream.db import Database, DreamImage, DreamTask
    from dream.settings import Settings
    from dream.storage import Storage
    from dream.work.broker import AnyBroker

__all__ = ["Producer"]

log = get_logger(__name__)


class Producer:
    """Accepts work for the workers. One a process; safe to use from several threads.

    Parameters:
      settings: where the servers are, and the limits of uploads.
      connections: those of the process, which closes them; by default the producer makes its own.
    """

    def __init__(self, settings: Settings, connections: Connections | None = None) -> None:
        self.settings = settings
        self.connections = connections or Connections(settings)
        self._closes_connections = connections is None

    @property
    def database(self) -> Database:
        """The database of its rows."""
        return self.connections.database

    @property
    def storage(self) -> Storage:
        """The object store."""
        return self.connections.storage

    @property
    def broker(self) -> AnyBroker:
        """The broker for its messages."""
        return self.connections.broker

    @property
    def _recorder(self) -> Recorder:
        return Recorder(self.settings, self.database)

    def close(self) -> None:
        """Close the connections that it made."""
        if self._closes_connections:
            self.connections.close()

    def upload_images(
        self,
        dream_id: int,
        image_files: Sequence[ImageFile],
        positions: Sequence[int] | None = None,
        *,
        session: Session | None = None,
        task_id: str | None = None,
        delivery: Delivery = AT_ONCE,
        user_id: UserId | None = None,
        priority: int | None = None,
    ) -> str:
        """Accept pictures for processing.

        Parameters:
          dream_id: the dream they belong to; its row need not be visible yet.
          image_files: each `{"name": str, "data": bytes}`, and `"focus": [x, y]` for the point that crops keep.
          positions: offset of each in the dream's text; by default 0.
          session: the caller's SQLAlchemy session: the rows join its transaction, the message is sent after its commit.
          task_id: the id to use, a new one by default; if a task of that id exists, the call changes nothing.
          delivery: when and how the message is sent.
          user_id: the uploader as for `set_owner`, if known: the limit of waiting pictures counts per user, and users
            take turns. Without it, dreams take turns.
          priority: 0 (bulk) to 9 (first), 5 by default; on Redis only.

        Returns:
          The task's id.

        Raises:
          InvalidArguments: the arguments are wrong.
          TooManyPending: too many pictures wait already.
          QuotaExceeded: the user's space is full.
          ObjectStoreUnavailable, AccessDenied, BucketMissing: nothing was accepted.
          DatabaseUnavailable: nothing was accepted; the caller must roll back the transaction of a `session`.
          AcceptanceUnknown: the answer to a COMMIT was lost, and the database is away.
        """
        check_session(session)
        delivery = _with_priority(delivery, priority)
        with tracing.span("upload_images"):
            order = self.order_upload(
                dream_id, image_files, positions, task_id=task_id, delivery=delivery, user_id=user_id
            )
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
        user_id: UserId | None = None,
        priority: int | None = None,
    ) -> str:
        """Accept the deletion of pictures; from the commit on they are gone for every reader.

        Parameters:
          dream_id: the dream they belong to.
          image_urls: each `{"id": int, "url": str}`; the URL (or key) names the picture, and the result echoes the id.
          username: the owner's name, if each user has a bucket.
          session: as for `upload_images`.
          task_id: as for `upload_images`.
          delivery: as for `upload_images`.
          priority: as for `upload_images`.
          user_id: as for `upload_images`; with another one or another priority, a deletion may run before the dream's
            uploads.

        Returns:
          The task's id.

        Raises:
          InvalidArguments: the arguments are wrong.
          DatabaseUnavailable, AcceptanceUnknown: as for `upload_images`.
        """
        check_session(session)
        delivery = replace(
            _with_priority(delivery, priority), user_id=None if user_id is None else user_number(user_id)
        )
        with tracing.span("delete_images"):
            order = self.order_deletion(dream_id, image_urls, username, task_id=task_id, delivery=delivery)
            self.accept(order, session)
        return order.task_id

    def list_images(
        self,
        dream_id: int,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        order: str = "position",
        states: Iterable[str] | None = None,
    ) -> ImageList:
        """List a dream's pictures, without pictures that are being deleted.

        Parameters:
          dream_id: the dream.
          limit: the largest number of pictures on a page; all by default.
          cursor: the `next_cursor` of the page before, in the same order.
          order: `position`, the order of the dream's text, or `newest`, the newest first.
          states: only pictures in these states: `pending`, `processing`, `completed`, `failed`.

        Returns:
          The pictures, each with the fields that REST gives; `next_cursor` of the list is None on the last page.

        Raises:
          InvalidArguments: the arguments are wrong.
          DatabaseUnavailable: nothing was read.
        """
        warn_on_loop("list_images")
        return list_images(self.database, dream_id, limit, cursor, order, states)

    def original_url(self, dream_id: int, image_id: int) -> str | None:
        """The URL under which a browser saves an uploaded file as it came (`DREAM_KEEP_ORIGINALS`).

        Everybody who has the URL may use it for `DREAM_PRESIGN_TTL_S`: give it only to the owner of the dream.

        Returns:
          The URL; None if the picture is not in the dream or not stored, or if its original was not kept.

        Raises:
          InvalidArguments: the arguments are wrong.
          DatabaseUnavailable, AccessDenied
        """
        warn_on_loop("original_url")
        image = stored_image(self.database, dream_id, image_id)
        return self.storage.original_url(image) if image is not None and image.original_key else None

    @step("submit")
    def submit(self, name: str, args: Sequence[Any], *, task_id: str, delivery: Delivery = AT_ONCE) -> bool:
        """Record and send any of dream's own tasks; False if a task of that id exists already.

        Raises:
          DatabaseUnavailable, AcceptanceUnknown: as for `upload_images`.
        """
        return self.accept(Order(task_id, name, list(args), delivery))

    def send_again(self, task: DreamTask) -> None:
        """Send a task that is recorded already; if the broker is away, the sweep sends it later."""
        self._send(Order(task.id, task.name, list(task.args), Delivery(queue=task.queue)))

    def set_owner(self, dream_id: int, user_id: UserId, username: str = "", *, session: Session | None = None) -> None:
        """Register the owner of a dream in dream's own table; a later call changes it.

        Parameters:
          user_id: a number, a text of 1 to 255 characters or a UUID, as tokens name the user.
          username: the owner's name, which names the bucket if each user has one.
          session: as for `upload_images`.

        Raises:
          InvalidArguments: the arguments are wrong.
          SettingsError: `DREAM_OWNERS_SQL` is set, so the owner is in the application's tables.
          DatabaseUnavailable: nothing was written; roll back the transaction of a `session`.
        """
        warn_on_loop("set_owner")
        check_session(session)
        check_owner(dream_id, user_id, username)
        if self.settings.owners_sql:
            raise SettingsError("DREAM_OWNERS_SQL is set: a dream's owner is in a table of yours; change it there")
        self._recorder.record_owner(session, dream_id, user_id, username)

    # --- steps

    def order_upload(
        self,
        dream_id: int,
        image_files: Sequence[ImageFile],
        positions: Sequence[int] | None = None,
        *,
        task_id: str | None = None,
        delivery: Delivery = AT_ONCE,
        user_id: UserId | None = None,
    ) -> Order:
        """Check an upload and stage its bytes; `accept` does the rest. Arguments and errors as of `upload_images`."""
        warn_on_loop("upload_images")
        offsets = check_upload(self.settings, dream_id, image_files, positions)
        tracing.note(dream_id=dream_id, files=len(offsets))
        user = None if user_id is None else user_number(user_id)
        check_backlog(self.settings, self.database, len(offsets), dream_id, user)
        sizes = self._checked_sizes(image_files, user)
        task_id = task_id or str(uuid4())
        files = self.connections.staging.put_all(image_files)
        rows = self.image_rows(dream_id, task_id, files, offsets, user)
        for row, size_bytes in zip(rows, sizes, strict=False):
            row.original_bytes = row.stored_bytes = size_bytes
        delivery = replace(delivery, user_id=user)
        return Order(task_id, PROCESS_IMAGES, [dream_id, files, offsets], delivery, rows)

    def _checked_sizes(self, image_files: Sequence[ImageFile], user_id: int | None) -> list[int]:
        """The size of each file, which counts until the picture is done; empty if its user has no quota.

        Raises:
          QuotaExceeded: the files do not fit.
        """
        if user_id is None or not self.settings.max_stored_bytes_per_user:
            return []
        sizes = [memoryview(file["data"]).nbytes for file in image_files]
        check_quota(self.settings, self.database, sum(sizes), user_id)
        return sizes

    def order_strangers(self, task_id: str, dream_id: int, encoded_files: Any, positions: Any) -> Order:
        """Stage the base64 bytes in an upload's message from another sender; return the order.

        Raises:
          InvalidArguments: the message is wrong; nothing was stored.
          DreamError: the bytes could not be stored.
        """
        inline, offsets = check_inline(self.settings, dream_id, encoded_files, positions)
        staged = dict(zip(inline, self.connections.staging.put_all(list(inline.values())), strict=True))
        files = [staged.get(index, file) for index, file in enumerate(encoded_files)]
        rows = self.image_rows(dream_id, task_id, files, offsets)
        return Order(task_id, PROCESS_IMAGES, [dream_id, files, offsets], AT_ONCE, rows)

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
        tracing.note(dream_id=dream_id, files=len(wanted))
        return Order(task_id or str(uuid4()), DELETE_IMAGES, [dream_id, wanted, username or ""], delivery)

    def accept(self, order: Order, session: Session | None = None) -> bool:
        """Write an order's rows and send its message; False if a task of that id exists.

        Raises:
          DatabaseUnavailable, AcceptanceUnknown: as for `upload_images`.
        """
        if session is None:
            return self.accept_all([order])[0]
        try:
            is_new = self._recorder.record_within(session, order)
        except DatabaseUnavailable:
            self.connections.staging.discard(order.staged)
            raise
        if is_new:
            follow(
                session,
                commit=partial(self._send, order),
                rollback=partial(self.connections.staging.discard, order.staged),
            )
        else:
            self._forget(order)
        return is_new

    def accept_crops(self, image: DreamImage, session: Session) -> None:
        """Have a stored picture's crops made around the focal point that its row has in this session, if they are not.

        Raises:
          DatabaseUnavailable: the caller must roll back the transaction.
        """
        for order in crops_anew(image):
            self.accept(order, session)

    def accept_all(self, orders: Sequence[Order]) -> list[bool]:
        """Accept many orders in one transaction: all of them, or none.

        Returns:
          For each order whether it is new.
        """
        first = {order.task_id: order for order in reversed(orders)}
        try:
            new = self._recorder.record(list(first.values()))
        except AcceptanceUnknown:
            raise  # rows that were written need their bytes; without rows, the nightly sweep removes the bytes
        except Exception:
            self.connections.staging.discard([key for order in orders for key in order.staged])
            raise
        accepted = [order.task_id in new and first[order.task_id] is order for order in orders]
        for order, is_new in zip(orders, accepted, strict=True):
            if is_new:
                self._send(order)
            else:
                self._forget(order)
        return accepted

    def _forget(self, order: Order) -> None:
        self.connections.staging.discard(order.staged)
        log.info("task_exists", task_id=order.task_id)

    def image_rows(
        self,
        dream_id: int,
        task_id: str,
        files: Sequence[EncodedFile],
        offsets: Sequence[int],
        user_id: int | None = None,
    ) -> list[DreamImage]:
        """The pending rows of staged files, with fixed keys."""
        from dream.db import DreamImage
        from dream.storage import new_key_stem

        bucket = None if self.settings.is_bucket_per_user else self.settings.s3_bucket
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
                focus=check_focus(file.get("focus"), "focus"),
            )
            for index, (file, position) in enumerate(zip(files, offsets, strict=True))
        ]

    @step("enqueue")
    def _send(self, order: Order) -> None:
        from dream.runs.sending import message_of
        from dream.work.broker import send

        log.info("task_accepted", task_id=order.task_id, task=order.name, files=len(order.rows))
        if not order.delivery.is_sent:
            return
        delivery = order.delivery
        how: Any = {"queue": delivery.queue, "priority": delivery.priority, "user_id": delivery.user_id}
        message = message_of(self.settings, order.task_id, order.name, order.args, **how)
        try:
            send(self.broker, message, delivery.due_in_s)
        except DreamError as error:
            # Away, or set up wrongly. The rows are committed, so the task is accepted, and the sweep sends it.
            log.warning(
                "message_deferred",
                task_id=order.task_id,
                error=str(error),
                do="nothing for this task: it is accepted, and the scheduler sends it once the broker is back",
            )


def _with_priority(delivery: Delivery, priority: int | None) -> Delivery:
    """The delivery with this priority, if one is given.

    Raises:
      InvalidArguments: it is no integer from 0 to 9.
    """
    check_priority(priority)
    return delivery if priority is None else replace(delivery, priority=priority)
