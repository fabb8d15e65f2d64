"""A switch between network namespaces, in user space, whose cables may be cut, slow or lossy.

    python -m tests.acceptance.hosts.switch DEVICE …

It makes a TAP device for each name; its caller moves each into the namespace of a host. A line on standard input sets
the cable of a device:

    {"device": "…", "is_cut": false, "delay_ms": 300, "jitter_ms": 100, "loss": 0.05}

The delay is that of frames from the host; both directions lose frames. tc netem does the same, but not every kernel
has it.

The end of its input ends the switch, and the devices with it.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import random
import selectors
import struct
import sys
import time
from dataclasses import dataclass, field

__all__ = ["Cable", "main"]

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


@dataclass(frozen=True)
class Cable:
    """The state of the cable to a host.

    Parameters:
      delay_ms, jitter_ms: each frame from the host is late by delay ± jitter, so frames may overtake each other.
      loss: share of frames that are lost, in each direction.
    """

    device: str
    is_cut: bool = False
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0

    def loses(self) -> bool:
        return self.is_cut or (self.loss > 0 and random.random() < self.loss)

    def late_s(self) -> float:
        return max(0.0, random.uniform(self.delay_ms - self.jitter_ms, self.delay_ms + self.jitter_ms)) / 1000


@dataclass
class _Switch:
    taps: dict[str, int]
    cables: dict[str, Cable]
    #: The device behind which an address of a network card was seen.
    places: dict[bytes, str] = field(default_factory=dict)
    #: Frames on their way: when they arrive, their number, their sender's device.
    under_way: list[tuple[float, int, str, bytes]] = field(default_factory=list)
    count: int = 0

    def take(self, device: str) -> None:
        """Take a frame from a host."""
        frame, cable = os.read(self.taps[device], 65536), self.cables[device]
        if not cable.loses():
            self.count += 1
            heapq.heappush(self.under_way, (time.monotonic() + cable.late_s(), self.count, device, frame))

    def deliver(self) -> float | None:
        """Deliver frames that are due; the seconds until the next is."""
        while self.under_way:
            wait_s = self.under_way[0][0] - time.monotonic()
            if wait_s > 0:
                return wait_s
            _, _, device, frame = heapq.heappop(self.under_way)
            target, source = frame[:6], frame[6:12]
            self.places[source] = device
            known = self.places.get(target)
            for other in [known] if known else [each for each in self.taps if each != device]:
                if not self.cables[other].loses():
                    self._write(other, frame)
        return None

    def _write(self, device: str, frame: bytes) -> None:
        try:
            os.write(self.taps[device], frame)
        except OSError:  # the host's side is not up yet, or full
            return


def _tap(device: str) -> int:
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TAP | _IFF_NO_PI))
    return tap


def main(devices: list[str]) -> None:
    """Run until the input ends."""
    switch = _Switch({device: _tap(device) for device in devices}, {device: Cable(device) for device in devices})
    selector = selectors.DefaultSelector()
    for device, tap in switch.taps.items():
        selector.register(tap, selectors.EVENT_READ, device)
    selector.register(sys.stdin, selectors.EVENT_READ)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        for key, _ in selector.select(switch.deliver()):
            if key.data is not None:
                try:
                    switch.take(key.data)
                except OSError:  # the host has ended, and its device with it
                    selector.unregister(key.fileobj)
                continue
            line = sys.stdin.readline()
            if not line:
                return
            cable = Cable(**json.loads(line))
            switch.cables[cable.device] = cable


if __name__ == "__main__":
    main(sys.argv[1:])
