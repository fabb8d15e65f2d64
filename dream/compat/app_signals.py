"""The signals of one app: `on_after_configure`, `on_after_finalize`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["AppSignal"]

Receiver = Callable[..., Any]


class AppSignal:
    """Calls its receivers once; who connects later is called at once.

    Parameters:
      sender: the app.
    """

    def __init__(self, sender: Any) -> None:
        self._sender = sender
        self._receivers: list[Receiver] = []
        self._sent: dict[str, Any] | None = None

    def connect(self, receiver: Receiver | None = None, **_how: Any) -> Any:
        """Add a receiver, also as a decorator with or without arguments; it is called with `sender=app`."""
        if receiver is None:
            return self.connect
        self._receivers.append(receiver)
        if self._sent is not None:
            receiver(sender=self._sender, **self._sent)
        return receiver

    def send(self, **named: Any) -> None:
        """Call every receiver, in the order in which they came; only the first call does."""
        if self._sent is not None:
            return
        self._sent = named
        for receiver in tuple(self._receivers):
            receiver(sender=self._sender, **named)
