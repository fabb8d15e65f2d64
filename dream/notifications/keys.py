"""Names in Redis: the stream of a dream's events, the keys that make an event single, the channel that wakes."""

from __future__ import annotations

__all__ = ["channel", "end_key", "once_key", "stream", "told"]


def stream(prefix: str, dream_id: int) -> str:
    """The stream of a dream's events."""
    return f"{prefix}:events:{dream_id}"


def told(prefix: str, speaker: str) -> str:
    """The hash of a task's appended events, after its end of the end alone; or of one event without a task."""
    return f"{prefix}:told:{speaker}"


def once_key(prefix: str, dream_id: int, once: str) -> str:
    """The key by which an older release says that the event `once` was appended."""
    return f"{prefix}:events:{dream_id}:once:{once}"


def end_key(prefix: str, dream_id: int, task_id: str) -> str:
    """The key by which an older release says that the task's end was told."""
    return f"{prefix}:events:{dream_id}:end:{task_id}"


def channel(prefix: str) -> str:
    """The one channel on which gateways hear of new events."""
    return f"{prefix}:events:wake"
