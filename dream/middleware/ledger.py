"""What came of a run, written into its task's row; then the dream is told.

run ─► succeeded: the result                ─► told
    ├─► handed back: free for the next run
    ├─► tried again: attempts and due time  ─► told, then the message goes out again
    └─► failed: the reason                  ─► told
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dramatiq import MessageProxy
from sqlalchemy.orm import Session

from dream import outcomes
from dream.db import images, tasks
from dream.db.tasks import Claim
from dream.errors import LeaseLost
from dream.fault_points import step
from dream.log import get_logger
from dream.messages import DELIVERY_ID, PROCESS_IMAGES, ImageState, ImageUpdate, TaskState, UpdateStatus, delivery_id
from dream.middleware.run import attached, class_of, end, full_reason_of, reason_of
from dream.results import ResultStore

if TYPE_CHECKING:
    from dream.db import Database
    from dream.notifications import Publisher
    from dream.settings import Settings

__all__ = ["RowLedger"]

log = get_logger(__name__)


class RowLedger:
    """See the module; the ledger of `Retries`.

    Parameters:
      settings: how often a task is tried, and where results are kept.
      database: where the rows are.
      publisher: tells the dream.
    """

    def __init__(self, settings: Settings, database: Database, publisher: Publisher) -> None:
        self._settings = settings
        self._database = database
        self._publisher = publisher
        self._results = ResultStore(settings)

    @step("finish")
    def succeed(self, claim: Claim, result: Any) -> None:
        """The run has done its task.

        Raises:
          LeaseLost: another run has the task; nothing was written.
        """
        self._database.persist(lambda session: tasks.finish(session, claim, TaskState.SUCCEEDED, result=result))
        log.info("task_succeeded")
        self._announce(claim)

    def hand_back(self, broker: Any, message: MessageProxy, claim: Claim, reason: str) -> None:
        """The run stops here; the next one goes on.

        Raises:
          LeaseLost: another run has the task; nothing was written.
        """

        def write(session: Session) -> None:
            tasks.hand_back(session, claim)
            images.move_task(session, claim.task_id, ImageState.PROCESSING, ImageState.PENDING)

        self._database.persist(write)
        broker.hand_back(message)
        log.info("task_handed_back", reason=reason)

    def conclude(
        self, claim: Claim, error: str, state: TaskState = TaskState.FAILED, *, error_class: str | None = None
    ) -> None:
        """The task has come to an end that is no success.

        Raises:
          LeaseLost: another run has the task; nothing was written.
        """
        self._database.persist(
            lambda session: outcomes.conclude_failure(session, claim, error, state, error_class=error_class)
        )
        if state is TaskState.REVOKED:
            log.info("task_revoked", task_id=claim.task_id, reason=error)
        else:
            log.error("task_failed", task_id=claim.task_id, error=error)
        self._announce(claim)

    def _announce(self, claim: Claim) -> None:
        outcomes.announce(self._database, self._publisher, self._results, claim.task_id)

    # --- what `Retries` decides

    def will_retry(self, message: MessageProxy, exception: BaseException, delay_s: float) -> bool:
        """Attempts and due time into the row, before the message goes out."""
        run = attached()
        if run is None:
            return True
        claim, reason = run.claim, full_reason_of(exception)

        def write(session: Session) -> int:
            attempts = tasks.retry_later(session, claim, reason, delay_s, error_class=class_of(exception))
            images.move_task(session, claim.task_id, ImageState.PROCESSING, ImageState.PENDING)
            return attempts

        try:
            attempts = self._database.persist(write)
            message.options[DELIVERY_ID] = delivery_id(claim.task_id, attempts)
            log.warning("task_will_retry", in_s=delay_s, error=reason)
            self._tell_of_retry(claim, attempts, delay_s, reason_of(exception))
        except LeaseLost:
            log.info("lease_lost")
            return False
        finally:
            end(run)
        return True

    def _tell_of_retry(self, claim: Claim, attempts: int, delay_s: float, reason: str) -> None:
        if claim.name not in outcomes.ANNOUNCED:
            return
        processing = UpdateStatus.PROCESSING if claim.name == PROCESS_IMAGES else UpdateStatus.DELETE_PROCESSING
        runs = self._settings.max_retries + 1
        text = f"{reason}; attempt {attempts + 1} of {runs} in {delay_s:g} s"
        update = ImageUpdate(dream_id=claim.args[0], status=processing, message=text, task_id=claim.task_id)
        self._publisher.publish(update, once=f"{claim.task_id}:retry:{attempts}")

    def has_failed(self, message: MessageProxy, exception: BaseException) -> None:  # noqa: ARG002
        """The outcome into the row; the dream is told."""
        run = attached()
        if run is None:
            return
        try:
            self.conclude(run.claim, full_reason_of(exception), error_class=class_of(exception))
        except LeaseLost:
            log.info("lease_lost")
        finally:
            end(run)

    def is_judged(self) -> None:
        """The run is over, also where nothing could be decided: its lease must not be renewed for ever."""
        run = attached()
        if run is not None:
            end(run)
