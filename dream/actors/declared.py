"""An actor for each name in the registry of dream's own tasks (`dream.messages.registry`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dramatiq

from dream.errors import ImageRejected, InvalidArguments, TaskRevoked
from dream.messages.registry import REGISTRY, TaskKind, load
from dream.runs.run import current_run

if TYPE_CHECKING:
    from dream.actors.resources import WorkerResources
    from dream.work.broker import AnyBroker

__all__ = ["declare"]


def declare(broker: AnyBroker, resources: WorkerResources) -> None:
    """Declare the actors of a worker process, whose runs share its resources."""
    settings = resources.settings
    # A flow looks at its deadline itself; Dramatiq's limit stops one that does not.
    backstop_ms = (settings.time_limit_s + min(2.0, settings.time_limit_s / 10)) * 1000
    for kind in REGISTRY:
        function = _function(kind, resources)
        for name in (kind.name, *kind.older_names):
            dramatiq.actor(
                actor_name=name,
                broker=broker,
                queue_name=settings.queue_prefix + kind.queue,
                durable=True,
                time_limit=backstop_ms,
                # The file is at fault: the owner reads the reason, and the log has no crash.
                throws=(ImageRejected, InvalidArguments, TaskRevoked),
            )(function)


def _function(kind: TaskKind, resources: WorkerResources) -> Callable[..., Any]:
    flow = load(kind.flow)

    def run(*args: Any, **kwargs: Any) -> Any:
        return flow(resources, current_run(), *kind.bind(*args, **kwargs))

    return run
