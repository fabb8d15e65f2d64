"""Tell systemd (`Type=notify`) that this process is ready, lives, waits or stops; and find loops that are stuck.

    loops ─ moved() ─► Pulse ─ stuck()? ─► the main loop ─ WATCHDOG=1 ─► NOTIFY_SOCKET

The main loop of a process sends the pings, and it sends none while another loop that matters is stuck. Without
`NOTIFY_SOCKET` nothing is sent.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

__all__ = ["Pulse", "notify", "pings", "status"]

#: Nobody reads the socket: systemd itself hangs. This process must not hang with it.
_SEND_TIMEOUT_S = 0.2

_told: dict[str, str] = {}


def notify(*assignments: str) -> bool:
    """Send one datagram of lines such as `READY=1`; return whether a service manager took it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.settimeout(_SEND_TIMEOUT_S)
        try:
            # "@" stands for the zero byte of an abstract address.
            sender.sendto(
                "\n".join(assignments).encode(), address.replace("@", "\0", 1) if address[0] == "@" else address
            )
        except OSError:
            return False
    return True


def status(text: str) -> None:
    """Set the line that `systemctl status` shows, if it differs from the last one."""
    line = " ".join(text.split())
    if _told.get("status") != line:
        _told["status"] = line
        notify(f"STATUS={line}")


def pings(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a watchdog waits for pings of this process.

    `WATCHDOG_PID` may name the parent: a unit may start a shell that starts this process.
    """
    usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    return usec.isdigit() and int(usec) > 0 and (not pid or pid in (str(os.getpid()), str(os.getppid())))


class Pulse:
    """The loops of a process and the time by which each must move again. Safe for threads.

    Parameters:
      allowed_s: seconds after that time at which a loop counts as stuck; half of a watchdog's time if that is less.
    """

    def __init__(self, allowed_s: float = 30.0) -> None:
        usec = os.environ.get("WATCHDOG_USEC", "") if pings() else ""
        self._allowed_s = min(allowed_s, int(usec) / 2e6) if usec else allowed_s
        self._due_at: dict[str, float] = {}

    def moved(self, loop: str, next_in_s: float = 0.0) -> None:
        """A loop moves now, and will move again in `next_in_s` seconds."""
        self._due_at[loop] = time.monotonic() + next_in_s

    def stuck(self) -> dict[str, float]:
        """The loops that are stuck, each with the seconds for which it should have moved."""
        now = time.monotonic()
        late = {loop: now - due_at for loop, due_at in self._due_at.copy().items()}
        return {loop: late_s for loop, late_s in late.items() if late_s > self._allowed_s}
