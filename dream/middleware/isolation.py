"""Who may run beside whom in one worker process.

Tasks run side by side; a task whose worker died twice runs alone, so that the death that would be its last is not that
of a neighbour (docs/architecture.md, "A picture that kills its worker does not kill the next ones").
"""

from __future__ import annotations

from threading import Condition

__all__ = ["Isolation"]


class Isolation:
    """A gate through which many may go together, or one alone."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._inside = 0
        self._alone = False
        self._waiting_alone = 0

    def enter(self, *, alone: bool, patience_s: float | None = None) -> bool:
        """Wait for a place. Whoever wants to be alone goes before newcomers, or it would wait for ever.

        Parameters:
          patience_s: seconds after which whoever wants to be alone goes away; None means never.

        Returns:
          Whether there is a place.
        """
        with self._changed:
            if alone:
                self._waiting_alone += 1
                is_empty = self._changed.wait_for(lambda: self._inside == 0, patience_s)
                self._waiting_alone -= 1
                if not is_empty:
                    self._changed.notify_all()
                    return False
                self._alone = True
            else:
                while self._alone or self._waiting_alone:
                    self._changed.wait()
            self._inside += 1
        return True

    def share(self) -> None:
        """Whoever is alone lets others in."""
        with self._changed:
            self._alone = False
            self._changed.notify_all()

    def leave(self) -> None:
        """Give the place back."""
        with self._changed:
            self._inside -= 1
            if self._alone or self._waiting_alone:
                self._alone = False
                self._changed.notify_all()
