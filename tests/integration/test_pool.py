"""The pool with real children that are killed, starved and abandoned: only the picture concerned is harmed."""

from __future__ import annotations

import contextlib
import copy
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from benchmarks.memory import peak_mb
from dream.actors.resources import WorkerResources
from dream.errors import DreamError, ImageCrashed, ImageRejected, ImageTimedOut, WorkerStopping
from dream.imaging import Limits
from dream.imaging.child import Renewal
from dream.imaging.decode import open_image
from dream.imaging.pool import Pool
from dream.imaging.structure import pixel_bytes
from dream.observe.metrics import POOL_JOBS
from dream.runs.sending import own_broker
from dream.settings import Settings
from tests.clocks import Clock
from tests.conftest import wait_for

GIBIBYTE = 2**30


def idle() -> None:
    """The poll of a waiter that has nothing else to do."""


def children() -> set[int]:
    return {child.pid for child in multiprocessing.active_children() if child.pid is not None}


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but that nobody has asked about does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@contextlib.contextmanager
def running(
    processes: int = 1, time_limit_s: float = 30, memory_bytes: int = 4 * GIBIBYTE, renewal: Renewal | None = None
) -> Iterator[Pool]:
    pool = Pool(Limits(), processes, time_limit_s, memory_bytes, renewal)
    pool.start()
    try:
        yield pool
    finally:
        pool.stop()
        assert not children()


class Panic(BaseException):
    """As a library in Rust raises it."""


class Panicking(Limits):
    """Bounds at which the code of a child panics."""

    def __getattribute__(self, name: str) -> object:
        if name == "max_jpeg_pixels":
            raise Panic("index out of bounds")
        return super().__getattribute__(name)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (300, 200), "teal").save(path)
    return path


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A file that a child never finishes reading: a pipe that nobody writes to."""
    path = tmp_path / "endless"
    os.mkfifo(path)
    return path


def test_a_panic_is_the_failure_of_its_picture_alone(tmp_path: Path, picture: Path) -> None:
    """It is no `Exception`, and would end a worker's run as if somebody had stopped that."""
    with running() as pool:
        with pytest.raises(ImageCrashed, match="index out of bounds"):
            pool.submit(picture, tmp_path / "out", Panicking()).wait(idle)
        assert pool.submit(picture, tmp_path / "out").wait(idle)


def test_pictures_are_processed(tmp_path: Path, picture: Path) -> None:
    with running(processes=2) as pool:
        assert len(children()) == 2
        jobs = [pool.submit(picture, tmp_path / f"out{number}") for number in range(6)]
        for number, job in enumerate(jobs):
            processed = job.wait(idle)
            assert (processed.width_px, processed.height_px, processed.extension) == (300, 200, "webp")
            assert (tmp_path / f"out{number}").stat().st_size == processed.size_bytes


def test_after_start_every_child_is_ready() -> None:
    """The first picture does not wait for imports: Pillow's codecs are in each child's memory already."""
    with running(processes=3):
        for pid in children():
            maps = Path(f"/proc/{pid}/maps").read_text()
            assert all(codec in maps for codec in ("/_imaging.", "/_webp.", "/_imagingcms."))


def test_a_bad_picture_is_rejected_with_its_reason(tmp_path: Path, picture: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"no picture")
    with running() as pool:
        before = children()
        with pytest.raises(ImageRejected, match="not a picture of an accepted format"):
            pool.submit(bad, tmp_path / "out").wait(idle)
        assert pool.submit(picture, tmp_path / "out").wait(idle).width_px == 300
        assert children() == before


def test_a_fault_that_is_not_the_pictures_is_a_crash(tmp_path: Path) -> None:
    with running() as pool, pytest.raises(ImageCrashed, match="FileNotFoundError"):
        pool.submit(tmp_path / "missing", tmp_path / "out").wait(idle)


def test_the_time_limit_ends_one_picture_and_the_next_runs(tmp_path: Path, picture: Path, endless: Path) -> None:
    with running(time_limit_s=3) as pool:
        before = children()
        slow, next_one = pool.submit(endless, tmp_path / "slow"), pool.submit(picture, tmp_path / "out")
        started_s = time.monotonic()
        with pytest.raises(ImageTimedOut, match="longer than 3 s"):
            slow.wait(idle)
        assert 2.9 < time.monotonic() - started_s < 8
        assert next_one.wait(idle).width_px == 300
        assert not before & children()


def test_a_picture_of_another_group_goes_before_those_that_waited(tmp_path: Path, picture: Path) -> None:
    with running(processes=1) as pool:
        ended: list[str] = []
        jobs = [(group, pool.submit(picture, tmp_path / f"{n}", group=group)) for n, group in enumerate("aaaaaaaab")]
        with ThreadPoolExecutor(len(jobs)) as threads:
            for group, job in jobs:
                threads.submit(job.wait, idle).add_done_callback(lambda _done, group=group: ended.append(group))  # type: ignore[misc]
        assert len(ended) == len(jobs)
        assert "b" in ended[:4]


@pytest.mark.slow
def test_the_time_limit_does_not_count_the_queue(tmp_path: Path, picture: Path, endless: Path) -> None:
    """Behind two pictures of 1 s each, the third waits longer than its own limit and is processed all the same."""
    with running(time_limit_s=1) as pool:
        slow = [pool.submit(endless, tmp_path / f"slow{number}") for number in range(2)]
        last = pool.submit(picture, tmp_path / "out")
        assert last.wait(idle).width_px == 300
        for job in slow:
            with pytest.raises(ImageTimedOut):
                job.wait(idle)


def test_a_busy_child_that_is_killed_fails_its_own_picture_only(tmp_path: Path, picture: Path, endless: Path) -> None:
    with running() as pool:
        job, behind = pool.submit(endless, tmp_path / "killed"), pool.submit(picture, tmp_path / "out")
        wait_for(lambda: not pool.has_free_child())
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(ImageCrashed, match="signal 9"):
            job.wait(idle)
        assert behind.wait(idle).width_px == 300


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 3])
def test_idle_children_that_are_killed_are_replaced(tmp_path: Path, picture: Path, processes: int) -> None:
    """Pebble gives up its pool when this happens; ours goes on, whether the next job comes before or after."""
    with running(processes=processes) as pool:
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        assert pool.submit(picture, tmp_path / "at once").wait(idle).width_px == 300
        before = children()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not any(map(is_alive, before)))
        jobs = [pool.submit(picture, tmp_path / f"later{number}") for number in range(4)]
        assert [job.wait(idle).width_px for job in jobs] == [300] * 4


def test_a_picture_that_waits_is_not_the_cause_of_broken_pools(tmp_path: Path, picture: Path, endless: Path) -> None:
    """Pebble gives up its pool four times, each time while another picture is in work."""
    with ThreadPoolExecutor(5) as threads, running() as pool:
        for number in range(4):
            threads.submit(pool.submit(endless, tmp_path / f"slow{number}").wait, idle)
        last = threads.submit(pool.submit(picture, tmp_path / "out").wait, idle)
        for _ in range(4):
            wait_for(lambda: not pool.has_free_child())
            broken = pool.inner
            broken.stop()  # type: ignore[no-untyped-call]
            wait_for(lambda broken=broken: pool.inner is not broken)  # type: ignore[misc]
        assert last.result(timeout=60).width_px == 300


@pytest.mark.slow
@pytest.mark.parametrize("renewal", [None, Renewal(pictures=2)], ids=["never renewed", "renewed"])
def test_children_that_are_killed_again_and_again_do_not_lose_a_picture(
    tmp_path: Path, picture: Path, renewal: Renewal | None
) -> None:
    """Each picture ends as processed or crashed, and after the storm all is well."""
    ended: list[str] = []

    def wait_for_one(pool: Pool, number: int) -> None:
        try:
            pool.submit(picture, tmp_path / f"out{number}").wait(idle)
            ended.append("processed")
        except ImageCrashed:
            ended.append("crashed")

    with running(processes=2, renewal=renewal) as pool:
        with ThreadPoolExecutor(4) as threads:
            work = [threads.submit(wait_for_one, pool, number) for number in range(40)]
            for _ in range(6):
                for pid in children():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                wait_for(children)
            for future in work:
                future.result(timeout=90)
        assert len(ended) == 40
        assert pool.submit(picture, tmp_path / "last").wait(idle).width_px == 300


@pytest.mark.slow
@pytest.mark.parametrize("renewal", [Renewal(pictures=4), Renewal(rss_bytes=1)], ids=["pictures", "memory"])
def test_children_are_renewed_and_no_picture_notices(tmp_path: Path, picture: Path, renewal: Renewal) -> None:
    """A child ends by itself after its number of pictures, or after any picture if it holds too much memory."""
    seen: set[int] = set()

    def process(pool: Pool, number: int) -> int:
        seen.update(children())
        return pool.submit(picture, tmp_path / f"out{number}").wait(idle).width_px

    with running(processes=2, renewal=renewal) as pool:
        first = children()
        with ThreadPoolExecutor(4) as threads:
            assert set(threads.map(lambda number: process(pool, number), range(16))) == {300}
        wait_for(lambda: not any(map(is_alive, first)), what="the end of the first children")
        assert len(seen) >= 4


def test_a_child_lives_for_ever_where_no_limit_is_set(tmp_path: Path, picture: Path) -> None:
    with running(renewal=Renewal(pictures=0, rss_bytes=0)) as pool:
        before = children()
        for number in range(8):
            pool.submit(picture, tmp_path / f"out{number}").wait(idle)
        assert children() == before


def test_children_that_started_together_are_renewed_one_by_one() -> None:
    """Each child's copy draws its own share of the limit, of which none is above it and none below three quarters."""
    lives = []
    for _ in range(20):
        of_child = copy.copy(Renewal(pictures=1000))
        lives.append(next(done for done in range(2000) if not done < of_child))
    assert 750 <= min(lives) < max(lives) <= 1000
    assert len(set(lives)) > 10


def test_who_polls_may_abandon_a_job_and_its_child_is_gone(tmp_path: Path, picture: Path, endless: Path) -> None:
    with running() as pool:
        before = children()
        polls: list[int] = []

        def give_up() -> None:
            polls.append(1)
            if not pool.has_free_child():
                raise KeyError("enough")

        with pytest.raises(KeyError, match="enough"):
            pool.submit(endless, tmp_path / "out").wait(give_up, interval_s=0.02)
        assert polls
        assert not any(map(is_alive, before))
        assert pool.submit(picture, tmp_path / "out").wait(idle).width_px == 300


def test_a_picture_that_needs_too_much_memory_says_so(tmp_path: Path, picture: Path) -> None:
    large = tmp_path / "large.png"
    Image.new("RGBA", (6000, 6000), (1, 2, 3, 4)).save(large, compress_level=1)
    with running(memory_bytes=220 * 2**20) as pool:
        before = children()
        with pytest.raises(ImageCrashed, match="memory"):
            pool.submit(large, tmp_path / "out").wait(idle)
        assert pool.submit(picture, tmp_path / "out").wait(idle).width_px == 300
        assert children() == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["progressive JPEG", "WebP", "PNG", "TIFF"])
def test_a_picture_takes_no_more_memory_than_its_header_lets_expect(tmp_path: Path, kind: str) -> None:
    """Of 16 megapixels each, beside what a child needs for any picture."""
    ramp = Image.linear_gradient("L")
    picture = Image.merge("RGBA", [ramp.rotate(90 * turn).resize((4000, 4000)) for turn in range(4)])
    out = io.BytesIO()
    if kind == "progressive JPEG":
        picture.convert("RGB").save(out, format="JPEG", progressive=True, subsampling="4:4:4")
    else:
        picture.save(out, format=kind, lossless=True, method=0, compress_level=1, compression="tiff_lzw")
    data = out.getvalue()
    small = io.BytesIO()
    picture.resize((300, 300)).save(small, format="PNG")
    expected = (
        4000 * 4000 * 3 * 2 if kind == "progressive JPEG" else pixel_bytes(open_image(io.BytesIO(data), Limits()))
    )
    assert 0.5 * expected < peak_mb(tmp_path, data, small.getvalue()) * 1e6 < expected + 40 * 2**20


def test_children_that_cannot_start_are_reported() -> None:
    """32 MiB are not enough for Python and Pillow."""
    with pytest.raises(ImageCrashed, match="do not start"), running(memory_bytes=32 * 2**20):
        pass
    assert not children()


LONG_LIFE = """
    import sys, time
    from dream.imaging import Limits, child

    while time.process_time() < 4:
        assert "processed" in child.run(sys.argv[1], sys.argv[2], Limits(), time_limit_s=60, cpu_s=1)
    child.run(sys.argv[1], sys.argv[2], Limits(), time_limit_s=60, cpu_s=0)
    while True:
        pass
"""


@pytest.mark.slow
def test_the_limit_on_processor_time_is_by_job_and_not_by_life(tmp_path: Path) -> None:
    """A child may work longer in all than one picture may, and is killed when it exceeds what one may."""
    heavy = tmp_path / "heavy.png"
    Image.effect_noise((3000, 1500), 90).save(heavy, compress_level=1)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LONG_LIFE), str(heavy), str(tmp_path / "out")],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGXCPU, done.stderr


def test_children_leave_the_signals_of_a_stopping_service_to_the_parent(tmp_path: Path, picture: Path) -> None:
    with running(processes=2) as pool:
        before = children()
        for pid in before:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
        assert pool.submit(picture, tmp_path / "out").wait(idle).width_px == 300
        assert children() == before


def test_stop_ends_children_and_waiters_at_once(tmp_path: Path, endless: Path) -> None:
    with running(processes=2) as pool, ThreadPoolExecutor(3) as threads:
        jobs = [pool.submit(endless, tmp_path / f"out{number}") for number in range(3)]
        waiters = [threads.submit(job.wait, idle) for job in jobs]
        wait_for(lambda: not pool.has_free_child())
        started_s = time.monotonic()
        pool.stop()
        assert time.monotonic() - started_s < 3
        assert not children()
        for waiter in waiters:
            assert isinstance(waiter.exception(timeout=5), WorkerStopping)
        with pytest.raises(WorkerStopping):
            pool.submit(endless, tmp_path / "late")
        pool.stop()


@pytest.fixture
def counted() -> Iterator[Callable[[], float | None]]:
    """The metric `dream_pool_jobs` of this process."""
    registry = CollectorRegistry()
    POOL_JOBS.switch_on(registry)
    yield lambda: registry.get_sample_value("dream_pool_jobs")
    POOL_JOBS.switch_off()


def test_the_metric_counts_pictures_that_wait_too_and_each_that_leaves_once(
    tmp_path: Path, picture: Path, endless: Path, counted: Callable[[], float | None]
) -> None:
    enough = threading.Event()

    def poll() -> None:
        if enough.is_set():
            raise KeyError("enough")

    with ThreadPoolExecutor(3) as threads, running() as pool:
        slow, *others, left = (pool.submit(each, tmp_path / "out") for each in (endless, picture, picture, picture))
        assert counted() == 4
        left.cancel()
        left.cancel()
        assert counted() == 3
        ends = [threads.submit(job.wait, poll) for job in (slow, *others)]
        wait_for(lambda: not pool.has_free_child())
        pool.inner.stop()  # type: ignore[no-untyped-call]
        wait_for(lambda: ends[1].done() and ends[2].done(), what="the other pictures, in a new inner pool")
        wait_for(lambda: counted() == 1, what="the slow one alone")
        enough.set()
        wait_for(lambda: counted() == 0, what="its end")


def test_the_metric_counts_no_picture_of_a_stopped_pool(
    tmp_path: Path, endless: Path, counted: Callable[[], float | None]
) -> None:
    with ThreadPoolExecutor(3) as threads, running() as pool:
        for number in range(3):
            threads.submit(pool.submit(endless, tmp_path / f"out{number}").wait, idle)
        assert counted() == 3
        pool.stop()
        wait_for(lambda: counted() == 0, what="the end of all")


def test_a_pool_that_was_not_started_says_so(tmp_path: Path) -> None:
    pool = Pool(Limits(), 1, 1, GIBIBYTE)
    with pytest.raises(DreamError, match="not been started"):
        pool.submit(tmp_path / "in", tmp_path / "out")
    pool.stop()


def test_children_outlive_the_thread_that_started_the_pool(tmp_path: Path, picture: Path) -> None:
    pool = Pool(Limits(), 1, 10, GIBIBYTE)
    starter = threading.Thread(target=pool.start)
    starter.start()
    starter.join()
    try:
        before = children()
        assert pool.submit(picture, tmp_path / "out").wait(idle).width_px == 300
        assert children() == before
    finally:
        pool.stop()


WITH_A_CLOCK = """
    import sys, threading, time
    from pathlib import Path
    from dream.imaging import Limits
    from dream.imaging.pool import Pool
    from tests.clocks import set_clock

    class Slow(Limits):
        def __getattribute__(self, name):
            if name == "max_jpeg_pixels":
                threading.Event().wait(0.5)
            return super().__getattribute__(name)

    if __name__ == "__main__":
        pool = Pool(Slow(), 1, 50, 2**32)
        pool.start()
        began = time.time()
        job = pool.submit(Path(sys.argv[1]), Path(sys.argv[2]))
        while pool.has_free_child():
            threading.Event().wait(0.01)
        set_clock(Path(sys.argv[3]), 3600)
        print(job.wait(lambda: None).width_px, time.time() - began > 3600)
        pool.stop()
"""


@pytest.mark.slow
def test_a_clock_that_is_set_times_no_picture_out(tmp_path: Path, picture: Path) -> None:
    """The time of day leaps by an hour while a child works: the picture is processed."""
    clock, script = Clock(tmp_path), tmp_path / "script.py"
    script.write_text(textwrap.dedent(WITH_A_CLOCK))
    done = subprocess.run(
        [sys.executable, str(script), str(picture), str(tmp_path / "out"), str(clock.file)],
        env=os.environ | clock.variables | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout.split() == ["300", "True"], done.stderr


PARENT = """
    import multiprocessing, signal, sys, threading
    from pathlib import Path
    from dream.imaging import Limits
    from dream.imaging.pool import Pool

    if __name__ == "__main__":
        pool = Pool(Limits(), 2, 60, 2**32)
        pool.start()

        def stop(*_):
            pool.stop()
            sys.exit(0)

        signal.signal(signal.SIGTERM, stop)
        jobs = [pool.submit(Path(sys.argv[1]), Path(sys.argv[1] + str(n))) for n in range(3)]
        threads = [threading.Thread(target=job.wait, args=(lambda: None,), daemon=True) for job in jobs]
        threading.excepthook = lambda *_: None
        [thread.start() for thread in threads]
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        signal.pause()
"""


@pytest.fixture
def parent(tmp_path: Path, endless: Path) -> Iterator[tuple[subprocess.Popen[str], set[int]]]:
    """A process with a busy pool of two, in a process group of its own, and the ids of its children."""
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(PARENT))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, str(script), str(endless)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            pids = {int(pid) for pid in process.stdout.readline().split()}
            assert len(pids) == 2
            yield process, pids
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_children_die_with_a_parent_that_is_killed(parent: tuple[subprocess.Popen[str], set[int]]) -> None:
    process, pids = parent
    assert all(map(is_alive, pids))
    process.kill()
    wait_for(lambda: not any(map(is_alive, pids)), timeout_s=5)


def test_a_whole_service_that_gets_sigterm_ends_at_once(
    parent: tuple[subprocess.Popen[str], set[int]],
) -> None:
    """The signal goes to parent and children alike, as from a service manager; children are busy."""
    process, pids = parent
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=5) == 0
    assert not any(map(is_alive, pids))


def test_a_worker_that_is_killed_leaves_no_noise() -> None:
    """Python's resource tracker outlives it, and removes its semaphores without a warning about them."""
    program = (
        "import os, signal\n"
        "from dream.imaging import Limits\n"
        "from dream.imaging.pool import Pool\n"
        "if __name__ == '__main__':\n"
        "    Pool(Limits(), 1, 60, 4 * 2**30).start()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (-signal.SIGKILL, "")


@pytest.mark.parametrize("thread", ["pool-start", "dream-pool-keeper"])
def test_a_worker_without_threads_for_its_pool_says_that_it_must_be_replaced(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, thread: str
) -> None:
    """A run that waited for the pool does not wait for ever, and the worker still stops."""
    start = threading.Thread.start

    def limited(self: threading.Thread) -> None:
        if self.name.startswith(thread):
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", limited)
    resources = WorkerResources(settings, own_broker(settings))
    resources.start_pool()
    assert resources.pool is not None  # waits until it has started, or cannot
    assert resources.is_unfit
    resources.stop_pool()
    resources.close()


@pytest.mark.parametrize("waits", [False, True], ids=["being built", "waited for"])
def test_a_stop_does_not_wait_for_children_that_still_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, waits: bool
) -> None:
    """A stopped pool does not start."""
    # A child that imports this module first never becomes ready.
    (tmp_path / "simplejpeg.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    pool = Pool(Limits(), 2, 30, 4 * GIBIBYTE)
    with ThreadPoolExecutor(1) as beside:
        starting = beside.submit(pool.start)
        wait_for(lambda: len(children()) == 2 and pool.inner.active if waits else children(), what="the children")
        began = time.monotonic()
        pool.stop()
        assert isinstance(starting.exception(timeout=5), WorkerStopping)
        assert time.monotonic() - began < 5
    assert not children()
    with pytest.raises(WorkerStopping):
        pool.start()
    assert not children()
