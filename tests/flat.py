"""Memory and descriptors over many pictures: each process of the stack must stay as large as it is after a quarter.

    python -m tests.flat [--pictures 20000] [--growth 0.15]

`dream up` runs with sockets on its gateway; small pictures go through it, and half of them are deleted again. The
memory of a process is what it has alone (USS). Children of the pool are never renewed here, or their renewal would hide
a leak. Ends with 1 where a process has grown by more than the given share and 4 MB, or has more descriptors.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import func, select
from websockets.sync.client import connect

from dream.cli.tokens import sign
from dream.db import DreamImage, dreams
from dream.messages.states import ImageState
from dream.producer import Producer
from dream.stack.up import running_variables
from tests.conftest import settings_from
from tests.pictures import noise
from tests.soak import command_of, descendants

__all__ = ["Use", "grown", "main"]

_BATCH, _DREAMS, _SOCKETS, _MOST_WAITING = 20, 20, 10, 200
_ROWS = 20
#: A process may grow by so much without being a leak: a cache, or pages that are not given back.
_SLACK_BYTES = 4_000_000
_SLACK_DESCRIPTORS = 5


class Use(NamedTuple):
    """The memory and the descriptors of a process."""

    uss_bytes: int
    descriptors: int


def main() -> int:
    """Run, print, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.flat", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--growth", type=float, default=0.15, help="most growth, as a share")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dream-flat-") as folder:
        samples = _run(Path(folder) / "data", options.pictures)
    findings = [text for name in samples[-1] if (text := grown(name, samples, options.growth))]
    for text in findings or ["flat"]:
        sys.stdout.write(f"{text}\n")
    return bool(findings)


def _run(data: Path, pictures: int) -> list[dict[str, Use]]:
    """Send pictures through a stack; the use of its processes at equal distances."""
    samples: list[dict[str, Use]] = []
    began = time.monotonic()
    with _stack(data) as (stack, variables), ExitStack() as sockets:
        producer = Producer(settings_from(variables))
        _watch(sockets, producer)
        for done in _pictures(producer, pictures):
            if done >= pictures * len(samples) / _ROWS:
                samples.append(_uses(stack.pid))
                _print(done, time.monotonic() - began, samples[-1])
    return samples


def grown(name: str, samples: list[dict[str, Use]], most: float) -> str:
    """A sentence if a process is larger in the last quarter than at the end of the first; else an empty string.

    Parameters:
      samples: at equal distances, from the first picture to the last.
      most: most growth, as a share.
    """
    series = [sample[name] for sample in samples if name in sample]
    quarter = max(1, len(series) // 4)
    before, after = series[quarter : 2 * quarter], series[-quarter:]
    if not before:
        return f"{name}: too few samples"
    least, then = (min(use.uss_bytes for use in part) for part in (before, after))
    fewest, open_then = (min(use.descriptors for use in part) for part in (before, after))
    if then > least * (1 + most) + _SLACK_BYTES:
        return f"{name} grows: {least / 1e6:.1f} MB in the second quarter, {then / 1e6:.1f} MB in the last"
    if open_then > fewest + _SLACK_DESCRIPTORS:
        return f"{name} keeps descriptors: {fewest} in the second quarter, {open_then} in the last"
    return ""


@contextmanager
def _stack(data: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A `dream up` on a new folder, and its variables."""
    never = {"DREAM_CHILD_MAX_PICTURES": "0", "DREAM_CHILD_MAX_RSS_BYTES": "0", "DREAM_LOG_LEVEL": "warning"}
    command = [sys.executable, "-m", "dream", "up", "--port", "0", "--data", str(data)]
    with subprocess.Popen(command, env=os.environ | never, stdout=subprocess.PIPE, text=True) as stack:
        assert stack.stdout is not None
        if not stack.stdout.readline().startswith("ready "):
            raise SystemExit("flat: the stack did not start")
        try:
            yield stack, running_variables(data)
        finally:
            stack.terminate()


def _watch(sockets: ExitStack, producer: Producer) -> None:
    """Open the sockets of pages, each on a dream of its own."""
    settings = producer.settings
    token = sign(settings, 1, 86400)
    with producer.database.begin() as session:
        for dream_id in range(1, _SOCKETS + 1):
            dreams.give_to(session, dream_id, 1, "ann")
    for dream_id in range(1, _SOCKETS + 1):
        address = f"{settings.gateway_url.replace('http', 'ws')}/ws/dream-images/{dream_id}/?token={token}"
        sockets.enter_context(connect(address, max_queue=None, ping_interval=None))  # nobody reads here


def _pictures(producer: Producer, count: int) -> Iterator[int]:
    """Send so many pictures; yields how many are stored."""
    sent = done = 0
    pictures = [noise(400, 300) for _ in range(_BATCH)]
    files: list[Any] = [{"name": f"{number}.jpg", "data": data} for number, data in enumerate(pictures)]
    while done < count:
        while sent < count and sent - done < _MOST_WAITING:
            dream_id = 1 + sent // _BATCH % _DREAMS
            producer.upload_images(dream_id, files, [0] * _BATCH)
            sent += _BATCH
            _delete_half(producer, dream_id)
        time.sleep(0.2)
        done = _stored(producer)
        yield done


def _delete_half(producer: Producer, dream_id: int) -> None:
    query = select(DreamImage).where(DreamImage.dream_id == dream_id, DreamImage.state == ImageState.COMPLETED)
    with producer.database.read() as session:
        images = session.scalars(query.limit(_BATCH // 2)).all()
    if images:
        producer.delete_images(dream_id, [{"id": image.id, "url": image.url} for image in images], "ann")


def _stored(producer: Producer) -> int:
    states = (ImageState.COMPLETED, ImageState.DELETING, ImageState.DELETED)
    with producer.database.read() as session:
        return session.scalar(select(func.count()).where(DreamImage.state.in_(states))) or 0


def _uses(stack_pid: int) -> dict[str, Use]:
    """The use of each of dream's own processes, by name and, where there are several, by number."""
    found: dict[str, Use] = {}
    counts: defaultdict[str, int] = defaultdict(int)
    for pid in sorted(descendants(stack_pid)):
        command = command_of(pid)
        names = {"spawn_main": "child", " worker": "worker", " gateway": "gateway", " scheduler": "scheduler"}
        name = next((name for part, name in names.items() if part in command), "")
        if name:
            counts[name] += 1
            found[f"{name} {counts[name]}" if counts[name] > 1 else name] = _use(pid)
    return found


def _use(pid: int) -> Use:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    own = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return Use(own * 1024, len(list(Path(f"/proc/{pid}/fd").iterdir())))


def _print(done: int, after_s: float, sample: dict[str, Use]) -> None:
    uses = "  ".join(f"{name} {use.uss_bytes / 1e6:.1f} MB {use.descriptors}" for name, use in sample.items())
    sys.stdout.write(f"{done:>6} pictures  {after_s:>5.0f} s  {uses}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
