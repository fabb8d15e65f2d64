"""Celery's command line: what it becomes here, and what is refused by name."""

from __future__ import annotations

import os

import pytest

from dream.compat.commandline import CommandLine, Refused, parse_beat, parse_worker
from dream.settings import load


def test_no_arguments_change_nothing() -> None:
    """The defaults are the settings' own: threads, 4, both queues, info."""
    assert parse_worker([]) == CommandLine({})
    assert parse_beat([]) == CommandLine({})


def test_the_documented_arguments_are_understood() -> None:
    line = "worker --pool=threads -Q default,dream_image_processing --loglevel=info --concurrency=4"
    assert parse_worker(line.split()) == CommandLine(
        {"DREAM_WORKER_THREADS": "4", "DREAM_LOG_LEVEL": "info"}, frozenset({"default", "dream_image_processing"})
    )
    assert parse_beat(["beat", "--loglevel=info"]) == CommandLine({"DREAM_LOG_LEVEL": "info"})


@pytest.mark.parametrize(
    "line",
    [
        "-A dream.celery worker -l INFO -c 4 -P threads -Q default",
        "--app=dream.celery.app:app worker --loglevel INFO --concurrency 4 --pool threads --queues default",
        "worker -linfo -c4 -Pthreads -X dream_image_processing --without-gossip --without-mingle --without-heartbeat",
    ],
)
def test_spellings_of_the_same(line: str) -> None:
    orders = parse_worker(line.split())
    assert orders.variables == {"DREAM_WORKER_THREADS": "4", "DREAM_LOG_LEVEL": "info"}
    assert orders.queues == {"default"}


def test_an_app_and_what_it_needs() -> None:
    line = (
        "-A shop.celery:app --workdir /srv worker -Q video,default -I shop.extra,shop.more --soft-time-limit 9 -Ofair"
    )
    assert parse_worker(line.split()) == CommandLine(
        {},
        frozenset({"video", "default"}),
        app="shop.celery:app",
        folder="/srv",
        include=("shop.extra", "shop.more"),
        soft_time_limit_s=9,
    )
    assert parse_beat(["-A", "shop", "beat", "-n", "b@%h", "--no-enable-remote-control"]) == CommandLine({}, app="shop")


def test_what_is_given_in_other_words() -> None:
    orders = parse_worker(["-c", "auto", "-l", "FATAL", "--result-backend", "redis://h/2"])
    assert orders.variables == {
        "DREAM_WORKER_THREADS": str(len(os.sched_getaffinity(0))),
        "DREAM_LOG_LEVEL": "error",
        "DREAM_REDIS_URL": "redis://h/2",
    }


def test_broker_time_limit_and_name() -> None:
    orders = parse_worker(["-b", "redis://h/1", "--time-limit=20", "-n", "w1@%h"])
    variables = {"DREAM_BROKER_URL": "redis://h/1", "DREAM_TIME_LIMIT_S": "20.0", "DREAM_WORKER_NAME": "w1@%h"}
    assert orders == CommandLine(variables)
    assert parse_worker(["--broker=pyamqp://h//"]).variables == {"DREAM_BROKER_URL": "amqp://h//"}
    assert parse_worker(["--hostname=w1"]).variables == {"DREAM_WORKER_NAME": "w1@%h"}


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("--pool=prefork", "--pool=prefork"),
        ("--broker=memory://", "--broker"),
        ("-P gevent", "--pool=gevent"),
        ("--autoscale=10,3", "--autoscale"),
        ("--max-tasks-per-child=100", "--max-tasks-per-child"),
        ("--max-memory-per-child 12000", "--max-memory-per-child"),
        ("-B", "-B"),
        ("-f worker.log", "-f"),
        ("--pidfile=/run/w.pid", "--pidfile"),
        ("-E", "-E"),
        ("--events", "--events"),
        ("--pool-start-method=spawn", "--pool-start-method"),
        ("--result-backend=db+sqlite:///r", "--result-backend=db"),
        ("--purge", "--purge"),
        ("-Q video", "--queues=video"),
        ("-Q default -X default", "no queue"),
        ("-c 0", "--concurrency"),
        ("-c many", "--concurrency"),
        ("-l chatty", "--loglevel=chatty"),
        ("-O slow", "-O"),
        ("--conc=4", "--conc=4"),
        ("--frobnicate", "--frobnicate"),
        ("beat", "beat"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(line: str, named: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_worker(line.split())
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "line", ["-s beat.db", "-S other.Scheduler", "--max-interval=5", "--detach", "-c 4", "--enable-remote-control"]
)
def test_beat_refuses_by_name_too(line: str) -> None:
    with pytest.raises(Refused, match=line.split("=")[0].split()[0]):
        parse_beat(line.split())


def test_an_app_of_the_environment_has_queues_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that the command line names."""
    with pytest.raises(Refused, match="there is no queue 'mail'"):
        parse_worker(["-Q", "mail"])
    monkeypatch.setenv("DREAM_APP", "shop")
    load.cache_clear()
    try:
        assert parse_worker(["-Q", "mail"]).queues == {"mail"}
    finally:
        load.cache_clear()
