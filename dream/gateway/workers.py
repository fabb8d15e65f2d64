"""The processes of one gateway: each says that it serves and lives, and the parent tells the service manager.

    process 0 ── sign ─┐
    process 1 ── sign ─┤ a board in shared memory ─► the parent: ready, once all serve; alive, while none is stuck
    process 2 ── sign ─┘

A gateway of one process needs no board, and tells the service manager itself.
"""

from __future__ import annotations

import mmap
import struct
import time
from typing import TYPE_CHECKING, Protocol

from dream.log import get_logger
from dream.work.notify import Pulse
from dream.work.process import say_ready, say_stopping, show_life

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["Alone", "Board", "Life", "Member"]

log = get_logger(__name__)

_SIGN = struct.Struct("d")


class Life(Protocol):
    """Gets the moments in the life of a process that serves."""

    def serves(self) -> None:
        """The process accepts connections now."""

    def goes_on(self) -> None:
        """The process lives; called every second."""

    def stops(self) -> None:
        """The process accepts no connection any more."""


class Alone:
    """The life of the only process of a gateway."""

    def __init__(self, settings: Settings, port: int) -> None:
        self._settings = settings
        self._port = port

    def serves(self) -> None:
        _say_ready(self._settings, self._port, 1)

    def goes_on(self) -> None:
        show_life(self._settings)

    def stops(self) -> None:
        say_stopping()


def _say_ready(settings: Settings, port: int, count: int) -> None:
    log.info("gateway_ready", host=settings.host, port=port, processes=count)
    doing = f"listens on {settings.host}, port {port}"
    say_ready(settings, f"{port}\n", doing=doing if count == 1 else f"{doing}, with {count} processes")


class Board:
    """The last sign of life of each process; make it before the processes start.

    Parameters:
      port: the port on which they listen.
      count: the number of processes.
    """

    def __init__(self, settings: Settings, port: int, count: int) -> None:
        self._settings = settings
        self._port = port
        self._count = count
        self._signs = mmap.mmap(-1, _SIGN.size * count)
        self._pulse = Pulse()
        self._is_ready = False

    def sign(self, number: int, moment: float) -> None:
        """A process lived at this moment (monotonic seconds); 0 while it starts."""
        _SIGN.pack_into(self._signs, _SIGN.size * number, moment)

    def look(self) -> None:
        """Tell the service manager that the gateway is ready, or lives; the parent calls it every second."""
        signs = [moment for (moment,) in _SIGN.iter_unpack(self._signs[:])]
        if not self._is_ready:
            if all(signs):
                self._is_ready = True
                _say_ready(self._settings, self._port, self._count)
            return
        now = time.monotonic()
        for number, moment in enumerate(signs):
            self._pulse.moved(f"process {number}", (moment or now) - now)
        show_life(self._settings, self._pulse)


class Member:
    """The life of one of several processes."""

    def __init__(self, board: Board, number: int) -> None:
        self._board = board
        self._number = number
        board.sign(number, 0.0)

    def serves(self) -> None:
        self.goes_on()

    def goes_on(self) -> None:
        self._board.sign(self._number, time.monotonic())

    def stops(self) -> None:
        """Nothing: the parent reports it."""
