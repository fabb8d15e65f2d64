"""Traces as a collector gets them: real processes, from the request or the call to the event on the page."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dream.db import RevokedToken
from dream.messages.registry import CLEANUP_TOKENS
from tests.collector import Collector, Span, collecting, environment_for
from tests.conftest import environment_in, prepare, settings_from, wait_for
from tests.gateway import DREAM, Gateway, auth, emptied, receive
from tests.pictures import noise
from tests.processes import Parts

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

SHOP = """
from dream.compat import Celery

app = Celery("shop")

@app.task(name="shop.outer")
def outer():
    inner.delay()

@app.task(name="shop.inner", bind=True, autoretry_for=(OSError,), max_retries=1, default_retry_delay=0.1)
def inner(self):
    if not self.request.retries:
        raise OSError("/home/ottilie/secret.jpg")

if __name__ == "__main__":
    app.worker_main(["worker", "-c", "2"])
"""
#: A web process that traces by itself, as one with OpenTelemetry's instrumentation for Django does.
SITE = """
import json, sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from dream.celery.tasks.image_tasks import delete_images, upload_images
from shop import app

provider = TracerProvider(resource=Resource({"service.name": "site"}))
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
with trace.get_tracer("site").start_as_current_span("GET /album"):
    app.send_task("shop.outer")
    app.send_task(sys.argv[1])
    upload_images(8, [{"name": "ottilie's wombat.jpg", "data": open("picture.jpg", "rb").read()}], [0])
    delete_images(8, [{"id": 1, "url": "dreams/20260101/" + "0" * 32 + ".jpg"}], "ottilie")
"""
UPLOADS = """
from dream.celery.tasks.image_tasks import upload_images

for _ in range({count}):
    upload_images(1, [{{"name": "a.jpg", "data": open("picture.jpg", "rb").read()}}], [0])
"""
RUN = "process dream_image_processing"


@dataclass
class Traced:
    """The spans of one upload to the gateway, and of one request to another site."""

    collector: Collector
    of_gateway: list[Span]
    of_site: list[Span]


def children(spans: list[Span], parent: Span) -> list[Span]:
    return [each for each in spans if each.parent_id == parent.id]


def child(spans: list[Span], parent: Span, name: str) -> Span:
    [found] = [each for each in children(spans, parent) if each.name == name]
    return found


@pytest.fixture(scope="module")
def traced(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    folder = tmp_path_factory.mktemp("traced")
    picture = noise()
    (folder / "shop.py").write_text(SHOP)
    (folder / "site.py").write_text(SITE)
    (folder / "picture.jpg").write_bytes(picture)
    with collecting() as collector:
        quick = {"DREAM_MAX_RETRIES": "1", "DREAM_RETRY_FIRST_S": "0.1", "DREAM_TRUSTED_PROXIES": "127.0.0.1"}
        environment = {**environment_in(folder, servers), **collector.environment, **quick, "DREAM_PORT": "0"}
        settings = prepare(settings_from(environment))
        parts = Parts(environment, folder)
        with Gateway(environment, settings, folder) as gateway:
            emptied(gateway)
            with sqlite3.connect(folder / "dream.db") as database:
                database.execute(f"DROP TABLE {RevokedToken.__tablename__}")
            worker = parts.start(program=[str(folder / "shop.py")], cwd=folder)
            with gateway.watching() as websocket:
                files = {"files": ("ottilie's wombat.jpg", picture)}
                told = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
                answer = gateway.http.post(f"/api/dreams/{DREAM}/images", files=files, headers=auth() | told)
                assert answer.status_code == 202, answer.text
                while receive(websocket)["status"] != "completed":
                    pass
            site = [sys.executable, "site.py", CLEANUP_TOKENS]
            subprocess.run(site, cwd=folder, env={**os.environ, **environment}, check=True, timeout=60)
            ends = {"process default": 5, RUN: 3, "process events": 4}
            wait_for(
                lambda: all(len(collector.named(name)) >= count for name, count in ends.items()),
                what=lambda: f"the spans of every run, not {sorted(each.name for each in collector.spans)}",
            )
            assert parts.stop(worker) == 0
        parts.end()
        [root] = collector.named("GET /album")
        spans = collector.spans
        yield Traced(
            collector,
            [each for each in spans if each.trace_id == "a" * 32],
            [each for each in spans if each.trace_id == root.trace_id],
        )


# --- one trace


def test_one_trace_leads_from_the_request_through_the_queue_to_the_event_on_the_page(traced: Traced) -> None:
    spans = traced.of_gateway
    [request] = [each for each in spans if each.parent_id == "b" * 16]
    assert (request.service, request.kind) == ("dream-gateway", "server")
    assert request.name == "POST /api/dreams/{dream_id:id}/images"
    assert request.attributes["http.response.status_code"] == 202
    call = child(spans, request, "upload_images")
    send = child(spans, call, "send dream_image_processing")
    run = child(spans, send, RUN)
    assert (send.service, send.kind, run.service, run.kind) == ("dream-gateway", "producer", "dream-worker", "consumer")
    told = [each for each in children(spans, run) if each.name == "send events"]
    last = told[-1]
    shown = child(spans, last, "process events")
    assert (shown.service, shown.attributes["dream.sockets"]) == ("dream-gateway", 1)
    assert [each for each in spans if each.is_failed] == []


def test_each_step_of_a_run_is_a_span_with_its_calls_to_the_servers(traced: Traced) -> None:
    spans = traced.of_gateway
    [run] = [each for each in spans if each.name == RUN]
    steps = {name: child(spans, run, name) for name in ("fetch", "process", "store", "record")}
    assert len({step.attributes["dream.image_id"] for step in steps.values()}) == 1
    assert child(spans, steps["fetch"], "S3/GetObject").kind == "client"
    assert child(spans, steps["store"], "S3/PutObject").attributes["rpc.service"] == "S3"
    update = child(spans, steps["record"], "UPDATE dream_images")
    assert update.attributes["db.system.name"] == "sqlite"
    assert "SET" in update.attributes["db.query.text"]
    assert "UPDATE dream_tasks" in {each.name for each in children(spans, run)}
    assert run.attributes["dream.attempt"] == 1
    assert run.attributes["dream.dream_id"] == DREAM
    assert run.attributes["dream.outcome"] == "done"


def test_the_callers_span_is_the_parent_of_calls_and_of_tasks(traced: Traced) -> None:
    spans = traced.of_site
    [root] = [each for each in spans if each.name == "GET /album"]
    assert {each.name for each in children(spans, root)} >= {"send default", "upload_images", "delete_images"}
    assert {each.trace_id for each in traced.collector.spans if each.service == "site"} == {root.trace_id}
    assert {each.service for each in spans} == {"site", "dream-worker"}
    deletion = child(spans, child(spans, child(spans, root, "delete_images"), "send dream_image_processing"), RUN)
    assert {"mark", "remove"} < {each.name for each in children(spans, deletion)}


def test_a_task_that_a_task_sends_is_in_its_trace(traced: Traced) -> None:
    spans = traced.of_site
    [outer] = [each for each in spans if each.attributes.get("dream.task") == "shop.outer" and each.kind == "consumer"]
    inner = children(spans, child(spans, outer, "send default"))
    assert {each.attributes["dream.task"] for each in inner} == {"shop.inner"}


# --- retries


@pytest.mark.parametrize("task", ["shop.inner", CLEANUP_TOKENS])
def test_a_retry_is_in_the_same_trace_beside_its_first_run_with_a_link_to_it(traced: Traced, task: str) -> None:
    runs = [each for each in traced.of_site if each.kind == "consumer" and each.attributes["dream.task"] == task]
    first, second = sorted(runs, key=lambda each: each.attributes["dream.attempt"])
    assert [each.attributes["dream.attempt"] for each in (first, second)] == [1, 2]
    assert first.parent_id == second.parent_id
    assert (first.links, second.links) == ((), (first.id,))


def test_a_run_that_failed_says_the_class_of_its_error(traced: Traced) -> None:
    runs = [each for each in traced.of_site if each.attributes.get("dream.task") == CLEANUP_TOKENS]
    failed = [each for each in runs if each.kind == "consumer"]
    assert [each.is_failed for each in failed] == [True, True]
    assert {each.attributes["error.type"] for each in failed} == {"sqlalchemy.exc.OperationalError"}
    assert {each.attributes["dream.outcome"] for each in failed} == {"retried", "failed"}


# --- what is in no span


def test_no_span_carries_names_keys_values_or_texts_of_errors(traced: Traced) -> None:
    sent = b"".join(traced.collector.bodies)
    assert b"upload_images" in sent
    named = ("ottilie", "wombat", "secret.jpg", "olga", "X-Amz", "staging/", "dreams/2", "Bearer", "no such table")
    assert [name for name in named if name.encode() in sent] == []


# --- off, and away


def test_one_module_imports_opentelemetry() -> None:
    """redis-py imports OpenTelemetry, too, if it is installed, so a process cannot be asked for that name."""
    code = {path: path.read_text() for path in (ROOT / "dream").rglob("*.py")}
    found = [path.name for path, text in code.items() if re.search(r"(import|from) opentelemetry", text)]
    assert found == ["otel.py"]
    users = [
        path.name for path, text in code.items() if "import dream.observe.otel" in text or "observe.otel import" in text
    ]
    assert sorted(users) == ["tracing.py", "tracing.py"]  # the engine's imports a type


def test_without_the_setting_no_process_imports_that_module_or_sentry(servers: dict[str, str], tmp_path: Path) -> None:
    """Python itself lists what each process imports; the web process is this call of `upload_images`."""
    environment = {**environment_in(tmp_path, servers), "PYTHONPROFILEIMPORTTIME": "1", "DREAM_PORT": "0"}
    prepare(settings_from(environment))
    (tmp_path / "picture.jpg").write_bytes(noise())
    (tmp_path / "site.py").write_text(UPLOADS.format(count=1))
    parts = Parts({**environment, "DREAM_JWT_SECRET": "a secret of the tests, 32 bytes or more"}, tmp_path)
    started = [parts.start(name) for name in ("worker", "scheduler", "gateway")]
    web = subprocess.run(
        [sys.executable, "site.py"],
        cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    wait_for(lambda: "task_succeeded" in parts.log_of(started[0]), what="the run")
    parts.end()
    for text in (web.stderr, *map(parts.log_of, started)):
        assert "dream.observe.tracing" in text
        assert "dream.observe.otel" not in text
        assert "sentry_sdk" not in text


@pytest.mark.parametrize("is_silent", [False, True], ids=["refuses", "takes connections and is silent"])
def test_a_collector_that_is_away_costs_one_line_and_no_work(
    servers: dict[str, str], tmp_path: Path, is_silent: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        environment = {**environment_in(tmp_path, servers), **environment_for(listener.getsockname()[1])}
        if not is_silent:
            listener.close()
        prepare(settings_from(environment))
        (tmp_path / "picture.jpg").write_bytes(noise())
        (tmp_path / "site.py").write_text(UPLOADS.format(count=5))
        parts = Parts(environment, tmp_path)
        worker = parts.start("worker")
        began = time.monotonic()
        subprocess.run([sys.executable, "site.py"], cwd=tmp_path, env={**os.environ, **environment}, check=True)
        wait_for(lambda: parts.log_of(worker).count('"task_succeeded"') == 5, timeout_s=60, what="5 uploads")
        wait_for(lambda: "traces_not_sent" in parts.log_of(worker), what="the line")
        worked_s, began = time.monotonic() - began, time.monotonic()
        assert parts.stop(worker) == 0
        stopped_s = time.monotonic() - began
        parts.end()
    lines = [json.loads(line) for line in parts.log_of(worker).splitlines() if line.startswith("{")]
    assert [line["level"] for line in lines if line["event"] == "traces_not_sent"] == ["warning"]
    assert [line for line in lines if "opentelemetry" in line["logger"]] == []
    assert stopped_s < 10, (worked_s, stopped_s)
