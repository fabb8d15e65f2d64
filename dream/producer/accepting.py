"""How work is accepted: stage, record, send. Each step is undone where a later one fails."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dream.arguments import check_deletion, check_upload
from dream.errors import AcceptanceUnknown, DatabaseUnavailable, DreamError
from dream.fault_points import step
from dream.log import get_logger
from dream.messages import DELETE_IMAGES, PROCESS_IMAGES, EncodedFile, ImageFile, UrlToDelete
from dream.producer.backlog import check_backlog
from dream.producer.delivery import AT_ONCE, Delivery
from dream.producer.outbox import check_session, follow
from dream.producer.recording import Order, Recorder
from dream.producer.staging import Staging

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dream.broker import AnyBroker
    from dream.db import Database, DreamImage, DreamTask
    from dream.results import ResultStore
    from dream.settings import Settings
    from dream.storage import StagingArea, Storage

__all__ = ["Producer"]

log = get_logger(__name__)


class Producer:
    """Accepts work for the workers. One a process; safe to use from several threads.

    Parameters:
      settings: where the servers are, and what is accepted.
      database, storage, broker: those of the process, where it has them already.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database | None = None,
        storage: Storage | None = None,
        broker: AnyBroker | None = None,
    ) -> None:
        self._settings = settings
        given = {"database": database, "storage": storage, "broker": broker}
        self.__dict__.update({name: part for name, part in given.items() if part is not None})

    @cached_property
    def database(self) -> Database:
        from dream.db import Database

        return Database(self._settings)

    @cached_property
    def storage(self) -> Storage:
        from dream.storage import Storage

        return Storage(self._settings)

    @cached_property
    def results(self) -> ResultStore:
        """Where results are kept in Celery's form."""
        from dream.results import ResultStore

        return ResultStore(self._settings)

    @cached_property
    def _recorder(self) -> Recorder:
        return Recorder(self._settings, self.database)

    @cached_property
    def staging_area(self) -> StagingArea:
        from dream.storage import StagingArea

        return StagingArea(self._settings, self.storage)

    @cached_property
    def staging(self) -> Staging:
        return Staging(self.staging_area)

    @cached_property
    def broker(self) -> AnyBroker:
        from dream.broker import make_broker

        return make_broker(self._settings)

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
        offsets = check_upload(self._settings, dream_id, image_files, positions)
        check_backlog(self._settings, self.database, len(offsets), dream_id, user_id)
        task_id = task_id or str(uuid4())
        encoded = self.staging.put(image_files)
        rows = self.image_rows(dream_id, task_id, encoded, offsets, user_id)
        staged = [file["staged"] for file in encoded]
        order = Order(task_id, PROCESS_IMAGES, [dream_id, encoded, offsets], delivery)
        if self._accept(order, rows, staged, session):
            log.info("upload_accepted", task_id=task_id, dream_id=dream_id, files=len(encoded))
        return task_id

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
        wanted = check_deletion(dream_id, image_urls, username)
        task_id = task_id or str(uuid4())
        order = Order(task_id, DELETE_IMAGES, [dream_id, wanted, username or ""], delivery)
        if self._accept(order, [], [], session):
            log.info("deletion_accepted", task_id=task_id, dream_id=dream_id, images=len(wanted))
        return task_id

    @step("submit")
    def submit(self, name: str, args: Sequence[Any], *, task_id: str, delivery: Delivery = AT_ONCE) -> bool:
        """Record and send any task of ours; False where a task of that id exists already.

        Raises:
          DatabaseUnavailable, AcceptanceUnknown: as for `upload_images`.
        """
        order = Order(task_id, name, list(args), delivery)
        is_new = self._recorder.record_task(order)
        if is_new:
            self._send(order)
        return is_new

    def send_again(self, task: DreamTask) -> None:
        """Send a task that is recorded already; where the broker is away, the sweep does."""
        self._send(Order(task.id, task.name, list(task.args), Delivery(queue=task.queue)))

    # --- steps

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

    def _accept(self, order: Order, rows: Sequence[DreamImage], staged: Sequence[str], session: Session | None) -> bool:
        """Write the rows and send the message; False where a task of that id exists."""
        try:
            if session is not None:
                is_new = self._recorder.record_within(session, order, rows)
            else:
                is_new = self._recorder.record(order, rows)
        except AcceptanceUnknown:
            raise  # the rows may be there and need their bytes; where they are not, the nightly sweep takes those
        except DatabaseUnavailable:
            self.staging.remove(staged)
            raise
        if not is_new:
            self.staging.remove(staged)
            log.info("task_exists", task_id=order.task_id)
        elif session is not None:
            follow(session, commit=partial(self._send, order), rollback=partial(self.staging.remove, staged))
        else:
            self._send(order)
        return is_new

    @step("enqueue")
    def _send(self, order: Order) -> None:
        from dream.broker import message_of, send

        if not order.delivery.is_sent:
            return
        message = message_of(self._settings, order.task_id, order.name, order.args, queue=order.delivery.queue)
        try:
            send(self.broker, message, order.delivery.due_in_s)
        except DreamError as error:
            # Away, or set up wrongly: the rows are committed, so the task is accepted, and the sweep sends it.
            log.warning("message_deferred", task_id=order.task_id, error=str(error))
