"""A task with a row runs only while it is claimed, and what came of the run is written into the row.

message ─► claim ─► actor ─► finish, tell the dream, ack
             │         ├─► will_retry: attempts and due time into the row, then the message goes out again
             │         ├─► has_failed: the outcome into the row, the dream is told
             │         └─► handed back: neither
             └─► not free, not due: comes back later · finished: dropped
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from dramatiq import Broker, MessageProxy, Worker
from dramatiq.middleware import Middleware, SkipMessage
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from dream import outcomes
from dream.db import images, tasks
from dream.db.tasks import Claim, Refusal
from dream.errors import HandedBack, LeaseLost
from dream.fault_points import step
from dream.log import bind, get_logger
from dream.messages import (
    ALIASES,
    DELIVERY_ID,
    PROCESS_IMAGES,
    ImageState,
    ImageUpdate,
    TaskState,
    UpdateStatus,
    delivery_id,
)
from dream.middleware.calls import positional
from dream.middleware.isolation import Isolation
from dream.middleware.leases import LeaseKeeper
from dream.middleware.run import Run, attach, attached, log_fields, reason_of
from dream.results import ResultStore

if TYPE_CHECKING:
    from dream.db import Database
    from dream.notifications import Publisher
    from dream.settings import Settings

__all__ = ["Claims"]

log = get_logger(__name__)

#: A message whose row cannot be read now comes back after this long.
_COME_BACK_S = 5.0
#: A stopping worker keeps this much of its time for handing back what runs.
_HAND_BACK_S = 1.0


class Claims(Middleware):
    """See the module.

    Parameters:
      settings: lease, time limit, retries.
      database: where the rows are.
      publisher: tells the dream.
    """

    def __init__(self, settings: Settings, database: Database, publisher: Publisher) -> None:
        self._settings = settings
        self._database = database
        self._publisher = publisher
        self._results = ResultStore(settings)
        self._isolation = Isolation()
        self._stopping = threading.Event()
        self._keeper = LeaseKeeper(database, settings.lease_s, settings.lease_renew_s)

    @property
    def actor_options(self) -> set[str]:
        return {"durable"}

    # --- the worker's life

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        self._keeper.start()

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        patience_s = max(0.0, self._settings.shutdown_timeout_s - _HAND_BACK_S)
        timer = threading.Timer(patience_s, self._stopping.set)
        timer.daemon = True
        timer.start()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        self._keeper.stop()

    # --- before a run

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        if not broker.get_actor(message.actor_name).options.get("durable"):
            return
        try:
            claim = self._enter_and_claim(broker, message)
        except SQLAlchemyError as error:
            log.warning("task_not_claimed", task_id=message.message_id, error=type(error).__name__)
            self._come_back(broker, message, _COME_BACK_S)
            raise SkipMessage("the database is away") from None
        self._refuse_hopeless(claim)
        self._begin(claim)
        message.options["retries"] = claim.attempts

    def _enter_and_claim(self, broker: Broker, message: MessageProxy) -> Claim:
        """Take a place beside the others and claim the task, or alone where it must run so."""
        for alone in (False, True):
            self._isolation.enter(alone=alone)
            with ExitStack() as on_failure:
                on_failure.callback(self._isolation.leave)
                claim, reason, wait_s = self._claim(broker, message, alone=alone)
                if claim is not None:
                    on_failure.pop_all()
                    return claim
            if reason is not Refusal.SUSPECT:
                break
        if reason not in (Refusal.FINISHED, Refusal.UNKNOWN):
            self._come_back(broker, message, wait_s + 0.01)
        log.info("task_not_run", task_id=message.message_id, reason=str(reason))
        raise SkipMessage(f"the task is {reason}")

    @step("claim")
    def _claim(self, broker: Broker, message: MessageProxy, *, alone: bool) -> tuple[Claim | None, Refusal, float]:
        task_id, lease_s = message.message_id, self._settings.lease_s
        try:
            with self._database.begin() as session:
                claim = tasks.claim(session, task_id, lease_s, alone=alone)
                if claim is not None:
                    return claim, Refusal.UNKNOWN, 0.0
                reason, wait_s = tasks.refusal(session, task_id)
                if reason is Refusal.UNKNOWN and DELIVERY_ID not in message.options:
                    claim = self._claim_strangers(session, broker, message)
                return claim, reason, wait_s
        except IntegrityError:
            return None, Refusal.LEASED, 1.0

    def _claim_strangers(self, session: Session, broker: Broker, message: MessageProxy) -> Claim | None:
        """Sent by somebody who writes no rows: the message is the first we hear of the task.

        (One of ours without a row is of a transaction that was rolled back.)
        """
        name = ALIASES.get(message.actor_name, message.actor_name)
        tasks.add(session, message.message_id, name, positional(broker, message))
        session.flush()
        return tasks.claim(session, message.message_id, self._settings.lease_s)

    def _refuse_hopeless(self, claim: Claim) -> None:
        if claim.deaths >= tasks.MAX_DEATHS:
            outcome = TaskState.FAILED, f"its worker died {claim.deaths} times while working on it"
        elif claim.has_expired:
            outcome = TaskState.REVOKED, "it expired before it could run"
        else:
            return
        # Anything but SkipMessage would let Dramatiq run the task, without a claim.
        try:
            self._conclude(claim, outcome[1], outcome[0])
        except (LeaseLost, SQLAlchemyError) as error:
            log.warning("task_not_concluded", task_id=claim.task_id, error=str(error))  # by its next claim, then
        finally:
            self._isolation.leave()
        raise SkipMessage(outcome[1])

    def _begin(self, claim: Claim) -> None:
        deadline = time.monotonic() + self._settings.time_limit_s
        run = Run(claim, deadline, self._keeper.keep(claim.token), self._stopping)
        run.scope.callback(self._isolation.leave)
        run.scope.callback(self._keeper.drop, claim.token)
        run.scope.enter_context(bind(**log_fields(claim)))
        attach(run)
        log.info("task_started", task=claim.name.rpartition(".")[2])

    def _come_back(self, broker: Any, message: MessageProxy, delay_s: float) -> None:
        try:
            broker.enqueue(message._message, delay=max(1, round(delay_s * 1000)))
        except Exception as error:  # noqa: BLE001 (whatever the broker's client raises: the sweep finds the task)
            log.warning("message_not_put_back", task_id=message.message_id, error=str(error))

    # --- after a run

    def after_process_message(
        self, broker: Any, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        run = attached()
        if run is None or (exception is not None and not isinstance(exception, (HandedBack, LeaseLost))):
            return  # a failure: Retries decides, and tells us below
        try:
            if exception is None:
                self._succeed(run.claim, result)
            elif isinstance(exception, HandedBack):
                self._hand_back(broker, message, run.claim, str(exception))
            else:
                log.info("lease_lost")
        except LeaseLost:
            log.info("lease_lost")
        finally:
            self._end(run)

    def _end(self, run: Run) -> None:
        attach(None)
        run.scope.close()

    @step("finish")
    def _succeed(self, claim: Claim, result: Any) -> None:
        self._database.persist(lambda session: tasks.finish(session, claim, TaskState.SUCCEEDED, result=result))
        log.info("task_succeeded")
        outcomes.announce(self._database, self._publisher, self._results, claim.task_id)

    def _hand_back(self, broker: Any, message: MessageProxy, claim: Claim, reason: str) -> None:
        def write(session: Session) -> None:
            tasks.hand_back(session, claim)
            images.move_task(session, claim.task_id, ImageState.PROCESSING, ImageState.PENDING)

        self._database.persist(write)
        broker.hand_back(message)
        log.info("task_handed_back", reason=reason)

    def _conclude(self, claim: Claim, error: str, state: TaskState = TaskState.FAILED) -> None:
        self._database.persist(lambda session: outcomes.conclude_failure(session, claim, error, state))
        log.error("task_failed", task_id=claim.task_id, error=error)
        outcomes.announce(self._database, self._publisher, self._results, claim.task_id)

    # --- the ledger of `Retries`

    def will_retry(self, message: MessageProxy, exception: BaseException, delay_s: float) -> bool:
        """Attempts and due time into the row, before the message goes out."""
        run = attached()
        if run is None:
            return True
        claim, reason = run.claim, reason_of(exception)

        def write(session: Session) -> int:
            attempts = tasks.retry_later(session, claim, reason, delay_s)
            images.move_task(session, claim.task_id, ImageState.PROCESSING, ImageState.PENDING)
            return attempts

        try:
            attempts = self._database.persist(write)
            message.options[DELIVERY_ID] = delivery_id(claim.task_id, attempts)
            log.warning("task_will_retry", in_s=delay_s, error=reason)
            self._tell_of_retry(claim, attempts, delay_s, reason)
        except LeaseLost:
            log.info("lease_lost")
            return False
        finally:
            self._end(run)
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
            self._conclude(run.claim, reason_of(exception))
        except LeaseLost:
            log.info("lease_lost")
        finally:
            self._end(run)

    def is_judged(self) -> None:
        """The run is over, also where nothing could be decided: its lease must not be renewed for ever."""
        run = attached()
        if run is not None:
            self._end(run)
