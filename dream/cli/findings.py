"""Findings of `dream doctor`: outcomes, checks, and running them in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dream.errors import DreamError
from dream.work.server_words import sentence_of

__all__ = ["Check", "Finding", "Outcome", "examine", "right", "warning", "wrong"]


class Outcome(StrEnum):
    """The outcome of a check; only `wrong` makes the command fail."""

    RIGHT = "right"
    WARNING = "warning"
    WRONG = "wrong"
    UNCHECKED = "unchecked"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Parameters:
      said: the fact.
      advice: what to do about it; None if there is nothing to do.
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
    """One check.

    Parameters:
      name: its name in the report.
      look: returns findings; an error that it raises becomes a finding too.
      advice: what to do where `look` raises.
      needs: checks that must succeed first.
    """

    name: str
    look: Callable[[], Iterable[Finding]]
    advice: str
    needs: Sequence[str] = ()


def examine(checks: Iterable[Check]) -> Iterator[tuple[str, Finding]]:
    """Run the checks in order; yield each finding with the name of its check at once."""
    failed: set[str] = set()
    for check in checks:
        if missing := [name for name in check.needs if name in failed]:
            failed.add(check.name)
            said = f"not checked, because this check failed: {', '.join(missing)}"
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
    except Exception as error:  # noqa: BLE001 (the report shows any error of a server or its client)
        yield wrong(sentence_of(error), check.advice)
