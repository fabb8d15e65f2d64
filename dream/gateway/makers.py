"""Have versions of pictures made for visitors: one task for each version, and one wait for all who ask for it.

    make(version) ─► its task's row: none ─► recorded and sent, then as for an open one
                                      open ─► read every 0.1 s, together with all others, until it has ended or is late
                                      ended ─► the end is remembered for a while

The row of the task decides: a task that failed for good is not begun again for the next visitor.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from starlette.concurrency import run_in_threadpool

from dream.db import variants
from dream.gateway.faults import DATABASE_FAULTS, log_fault
from dream.messages.registry import MAKE_VARIANT
from dream.messages.states import TaskState
from dream.messages.variants import task_of
from dream.producer.orders import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable

    from dream.db import Database
    from dream.messages.variants import Ask, HasVariants
    from dream.producer import Producer
    from dream.settings import Settings

__all__ = ["End", "Makers"]

#: Priorities: a visitor who waits comes before uploads, which have 5; a format that nobody waits for comes after them.
_FOR_WAITING, _FOR_LATER = 8, 4
_LOOK_EVERY_S = 0.1
#: Ended tasks that are remembered, and for how long.
_REMEMBERED, _REMEMBERED_S = 10_000, 30.0
#: States of tasks by their ids, and whether they may run now.
_States = dict[str, tuple[TaskState, bool]]
#: The state of a task that could not be read.
_UNKNOWN = TaskState.QUEUED, True


class End(Enum):
    """The end of a wait for a version."""

    #: Its task has succeeded. The row of the picture has the version, unless it would be no gain.
    DONE = "done"
    #: It cannot be made.
    FAILED = "failed"
    #: It was not ready in time, or the process waits for too many already.
    LATE = "late"


class _Awaited(NamedTuple):
    """A version that is waited for.

    Parameters:
      start: reads the state of its task, and records it if it is new.
      end: the end of the wait.
      until: a monotonic time at which the wait ends.
    """

    start: asyncio.Task[None]
    end: asyncio.Future[End]
    until: float


class Makers:
    """The versions that one gateway process has made. Use it on one event loop.

    Parameters:
      settings: the time that visitors wait, and the most versions at a time.
      database: gives the database with the rows.
      producer: records and sends the tasks.
    """

    def __init__(self, settings: Settings, database: Callable[[], Database], producer: Producer) -> None:
        self._settings = settings
        self._database = database
        self._producer = producer
        self._awaited: dict[str, _Awaited] = {}
        self._ended: OrderedDict[str, tuple[End, float]] = OrderedDict()
        self._looking: asyncio.Task[None] | None = None

    async def make(self, image: HasVariants, ask: Ask, *, waits: bool = True) -> End:
        """Have a version made, and wait for it.

        Parameters:
          waits: whether a visitor waits; otherwise its task has a low priority, and the answer is `LATE` unless it
            has ended already.
        """
        task_id, arguments = task_of(image, ask)
        ended = self._ended.get(task_id)
        if ended is not None and time.monotonic() < ended[1]:
            return ended[0]
        if task_id not in self._awaited:
            if len(self._awaited) >= self._settings.max_variants_awaited:
                return End.LATE
            self._begin(task_id, arguments, _FOR_WAITING if waits else _FOR_LATER)
        awaited = self._awaited[task_id]
        if not waits:
            await asyncio.shield(awaited.start)
            return awaited.end.result() if awaited.end.done() else End.LATE
        return await asyncio.shield(awaited.end)

    def _begin(self, task_id: str, arguments: list[object], priority: int) -> None:
        until = time.monotonic() + self._settings.variant_wait_s
        start = asyncio.create_task(self._start(task_id, arguments, priority))
        self._awaited[task_id] = _Awaited(start, asyncio.get_running_loop().create_future(), until)

    async def _start(self, task_id: str, arguments: list[object], priority: int) -> None:
        try:
            states = await run_in_threadpool(self._submit, task_id, arguments, priority)
        except DATABASE_FAULTS as error:
            log_fault("variant_not_begun", error, task_id=task_id)
            self._end(task_id, End.LATE)
            return
        except BaseException:
            self._end(task_id, End.LATE)
            raise
        self._judge(states, time.monotonic())
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())

    def _submit(self, task_id: str, arguments: list[object], priority: int) -> _States:
        """Record and send the task, unless it has a row; returns its state."""
        states = self._states([task_id])
        if not states:
            self._producer.submit(MAKE_VARIANT, arguments, task_id=task_id, delivery=Delivery(priority=priority))
        return states

    async def _look(self) -> None:
        """Look at the rows of all awaited tasks until none is left."""
        try:
            while self._awaited:
                began = time.monotonic()
                try:
                    states = await run_in_threadpool(self._states, list(self._awaited))
                except DATABASE_FAULTS as error:
                    log_fault("variants_not_looked_at", error)
                    states = {}
                self._judge(states | dict.fromkeys(self._awaited.keys() - states.keys(), _UNKNOWN), began)
                await asyncio.sleep(_LOOK_EVERY_S)
        finally:
            self._end_all()

    def _judge(self, states: _States, at: float) -> None:
        """End the waits for these tasks that are over.

        Parameters:
          at: a monotonic time before they were read.
        """
        for task_id, (state, may_run) in states.items():
            awaited = self._awaited.get(task_id)
            if awaited is None:
                continue
            if state.is_terminal:
                self._end(task_id, End.DONE if state is TaskState.SUCCEEDED else End.FAILED)
            elif at >= awaited.until or not may_run:
                self._end(task_id, End.LATE)

    def _states(self, task_ids: list[str]) -> _States:
        with self._database().read() as session:
            return variants.states_of(session, task_ids)

    def _end(self, task_id: str, end: End) -> None:
        awaited = self._awaited.pop(task_id, None)
        if awaited is None:
            return
        if not awaited.end.done():
            awaited.end.set_result(end)
        if end is not End.LATE:
            self._ended[task_id] = end, time.monotonic() + _REMEMBERED_S
            if len(self._ended) > _REMEMBERED:
                self._ended.popitem(last=False)

    async def stop(self) -> None:
        """End all waits."""
        running = [each.start for each in self._awaited.values()]
        running += [self._looking] if self._looking is not None else []
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._end_all()

    def _end_all(self) -> None:
        for task_id in list(self._awaited):
            self._end(task_id, End.LATE)
