"""The whole way of an upload, from `upload_images` to `completed`, against `dream.imaging` alone on the same cores.

    python -m benchmarks.pipeline --photos FOLDER [--celery] [--rounds 5] [--batches 25] [--batch-size 4]
        [--worker-cores N]

Real servers (Valkey, SeaweedFS, SQLite), a real worker with a child for each core, and this process as the web layer.
All share the cores of the machine, as in `dream up`. With `--worker-cores` the worker has some cores to itself and the
other processes have the rest, like a worker on a machine of its own. The bound is cores ÷ (processor time of
`dream.imaging` for a picture), measured in one process at the beginning of each round. The processor time of each
process explains the difference. The benchmark prints medians of the rounds. With `--celery` each round also sends the
same pictures to `benchmarks.original`, the Celery system that dream replaces, on the same servers.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

from benchmarks.pictures import photo_paths
from benchmarks.processors import CHILDREN, WORKER, cpu_by_part
from dream.db import Database, migrate
from dream.imaging import Limits, process_file
from dream.messages.arguments import ImageFile
from dream.producer import Producer
from dream.runs.connections import Connections
from dream.runs.sending import own_broker
from dream.settings import Settings, load
from dream.stack import servers_only
from dream.storage import Storage

__all__ = ["main", "running_worker", "wait_until"]

_PATIENCE_S = 200.0
_WARM_UP_BATCHES = 2


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pipeline", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, metavar="FOLDER", help="JPEG photos")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=25)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument(
        "--worker-cores", type=int, metavar="N", help="cores for the worker alone; by default the worker has all cores"
    )
    parser.add_argument("--celery", action="store_true", help="compare with the documented Celery system")
    options = parser.parse_args()
    photos = photo_paths(options.photos)
    if not photos:
        parser.error(f"no JPEG is in {options.photos}")
    cores = sorted(os.sched_getaffinity(0))
    its_cores = cores[: options.worker_cores]
    os.sched_setaffinity(0, cores[options.worker_cores or 0 :] or cores)  # the servers inherit them
    with tempfile.TemporaryDirectory(prefix="dream-bench-") as name, servers_only(Path(name, "servers")) as variables:
        os.environ.update(variables, DREAM_DATABASE_URL=f"sqlite:///{name}/dream.db", DREAM_WORK_DIR=name)
        settings = load()
        migrate.upgrade(settings.database_url)
        Storage(settings).ensure_bucket(settings.s3_bucket)
        with running_worker(Path(name), its_cores), original_worker() if options.celery else nullcontext():
            _measure(settings, photos, options, len(its_cores))


def _measure(settings: Settings, photos: list[Path], options: argparse.Namespace, cores: int) -> None:
    database = Database(settings)
    broker = own_broker(settings)
    producer = Producer(settings, Connections(settings, database=database, storage=Storage(settings), broker=broker))
    files = [ImageFile(name=photo.name, data=photo.read_bytes()) for photo in photos]
    sent = 0

    def upload(count: int, call: Callable[..., object] = producer.upload_images) -> None:
        for number in range(count):
            chosen = [files[(number + index) % len(files)] for index in range(options.batch_size)]
            call(number + 1, chosen, [0] * options.batch_size)

    # Through the driver alone: the waiting process takes no processor time from the working ones.
    watching = database.engine.raw_connection()

    def all_done() -> bool:
        counts = watching.cursor().execute(
            "SELECT count(*) FILTER (WHERE state = 'succeeded'), count(*) FROM dream_tasks"
        )
        succeeded, recorded = counts.fetchone()
        return bool(succeeded == recorded == sent)

    def celery_rate(count: int) -> float:
        """Pictures per second of the Celery system."""
        from benchmarks import original

        wanted = original.finished() + count * options.batch_size
        started_s = time.monotonic()
        upload(count, original.upload_images)
        wait_until(lambda: original.finished() == wanted)
        return count * options.batch_size / (time.monotonic() - started_s)

    upload(_WARM_UP_BATCHES)
    sent += _WARM_UP_BATCHES
    wait_until(all_done)
    if options.celery:
        celery_rate(_WARM_UP_BATCHES)
    rounds, celery_rates = [], []
    for _ in range(options.rounds):
        engine_s = _engine_cpu_s(photos, Limits.of(settings))
        before, started_s = cpu_by_part(), time.monotonic()
        upload(options.batches)
        sent += options.batches
        wait_until(all_done)
        taken_s, after = time.monotonic() - started_s, cpu_by_part()
        pictures = options.batches * options.batch_size
        parts_s = {part: (after[part] - before.get(part, 0.0)) / pictures for part in after}
        rounds.append(Round(engine_s, pictures / taken_s, cores, parts_s))
        if options.celery:
            celery_rates.append(celery_rate(options.batches))
    _report(rounds)
    if celery_rates:
        ratios = sorted(each.rate / rate for each, rate in zip(rounds, celery_rates, strict=True))
        middle, rate = statistics.median(ratios), statistics.median(celery_rates)
        print(f"The Celery system finishes {rate:.1f} pictures a second; dream is {middle:.1f} times as fast", end=" ")
        print(f"({ratios[0]:.1f} to {ratios[-1]:.1f}).")
    watching.close()
    broker.close()
    database.dispose()


class Round(NamedTuple):
    """The figures of one round; processor time is per picture."""

    engine_s: float
    rate: float
    cores: int
    parts_s: dict[str, float]

    @property
    def of_bound(self) -> float:
        return self.rate * self.engine_s / self.cores

    @property
    def of_all(self) -> float:
        return self.engine_s / sum(self.parts_s.values())

    @property
    def of_worker(self) -> float:
        return self.engine_s / (self.parts_s[CHILDREN] + self.parts_s[WORKER])


def _report(rounds: Sequence[Round]) -> None:
    def middle(value: Callable[[Round], float]) -> float:
        return statistics.median(map(value, rounds))

    def percent(value: Callable[[Round], float]) -> str:
        percents = sorted(round(100 * value(each)) for each in rounds)
        return f"{100 * middle(value):.0f}% ({percents[0]} to {percents[-1]})"

    print(f"The engine takes {middle(lambda each: each.engine_s) * 1e3:.1f} ms of a core for a picture.")
    rate = middle(lambda each: each.rate)
    print(
        f"{rate:.1f} pictures a second: {percent(lambda each: each.of_bound)} of what the cores can do with it alone."
    )
    print("Processor time for a picture:")
    taken_s = {part: middle(lambda each, part=part: each.parts_s.get(part, 0.0)) for part in rounds[-1].parts_s}
    for part, part_s in sorted(taken_s.items(), key=lambda item: -item[1]):
        print(f"{part_s * 1e3:8.1f} ms  {part}")
    print("The engine's share of it, which is what cores that nobody else uses can reach:")
    print(f"{percent(lambda each: each.of_all)} of all processor time,")
    print(f"{percent(lambda each: each.of_worker)} of that of the worker and its children.")


def _engine_cpu_s(photos: list[Path], limits: Limits, passes: int = 3) -> float:
    """Processor time of `process_file` for one picture, on average over the photos."""
    with tempfile.TemporaryDirectory(prefix="dream-bench-") as folder:
        target = Path(folder, "target")
        process_file(photos[0], target, limits)
        started_s = time.process_time()
        for photo in photos * passes:
            process_file(photo, target, limits)
        return (time.process_time() - started_s) / (passes * len(photos))


@contextmanager
def running_worker(folder: Path, cores: list[int]) -> Iterator[None]:
    """`dream worker` on these cores, ready for work."""
    ready = folder / "ready"
    environment = {**os.environ, "DREAM_READY_FILE": str(ready), "DREAM_LOG_LEVEL": "warning"}
    others = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    worker = subprocess.Popen([sys.executable, "-m", "dream", "worker"], env=environment)
    os.sched_setaffinity(0, others)
    try:
        wait_until(lambda: ready.exists() or worker.poll() is not None)
        yield
    finally:
        worker.terminate()
        worker.wait(30)


@contextmanager
def original_worker() -> Iterator[None]:
    """The documented Celery worker, with four threads."""
    from benchmarks import original

    original.app.conf.broker_url = os.environ["DREAM_BROKER_URL"]
    original.create_table()
    command = "worker --pool threads --concurrency 4 --loglevel warning --without-mingle --without-gossip"
    worker = subprocess.Popen([sys.executable, "-m", "celery", "-A", "benchmarks.original", *command.split()])
    try:
        yield
    finally:
        worker.terminate()
        worker.wait(30)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for the condition, at most `_PATIENCE_S`."""
    give_up_s = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > give_up_s:
            raise SystemExit(f"waited for longer than {_PATIENCE_S:g} s")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
