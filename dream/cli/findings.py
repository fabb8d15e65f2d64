"""What `dream doctor` finds: a line for each thing, what it is and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dream.errors import DreamError
from dream.server_words import sentence_of

__all__ = ["Check", "Finding", "Outcome", "examine", "right", "warning", "wrong"]


class Outcome(StrEnum):
    """How a thing was found; only `wrong` is a reason to fail."""

    RIGHT = "right"
    WARNING = "warning"
    WRONG = "wrong"
    UNCHECKED = "unchecked"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Parameters:
      said: what was found.
      advice: what to do about it, where there is something to do.
    """

    outcome: Outcome
    said: str
    advice: str | None = None


def right(said: str) -> Finding:
    return Finding(Outcome.RIGHT, said)


def warning(said: str, advice: str | None = None) -> Finding:
    return Finding(Outcome.WARNING, said, advice)


def wrong(said: str, advice: str | None = None) -> Finding:
    return Finding(Outcome.WRONG, said, advice)


@dataclass(frozen=True)
class Check:
    """A thing to look at.

    Parameters:
      name: what it is called in the report.
      look: finds one or more things; an error that it raises is a finding too.
      advice: what to do where it raises.
      needs: the checks without whose success this one cannot run.
    """

    name: str
    look: Callable[[], Iterable[Finding]]
    advice: str
    needs: Sequence[str] = ()


def examine(checks: Iterable[Check]) -> Iterator[tuple[str, Finding]]:
    """Run the checks in order; each finding with its check's name, as soon as it is known."""
    failed: set[str] = set()
    for check in checks:
        if missing := [name for name in check.needs if name in failed]:
            failed.add(check.name)
            said = f"not checked, because of what is wrong with: {', '.join(missing)}"
            yield check.name, Finding(Outcome.UNCHECKED, said)
            continue
        for finding in _look(check):
            if finding.outcome is Outcome.WRONG:
                failed.add(check.name)
            yield check.name, finding


def _look(check: Check) -> Iterator[Finding]:
    try:
        yield from check.look()
    except DreamError as error:
        yield wrong(str(error), check.advice)
    except Exception as error:  # noqa: BLE001 (a doctor reports whatever a server or its client does)
        yield wrong(sentence_of(error), check.advice)
