"""Claim a task's row before its run, and pass the outcome of the run to the ledger (`ledger.py`).

message ─► claim ─► actor ─► the ledger: succeeded, requeued, and by way of `Retries` retried or failed
             └─► not free, not due: requeued for later · finished: dropped
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from dramatiq import Broker, MessageProxy, Worker
from dramatiq.middleware import Middleware, SkipMessage
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from dream.db import retention, tasks
from dream.db.faults import explain
from dream.db.tasks import Claim, Refusal
from dream.errors import HandedBack, LeaseLost, Reason, TaskRevoked
from dream.fault_points import step
from dream.log import get_logger
from dream.messages.registry import kind_of
from dream.messages.states import Failure, TaskState
from dream.runs.run import LeaseKeeper, Run, attach, attached, begin, end, failure_of
from dream.work.isolation import Isolation
from dream.work.messages import DELIVERY_ID

if TYPE_CHECKING:
    from dream.db import Database
    from dream.messages.registry import TaskKind
    from dream.runs.ledger import RowLedger
    from dream.settings import Settings
    from dream.work.middleware.answering import Answering
    from dream.work.questions import RevokeArguments, RevokeReply

__all__ = ["Claims"]

log = get_logger(__name__)

#: Seconds after which a message comes back if its row cannot be read now.
_COME_BACK_S = 5.0
#: A message that arrives before its transaction is visible comes back after this, then after its own age.
_FIRST_LOOK_AGAIN_S = 0.2
#: Another run is writing the row of a stranger's task at this moment; the message comes back after this many seconds.
_RACED_S = 1.0
#: The latest time that a message can have: the end of the year 2286.
_LAST_MS = 10**13
#: Celery's name for the error of a task that killed its workers.
_WORKER_LOST = "billiard.exceptions:WorkerLostError"
#: Seconds that a stopping worker keeps for requeuing the messages of its runs.
_HAND_BACK_S = 1.0


class Claims(Middleware):
    """See the module.

    Parameters:
      settings: lease, time limit, retries.
      database: where the rows are.
      ledger: writes the outcome of runs; `Retries` tells it of failures.
      answering: gets the command that ends runs.
    """

    def __init__(self, settings: Settings, database: Database, ledger: RowLedger, answering: Answering) -> None:
        self._settings = settings
        self._database = database
        self.ledger = ledger
        answering.commands.setdefault("revoke", self._revoke)
        #: The gate of runs of tasks with a row.
        self.isolation = Isolation()
        self._stopping = threading.Event()
        self._runs: dict[str, Run] = {}
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

    def terminate(self, task_id: str) -> bool:
        """End the run of a revoked task; False if no such run is here. A deletion that has begun is finished first."""
        run = self._runs.get(task_id)
        if run is not None:
            run.revoked.set()
        return run is not None

    def _revoke(self, arguments: Mapping[str, Any]) -> RevokeReply:
        """The answer to `control.revoke` if a worker runs only dream's own tasks, whose rows have the revocation."""
        wanted = cast("RevokeArguments", arguments)
        ended = [each for each in wanted["task_ids"] if wanted["terminate"] and self.terminate(each)]
        return {"ok": f"{len(ended)} terminated"}

    # --- before a run

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        if not broker.get_actor(message.actor_name).options.get("durable"):
            return
        try:
            claim = self._enter_and_claim(broker, message)
        except DataError as error:
            # For example, a stranger's id is longer than a row can hold. The next try would fail, too.
            message.fail()
            log.error("task_not_claimable", task_id=message.message_id, error=str(error.orig))
            raise SkipMessage("no row can hold it") from None
        except SQLAlchemyError as error:
            said = str(explain(error))
            log.warning("task_not_claimed", task_id=message.message_id, error=said)
            self._come_back(broker, message, _COME_BACK_S)
            raise SkipMessage(said) from None
        self._refuse_hopeless(claim)
        self._begin(claim)
        message.options["retries"] = claim.attempts

    def _enter_and_claim(self, broker: Broker, message: MessageProxy) -> Claim:
        """Take a place at the gate, beside other runs or alone, and claim the task."""
        for alone in (False, True):
            self.isolation.enter(alone=alone)
            with ExitStack() as on_failure:
                on_failure.callback(self.isolation.leave)
                claim, reason, wait_s = self._claim(message, alone=alone)
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
    def _claim(self, message: MessageProxy, *, alone: bool) -> tuple[Claim | None, Refusal, float]:
        task_id, lease_s = message.message_id, self._settings.lease_s
        try:
            with self._database.begin() as session:
                claim = tasks.claim(session, task_id, lease_s, alone=alone)
                if claim is not None:
                    return claim, Refusal.UNKNOWN, 0.0
                reason, wait_s = tasks.refusal(session, task_id)
                if reason is not Refusal.UNKNOWN:
                    return None, reason, wait_s
                if DELIVERY_ID in message.options:
                    return None, *self._without_row(message)
                return self._claim_strangers(session, message), reason, wait_s
        except IntegrityError:
            return None, Refusal.LEASED, _RACED_S

    def _without_row(self, message: MessageProxy) -> tuple[Refusal, float]:
        """The reason why a message of dream's own has no row, and the seconds after which to look again.

        A young message may have arrived before its transaction is visible. The transaction of an old one was rolled
        back, or its row was removed after its time. Nothing is lost: the sweep finds a row that comes later.
        """
        age_s = time.time() - _born_at(message)
        if abs(age_s) >= self._settings.resend_after_s:
            return Refusal.UNKNOWN, 0.0
        return Refusal.NOT_VISIBLE, min(max(_FIRST_LOOK_AGAIN_S, age_s), _COME_BACK_S)

    def _claim_strangers(self, session: Session, message: MessageProxy) -> Claim | None:
        """Create and claim the row of a task whose sender writes no row, unless the row was removed by retention."""
        born_at = datetime.fromtimestamp(_born_at(message), UTC)
        if retention.was_pruned(session, message.message_id, born_at):
            log.warning("message_of_removed_task", task_id=message.message_id)
            return None
        kind = kind_of(message.actor_name)
        name = kind.name if kind is not None else message.actor_name
        tasks.add(session, message.message_id, name, _positional(kind, message))
        session.flush()
        return tasks.claim(session, message.message_id, self._settings.lease_s)

    def _refuse_hopeless(self, claim: Claim) -> None:
        if claim.deaths >= tasks.MAX_DEATHS:
            state, reason = TaskState.FAILED, Reason.WORKER_DIED
            failure = Failure(reason.sentence.format(times=claim.deaths), _WORKER_LOST, reason.code)
        elif claim.has_expired:
            state, reason = TaskState.REVOKED, Reason.TASK_EXPIRED
            failure = Failure(reason.sentence, error_code=reason.code)
        else:
            return
        # Anything but SkipMessage would let Dramatiq run the task, without a claim.
        try:
            self.ledger.conclude(claim, failure, state)
        except (LeaseLost, SQLAlchemyError) as error:
            log.warning("task_not_concluded", task_id=claim.task_id, error=str(error))  # the next claim ends it
        finally:
            self.isolation.leave()
        raise SkipMessage(failure.error or "")

    def _begin(self, claim: Claim) -> None:
        deadline = time.monotonic() + self._settings.time_limit_s
        run = begin(claim, self._keeper, deadline=deadline, stopping=self._stopping)
        run.scope.callback(self.isolation.leave)
        self._runs[claim.task_id] = run
        run.scope.callback(self._runs.pop, claim.task_id, None)
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
        if run is None or (exception is not None and not isinstance(exception, (HandedBack, LeaseLost, TaskRevoked))):
            return  # a failure: `Retries` decides, and calls the ledger
        try:
            if exception is None:
                self.ledger.succeed(run.claim, result)
            elif isinstance(exception, HandedBack):
                self.ledger.requeue(broker, message, run.claim, str(exception))
            elif isinstance(exception, TaskRevoked):
                self.ledger.conclude(run.claim, failure_of(exception)._replace(error_class=None), TaskState.REVOKED)
            else:
                log.info("lease_lost")
        except LeaseLost:
            log.info("lease_lost")
        finally:
            end(run)


def _born_at(message: MessageProxy) -> float:
    """The later of the message's time and its due time: seconds since the epoch, by its sender's clock."""
    stamps = (message.message_timestamp, message.options.get("eta", 0))
    return max((each / 1000 for each in stamps if isinstance(each, int | float) and 0 <= each < _LAST_MS), default=0.0)


def _positional(kind: TaskKind | None, message: MessageProxy) -> Sequence[Any]:
    """A call's arguments by position: a row stores no names, and the row's next message must make the same call."""
    try:
        return kind.bind(*message.args, **message.kwargs) if kind is not None else message.args
    except TypeError:
        return message.args  # a wrong call: its run will fail
