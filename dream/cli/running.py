"""The processes of dream that run now, on any host: workers answer questions, the others register in Redis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from dream.cli.findings import Finding, right, warning
from dream.messages.registry import QUEUES
from dream.version import __version__
from dream.work.presence import services_there
from dream.work.questions import Question, ask

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["Running", "answers", "look_at_versions", "look_for_processes", "look_for_workers", "running"]

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


def answers(settings: Settings, command: str) -> dict[str, Any]:
    """The answers of all workers, by name.

    Raises:
      RedisError: Redis is away.
    """
    return ask(settings, Question(command=command), timeout_s=_ANSWER_S).by_worker


def running(settings: Settings, stats: dict[str, Any]) -> list[Running]:
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


def look_for_workers(settings: Settings) -> Iterator[Finding]:
    """A missing worker is only a warning: one may be about to start."""
    taken = {
        name: sorted(queue["name"] for queue in queues) for name, queues in answers(settings, "active_queues").items()
    }
    for name, queues in sorted(taken.items()):
        yield right(f"{name} takes {', '.join(queues)}")
    if missing := sorted(set(QUEUES).difference(*taken.values())):
        said = f"none takes {' or '.join(missing)}" if taken else "none answers"
        yield warning(f"{said}: tasks wait", "start `dream worker`")


def look_for_processes(settings: Settings) -> Iterator[Finding]:
    """A missing process is only a warning: it may be about to start. Processes of older releases do not register."""
    there = services_there(settings)
    without = {
        "scheduler": "lost messages are not sent again, and no clean-up and no periodic task runs",
        "gateway": "nothing serves the page, nor pictures unless DREAM_PUBLIC_URL is set",
    }
    for kind, lacks in without.items():
        if parts := there.get(kind):
            yield right(f"{kind}: {', '.join(part.name for part in parts)}")
        else:
            yield warning(f"no {kind} is running: {lacks}", f"start `dream {kind}`")
    if bridges := there.get("bridge"):
        yield right(f"bridge: {', '.join(part.name for part in bridges)}")


def look_at_versions(settings: Settings) -> Iterator[Finding]:
    """Other versions are only a warning: an upgrade may be going on."""
    others = [each for each in running(settings, answers(settings, "stats")) if each.version != __version__]
    for kind, name, version in others:
        yield warning(
            f"{kind} {name} is of version {version or 'unknown'}, this command of {__version__}",
            "restart it with the new code, or run `dream doctor` of the same installation",
        )
    if not others:
        yield right(f"all running processes are of version {__version__}")
