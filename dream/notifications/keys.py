"""Names in Redis: the stream of a dream's events, the keys that make an event single, the channel that wakes;
and those on which workers are asked what they do.
"""

from __future__ import annotations

__all__ = ["answers", "channel", "end_key", "once_key", "questions", "stream"]


def stream(prefix: str, dream_id: int) -> str:
    """The stream of a dream's events."""
    return f"{prefix}:events:{dream_id}"


def once_key(prefix: str, dream_id: int, once: str) -> str:
    """The key that says that the event `once` was appended."""
    return f"{prefix}:events:{dream_id}:once:{once}"


def end_key(prefix: str, dream_id: int, task_id: str) -> str:
    """The key that says that the task's end was told."""
    return f"{prefix}:events:{dream_id}:end:{task_id}"


def channel(prefix: str) -> str:
    """The one channel on which gateways hear of new events."""
    return f"{prefix}:events:wake"


def questions(prefix: str) -> str:
    """The channel on which workers are asked."""
    return f"{prefix}:workers:questions"


def answers(prefix: str, ticket: str) -> str:
    """The list of the answers to one question."""
    return f"{prefix}:workers:answers:{ticket}"
