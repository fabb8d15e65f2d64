"""Traces, if they are on: each run is a span, in the trace of the message that it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dramatiq import Broker, MessageProxy, Worker
from dramatiq.middleware import Middleware

from dream.errors import HandedBack, LeaseLost, TaskRevoked
from dream.observe import tracing
from dream.work.messages import sender_headers

if TYPE_CHECKING:
    from dream.observe.otel import Run

__all__ = ["Tracing"]


class Tracing(Middleware):
    """See the module.

    Parameters:
      aliases: older names of tasks, and their present ones, which spans carry.
    """

    def __init__(self, aliases: Mapping[str, str]) -> None:
        self._aliases = aliases
        self._runs: dict[int, Run] = {}

    def before_process_message(self, broker: Any, message: MessageProxy) -> None:
        name = self._aliases.get(message.actor_name, message.actor_name)
        run = tracing.begin_run(message, sender_headers(message.options), name, getattr(broker, "system", "other"))
        if run is not None:
            self._runs[id(message)] = run

    def after_process_message(
        self,
        broker: Broker,  # noqa: ARG002
        message: MessageProxy,
        *,
        exception: BaseException | None = None,
        **_: Any,
    ) -> None:
        if (run := self._runs.pop(id(message), None)) is None:
            return
        if exception is None:
            run.end(None, outcome="done")
        elif isinstance(exception, (HandedBack, LeaseLost, TaskRevoked)):
            run.end(None, outcome="skipped")
        else:
            run.end(exception, outcome="failed" if message.failed else "retried")

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:  # noqa: ARG002
        if (run := self._runs.pop(id(message), None)) is not None:
            run.end(None, outcome="skipped")

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002
        tracing.stop()
