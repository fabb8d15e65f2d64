"""Write the outcome of a run into its task's row, then announce it.

run ─► succeeded: the result            ─► announced
    ├─► requeued: free for the next run
    ├─► retried: attempts and due time  ─► announced, then the message goes out again
    └─► failed: the reason              ─► announced
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dramatiq import MessageProxy
from sqlalchemy.orm import Session

from dream.db import images, tasks
from dream.db.tasks import Claim
from dream.errors import LeaseLost
from dream.fault_points import step
from dream.log import get_logger
from dream.messages.events import ImageUpdate
from dream.messages.pictures import ImageStep
from dream.messages.registry import kind_of
from dream.messages.states import Failure, ImageState, TaskState
from dream.runs import outcomes
from dream.runs.run import attached, end, failure_of, reason_of
from dream.work.messages import DELIVERY_ID, delivery_id

if TYPE_CHECKING:
    from dream.runs.connections import Connections
    from dream.settings import Settings

__all__ = ["RowLedger"]

log = get_logger(__name__)


class RowLedger:
    """See the module; the ledger of `Retries`.

    Parameters:
      settings: the number of attempts.
      connections: the rows, the events and the results.
    """

    def __init__(self, settings: Settings, connections: Connections) -> None:
        self._settings = settings
        self._connections = connections
        self._database = connections.database

    @step("finish")
    def succeed(self, claim: Claim, result: Any) -> None:
        """Record that the run has finished its task.

        Raises:
          LeaseLost: another run has the task; nothing was written.
        """
        self._database.persist(lambda session: tasks.finish(session, claim, TaskState.SUCCEEDED, result=result))
        log.info("task_succeeded")
        self._announce(claim)

    def requeue(self, broker: Any, message: MessageProxy, claim: Claim, reason: str) -> None:
        """Free the task: this run stops, and the next run continues.

        Raises:
          LeaseLost: another run has the task; nothing was written.
        """

        def write(session: Session) -> None:
            tasks.requeue(session, claim)
            images.move_task(session, claim.task_id, ImageState.PROCESSING, ImageState.PENDING)

        self._database.persist(write)
        broker.requeue(message)
        log.info("task_handed_back", reason=reason)

    def conclude(
        self, claim: Claim, failure: Failure, state: TaskState = TaskState.FAILED, *, is_raised: bool = False
    ) -> None:
        """Record that the task has failed or was revoked.

        Parameters:
          is_raised: the task's caller gets the error, so the log has a warning only.

        Raises:
          LeaseLost: another run has the task; nothing was written.
        """
        self._database.persist(lambda session: outcomes.conclude_failure(session, claim, failure, state))
        if state is TaskState.REVOKED:
            log.info("task_revoked", task_id=claim.task_id, reason=failure.error)
        else:
            write = log.warning if is_raised else log.error
            write("task_failed", task_id=claim.task_id, error=failure.error)
        self._announce(claim)

    def _announce(self, claim: Claim) -> None:
        outcomes.announce(self._connections, claim.task_id)

    # --- called by `Retries`

    def will_retry(self, message: MessageProxy, exception: BaseException, delay_s: float) -> bool:
        """Write attempts and due time into the row, before `Retries` sends the message."""
        run = attached()
        if run is None:
            return True
        claim, failure = run.claim, failure_of(exception)

        def write(session: Session) -> tuple[int, tuple[ImageStep, ...]]:
            attempts = tasks.retry_later(session, claim, failure, delay_s)
            images.move_task(session, claim.task_id, ImageState.PROCESSING, ImageState.PENDING)
            return attempts, outcomes.steps_of(session, claim.task_id)

        try:
            attempts, steps = self._database.persist(write)
            message.options[DELIVERY_ID] = delivery_id(claim.task_id, attempts)
            log.warning("task_will_retry", in_s=delay_s, error=failure.error)
            self._tell_of_retry(claim, steps, attempts, delay_s, exception)
        except LeaseLost:
            log.info("lease_lost")
            return False
        finally:
            end(run)
        return True

    def _tell_of_retry(
        self, claim: Claim, steps: tuple[ImageStep, ...], attempts: int, delay_s: float, exception: BaseException
    ) -> None:
        kind = kind_of(claim.name)
        if kind is None or kind.in_progress is None:
            return
        most = self._settings.max_retries
        update = ImageUpdate(
            dream_id=claim.args[0],
            status=kind.in_progress,
            message=f"{reason_of(exception)}; attempt {attempts + 1} of {most + 1} in {delay_s:g} s",
            code=failure_of(exception).error_code,
            task_id=claim.task_id,
            steps=steps,
            attempt=attempts,
            max_retries=most,
            retry_at=round(time.time() + delay_s, 3),
        )
        self._connections.publisher.publish(update, once=f"{claim.task_id}:retry:{attempts}")

    def has_failed(self, message: MessageProxy, exception: BaseException) -> None:  # noqa: ARG002
        """Write the outcome into the row, and announce it."""
        run = attached()
        if run is None:
            return
        try:
            self.conclude(run.claim, failure_of(exception))
        except LeaseLost:
            log.info("lease_lost")
        finally:
            end(run)

    def is_judged(self) -> None:
        """End the run, even if no outcome could be written: its lease must not be renewed for ever."""
        run = attached()
        if run is not None:
            end(run)
