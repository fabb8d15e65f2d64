"""Metrics of real processes, scraped as Prometheus scrapes them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from dream.messages.registry import IMAGES_QUEUE, PROCESS_IMAGES
from tests.acceptance.conftest import System
from tests.conftest import wait_for
from tests.pictures import noise
from tests.processes import WORKER, Parts, Process
from tests.scraping import Scrape, Watch, free_port, until

pytestmark = pytest.mark.slow

#: Clocks by which a dead worker's tasks come back soon.
QUICK = {
    "DREAM_HEARTBEAT_S": "2",
    "DREAM_LEASE_S": "2",
    "DREAM_LEASE_RENEW_S": "1",
    "DREAM_SHUTDOWN_TIMEOUT_S": "2",
    "DREAM_RESEND_AFTER_S": "4",
}


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def metrics(environment: dict[str, str], port: int, tmp_path: Path) -> dict[str, str]:
    """The variables of parts that serve metrics on this test's port."""
    return {"DREAM_METRICS_PORT": str(port), "DREAM_METRICS_DIR": str(tmp_path)}


@pytest.mark.timeout(300)
def test_counters_add_up_over_processes_and_never_fall_when_one_is_killed(
    parts: Parts, system: System, metrics: dict[str, str], port: int, tmp_path: Path
) -> None:
    """`dramatiq -p 2`, each process with a pool. One dies by kill -9 before it stores its picture; dramatiq then ends
    the other, and the service manager, here the test, starts both again."""
    struck = tmp_path / "struck"
    variables = {**metrics, **QUICK, "DREAM_FAULT": f"put:before=kill*1@{struck}"}

    def start() -> Process:
        # Not until it is ready: on a busy machine the pools of two processes take their time.
        return parts.start("dream.actors", "-p", "2", "-t", "2", program=("-m", "dramatiq"), ready=False, **variables)

    first = start()
    until(port, lambda now: now.sum("dream_processes", part="worker") == 2, "both processes")
    picture = noise(300, 200)
    with Watch(port) as watch:
        uploads = [{"name": "a.jpg", "data": picture}] * 2
        tasks = [system.producer.upload_images(1, uploads, [0, 0]) for _ in range(6)]
        first.wait(60)
        assert struck.exists()
        start()
        for task_id in tasks:
            system.await_end(task_id)
        until(port, lambda now: now.sum("dream_task_runs_total", outcome="succeeded") == 6, "six ended runs")
        last = until(port, lambda now: now.sum("dream_pool_processes") == 4, "both pools, each with its express lane")
    assert watch.count > 5
    assert watch.fallen == []
    assert last.sum("dream_pictures_total", outcome="completed", format="jpeg") == 12
    assert last.sum("dream_pictures_total") == 12
    stored = sum(image.size_bytes or 0 for task_id in tasks for image in system.images(task_id))
    assert last.sum("dream_picture_written_bytes_total") == stored
    assert last.sum("dream_processes", part="worker") == 2
    for step in ("fetch", "process", "put", "complete"):
        assert (last.sum("dream_step_seconds_count", step=step) or 0) >= 12, step
    assert (last.sum("dream_task_wait_seconds_count", task=PROCESS_IMAGES, queue=IMAGES_QUEUE) or 0) >= 6
    assert (last.sum("dream_store_seconds_count", operation="PutObject") or 0) >= 12
    assert (last.sum("dream_database_seconds_count", statement="update") or 0) > 12


@pytest.mark.timeout(300)
def test_the_successor_of_a_killed_process_counts_on_and_another_process_serves_meanwhile(
    parts: Parts, system: System, metrics: dict[str, str], port: int, jpeg: bytes
) -> None:
    """A worker by the old start script, and a scheduler, on one port."""
    worker = parts.start(program=(str(WORKER),), ready=False, **metrics, **QUICK)
    parts.start("scheduler", ready=False, **metrics, **QUICK)
    system.await_end(system.producer.upload_images(1, [{"name": "a.jpg", "data": jpeg}], [0]))
    before = until(port, lambda now: now.sum("dream_pictures_total") == 1 and both(now), "both parts")
    (child,) = children_of(worker.pid)
    with Watch(port) as watch:
        os.kill(child, signal.SIGKILL)
        wait_for(lambda: children_of(worker.pid) not in ([child], []), 60, what="the successor")
        until(port, lambda now: both(now) and now.sum("dream_start_time_seconds", part="worker")
              != before.sum("dream_start_time_seconds", part="worker"), "the successor")  # fmt: skip
        system.await_end(system.producer.upload_images(1, [{"name": "a.jpg", "data": jpeg}], [0]))
        until(port, lambda now: now.sum("dream_pictures_total") == 2, "both pictures")
    assert watch.fallen == []


def both(now: Scrape) -> bool:
    return now.sum("dream_processes", part="worker") == now.sum("dream_processes", part="scheduler") == 1


def children_of(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.timeout(300)
def test_the_age_of_the_oldest_grows_while_no_worker_runs(
    parts: Parts, system: System, metrics: dict[str, str], port: int, jpeg: bytes
) -> None:
    """And every metric of a dead part vanishes."""
    system.producer.upload_images(1, [{"name": "a.jpg", "data": jpeg}], [0])
    scheduler = parts.start("scheduler", ready=False, **metrics)

    def age(now: Scrape) -> float:
        return now.sum("dream_queue_oldest_age_seconds", queue=IMAGES_QUEUE) or 0

    first = until(port, lambda now: age(now) > 0, "an age")
    later = until(port, lambda now: age(now) > age(first) + 5, "a greater age")
    assert later.sum("dream_queue_waiting_tasks", queue=IMAGES_QUEUE) == 1
    assert later.sum("dream_queue_messages", queue=IMAGES_QUEUE, state="waiting") == 1
    assert later.sum("dream_pictures_unfinished") == 1
    assert (later.sum("dream_job_last_success_timestamp_seconds", name="resend") or 0) > 0
    parts.kill(scheduler)
    parts.start("worker", ready=False, **metrics)
    last = until(port, lambda now: now.sum("dream_pictures_total") == 1, "the picture")
    assert last.sum("dream_queue_oldest_age_seconds") is None
    assert last.sum("dream_processes", part="scheduler") is None


def test_a_taken_port_is_one_warning_and_the_part_works(
    parts: Parts, system: System, environment: dict[str, str], metrics: dict[str, str], port: int, jpeg: bytes
) -> None:
    with socket.create_server(("127.0.0.1", port)):
        worker = parts.start("worker", ready=False, **metrics)
        system.await_end(system.producer.upload_images(1, [{"name": "a.jpg", "data": jpeg}], [0]))
    told = [line for line in parts.log_of(worker).splitlines() if "metrics_not_served" in line]
    assert len(told) == 1
    assert str(port) in told[0]
    assert "DREAM_METRICS_PORT" in told[0]
    until(port, lambda now: now.sum("dream_pictures_total") == 1, "the metrics, once the port is free")


def test_metrics_listen_on_loopback_alone(parts: Parts, metrics: dict[str, str], port: int, settings: object) -> None:
    scheduler = parts.start("scheduler", ready=False, **metrics)
    until(port, lambda now: now.sum("dream_processes") == 1, "the metrics")
    told = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    listening = [line.split()[3] for line in told.splitlines() if f"pid={scheduler.pid}," in line]
    assert listening == [f"127.0.0.1:{port}"]
