"""The processes of dream that run now, on any host: workers answer questions, the others register in Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dream.work.presence import services_there
from dream.work.questions import Question, ask

if TYPE_CHECKING:
    from dream.work.settings import Settings

__all__ = ["Running", "answers", "running"]

#: Running workers answer within milliseconds.
_ANSWER_S = 2.0


class Running(NamedTuple):
    """A process.

    Parameters:
      kind: `worker`, `scheduler`, `gateway` or `bridge`.
      name: of a worker its own name; else host and process.
      version: of dream; None from a release that does not report it.
    """

    kind: str
    name: str
    version: str | None


def answers(settings: Settings, command: str, workers: Sequence[str] | None = None) -> dict[str, Any]:
    """The answers of workers, by name.

    Parameters:
      workers: the names of those that are asked; None means all.

    Raises:
      RedisError: Redis is away.
    """
    return ask(settings, Question(command=command, destination=workers), timeout_s=_ANSWER_S).by_worker


def running(settings: Settings, stats: Mapping[str, Any]) -> list[Running]:
    """Every process, in the order of kinds and names.

    Parameters:
      stats: the workers' answers to `stats`.

    Raises:
      RedisError: Redis is away.
    """
    found = [Running("worker", name, reply.get("dream")) for name, reply in stats.items()]
    for kind, parts in services_there(settings).items():
        found += [Running(kind, part.name, part.version) for part in parts]
    return sorted(found, key=lambda each: (each.kind, each.name, each.version or ""))
