"""The findings of `dream doctor` about the processes that run now: workers, the other services, their versions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dream.cli.findings import Finding, right, warning
from dream.messages.registry import QUEUES
from dream.version import __version__
from dream.work.presence import services_there
from dream.work.running import answers, running

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["look_at_versions", "look_for_processes", "look_for_workers"]


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
