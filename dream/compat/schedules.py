"""When scheduled tasks run, as Celery writes it down."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["crontab"]


@dataclass(frozen=True)
class crontab:  # noqa: N801 (Celery's name)
    """Every day at an hour and a minute."""

    minute: int
    hour: int
