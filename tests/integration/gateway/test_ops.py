"""The data of the page of operators: who sees it, what it has, and what replay and purge do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dream.db import DreamImage, DreamTask, images
from dream.db.clock import now
from dream.db.usage import measure
from dream.messages.registry import PROCESS_IMAGES
from dream.messages.states import ImageState, TaskState
from dream.producer import Producer
from dream.runs.usage import note_usage
from dream.settings import Settings
from dream.storage import Storage
from dream.version import __version__
from tests.conftest import wait_for
from tests.gateway import DREAM, OWNER, Gateway, auth, token
from tests.pictures import noise
from tests.processes import Parts
from tests.scraping import Scrape, free_port

OPERATOR = auth(token(99, dream_operator=True))


def add_failed(gateway: Gateway, task_id: str, *, ago_s: float = 0, staged: str | None = None) -> None:
    """A failed and announced upload of one picture."""
    with gateway.database.begin() as session:
        session.add(
            DreamTask(
                id=task_id,
                name=PROCESS_IMAGES,
                args=[DREAM],
                state=TaskState.FAILED,
                attempts=2,
                error="the object store did not answer\nConnection refused by 10.0.0.1",
                error_code="object_store_unavailable",
                finished_at=now(-ago_s),
                announced_at=now(-ago_s),
            )
        )
        session.add(
            DreamImage(
                dream_id=DREAM,
                user_id=OWNER,
                task_id=task_id,
                index=0,
                filename="<b>a.jpg",
                state=ImageState.FAILED,
                storage_key=f"dreams/20260101/{task_id}",
                staging_key=staged,
                original_bytes=4,
                error="the object store did not answer",
            )
        )


@pytest.mark.parametrize("path", ["", "/failed", "/failed/any"])
def test_only_the_operators_claim_opens_it(gateway: Gateway, path: str) -> None:
    """A number or a text in the claim is no permission; nor is the token in the query or in a cookie."""
    address = f"/api/ops{path}"
    assert gateway.http.get(address).status_code == 401
    query = {"token": OPERATOR["Authorization"].removeprefix("Bearer ")}
    assert gateway.http.get(address, params=query, headers={"Cookie": f"token={query['token']}"}).status_code == 401
    for claims in ({}, {"dream_operator": "true"}, {"dream_operator": 1}):
        refused = gateway.http.get(address, headers=auth(token(99, **claims)))
        assert (refused.status_code, refused.json()["code"]) == (403, "not_an_operator")
        assert "dream_operator" in refused.json()["error"]


def test_a_revoked_token_opens_nothing(gateway: Gateway) -> None:
    revoked = auth(token(99, dream_operator=True, jti="gone"))
    assert gateway.http.get("/api/ops", headers=revoked).status_code == 200
    assert gateway.http.post("/api/auth/logout", headers=revoked).status_code == 204
    for path in ("", "/failed"):
        assert gateway.http.get(f"/api/ops{path}", headers=revoked).status_code == 401
    assert gateway.http.post("/api/ops/failed/purge", json={"ids": ["a"]}, headers=revoked).status_code == 401


def figures(gateway: Gateway) -> dict[str, Any]:
    answer = gateway.http.get("/api/ops", headers=OPERATOR)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_figures_are_those_of_the_rows_the_broker_and_the_processes(gateway: Gateway) -> None:
    producer = Producer(gateway.settings)
    try:
        producer.upload_images(DREAM, [{"name": "a.jpg", "data": b"x"}], user_id=OWNER)
    finally:
        producer.close()
    add_failed(gateway, "dead")
    with gateway.database.begin() as session:
        later = now(3600)
        session.add(DreamTask(id="later", name=PROCESS_IMAGES, args=[DREAM], due_at=later))
    note_usage(gateway.settings, measure(gateway.database))
    # Answers are up to a second old.
    seen = wait_for(lambda: (found := figures(gateway))["tasks"]["failed"] == 1 and found, what="figures of now")
    assert seen["away"] == {}
    queue = next(each for each in seen["queues"] if each["name"] == "dream_image_processing")
    assert (queue["waiting"], queue["due_tasks"], queue["running"], queue["delayed_tasks"]) == (1, 1, 0, 1)
    assert 3500 < queue["first_due_at"] - seen["at"] <= 3601
    assert queue["first_due_at"] == queue["last_due_at"]
    assert seen["history"]["states"] == ["succeeded", "failed", "revoked"]
    assert [minute[1:] for minute in seen["history"]["minutes"] if any(minute[1:])] == [[0, 1, 0]]
    # The gateway registers every 10 s; its key was just removed with those of other tests.
    assert {(each["kind"], each["version"]) for each in seen["processes"]} <= {("gateway", __version__)}
    assert seen["storage"]["staged"] == {"files": 1, "staged_bytes": 0, "unmeasured": 1}
    assert [entry["name"] for entry in seen["schedule"]] == ["cleanup-expired-tokens"]
    assert (seen["runs"], seen["metrics"]) == ([], {})


def test_a_source_that_is_away_is_named_and_the_others_are_shown(start: Callable[..., Gateway]) -> None:
    """Without passwords; the database is needed for no figure of the others, nor for the page."""
    with start(redis_url=f"redis://:hunter2hunter2@127.0.0.1:{free_port()}/0") as gateway:
        seen = figures(gateway)
        assert list(seen["away"]) == ["redis"]
        assert "hunter2" not in seen["away"]["redis"]
        assert (seen["processes"], seen["storage"]) == (None, None)
        assert seen["tasks"]["running"] == 0
        assert seen["queues"][0]["waiting"] == 0
        assert gateway.http.get("/ops").status_code == 200


def test_failed_tasks_are_listed_page_by_page_and_shown_with_the_operators_words(gateway: Gateway) -> None:
    """Callers may have chosen any text as the ID of a task."""
    names = ["t/0", "t 1", "täsk 2", "t\n3", "t-4"]
    for number, name in enumerate(names):
        add_failed(gateway, name, ago_s=number // 2)
    address: str | None = "/api/ops/failed?limit=2"
    ids: list[str] = []
    while address:
        page = gateway.http.get(address, headers=OPERATOR)
        ids += [each["id"] for each in page.json()]
        address = page.links.get("next", {}).get("url")
    assert sorted(ids) == sorted(names)
    assert ids[-1] == "t-4"
    shown = gateway.http.get("/api/ops/failed/t-4", headers=OPERATOR).json()
    assert (shown["error"], shown["error_code"]) == ("the object store did not answer", "object_store_unavailable")
    assert (shown["detail"], shown["dream_id"], shown["runs"]) == ("Connection refused by 10.0.0.1", DREAM, 2)
    assert [(each["filename"], each["state"]) for each in shown["images"]] == [("<b>a.jpg", "failed")]
    none = gateway.http.get("/api/ops/failed/none", headers=OPERATOR)
    assert (none.status_code, none.json()["code"]) == (404, "failed_task_not_found")


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "cursor=x", "cursor=1-", "cursor=9999999999999999-a"]
)
def test_a_wrong_page_is_refused_or_empty(gateway: Gateway, query: str) -> None:
    answer = gateway.http.get(f"/api/ops/failed?{query}", headers=OPERATOR)
    assert answer.status_code in (200, 400)
    assert answer.json() == [] or answer.json()["code"] == "query_invalid"


def test_replay_runs_a_task_again_and_purge_deletes_it_with_its_bytes(gateway: Gateway) -> None:
    """Both are logged with the operator; a repetition finds nothing."""
    storage, bucket = Storage(gateway.settings), gateway.settings.s3_bucket
    storage.put_bytes(bucket, "staging/purged", b"four")
    add_failed(gateway, "again", staged="staging/again")
    add_failed(gateway, "purged", staged="staging/purged")
    replayed = gateway.http.post("/api/ops/failed/replay", json={"ids": ["again", "none", "again"]}, headers=OPERATOR)
    assert (replayed.status_code, replayed.json()) == (200, {"done": ["again"], "gone": ["none"]})
    purged = gateway.http.post("/api/ops/failed/purge", json={"ids": ["purged", "again"]}, headers=OPERATOR)
    assert purged.json() == {"done": ["purged"], "gone": ["again"]}
    with gateway.database.read() as session:
        task = session.get(DreamTask, "again")
        assert task is not None
        assert (task.state, task.attempts) == (TaskState.QUEUED, 0)
        assert [each.state for each in images.of_task(session, "again")] == [ImageState.PENDING]
        assert session.get(DreamTask, "purged") is None
        assert images.of_task(session, "purged") == []
    assert list(storage.list_keys(bucket, "staging/")) == []
    log = wait_for(lambda: (text := gateway.log.read_text()).count("operator_acted") >= 2 and text, what="the log")
    acted = [line for line in log.splitlines() if "operator_acted" in line]
    assert '"user": "99"' in acted[-1]
    assert '"purge"' in acted[-1]
    assert '"purged"' in acted[-1]


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"{}", b'{"ids": []}', b'{"ids": [1]}', b'{"ids": ["a"], "all": true}', b'{"ids": [""]}'),
        *(b'{"ids": ["\\u0000"]}', b'{"ids": ["\\ud800"]}', b'{"ids": ["' + b"a" * 156 + b'"]}', b"[" * 9000),
    ],
)
def test_a_wrong_body_is_one_clear_error(gateway: Gateway, body: bytes) -> None:
    for action in ("replay", "purge"):
        answer = gateway.http.post(f"/api/ops/failed/{action}", content=body, headers=OPERATOR)
        assert (answer.status_code, answer.json()["code"]) == (400, "body_invalid")
    most = gateway.http.post("/api/ops/failed/purge", json={"ids": ["a"] * 101}, headers=OPERATOR)
    assert most.status_code == 400
    long = gateway.http.post("/api/ops/failed/purge", content=b" " * 70_000, headers=OPERATOR)
    assert (long.status_code, long.json()["code"]) == (413, "body_too_large")


def test_an_id_that_no_database_holds_is_no_failed_task(
    environment: dict[str, str], settings: Settings, postgres_url: str, tmp_path: Path
) -> None:
    at_postgres = settings.model_copy(update={"database_url": postgres_url})
    with Gateway({**environment, "DREAM_DATABASE_URL": postgres_url}, at_postgres, tmp_path) as gateway:
        for task_id in ("%00", "a%00b"):
            answer = gateway.http.get(f"/api/ops/failed/{task_id}", headers=OPERATOR)
            assert (answer.status_code, answer.json()["code"]) == (404, "failed_task_not_found")


@pytest.mark.slow
def test_times_of_steps_are_those_that_prometheus_scrapes(
    start: Callable[..., Gateway], environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """The worker counts; `/metrics` and the page of operators show the same series."""
    port, parts, producer = free_port(), Parts(environment, tmp_path), Producer(settings)

    def counted(found: dict[str, Any]) -> float:
        runs = found["metrics"].get("dream_task_runs_total", [])
        return sum(each["value"] for each in runs if each["labels"]["outcome"] == "succeeded")

    try:
        own = {"DREAM_METRICS_PORT": str(port), "DREAM_METRICS_DIR": str(tmp_path)}
        parts.start("worker", **own, DREAM_WORKER_NAME="w1@host")
        producer.upload_images(DREAM, [{"name": "a.jpg", "data": noise(300, 200)}])
        with start() as gateway:
            seen = wait_for(lambda: counted(found := figures(gateway)) == 1 and found, 60, "the run in the figures")
        scraped = Scrape(port)
    finally:
        producer.close()
        parts.end()
    [worker] = [each for each in seen["processes"] if each["kind"] == "worker"]
    assert (worker["name"], worker["has_metrics"], worker["runs"]) == ("w1@host", True, 1)
    for name in ("dream_task_wait_seconds", "dream_task_run_seconds", "dream_step_seconds"):
        assert seen["metrics"][name]
        for series in seen["metrics"][name]:
            assert scraped.sum(f"{name}_count", **series["labels"]) == series["buckets"][-1][1]
            assert scraped.sum(f"{name}_sum", **series["labels"]) == pytest.approx(series["value"], abs=1e-5)
    steps = {series["labels"]["step"] for series in seen["metrics"]["dream_step_seconds"]}
    assert {"claim", "fetch", "process", "put", "finish"} <= steps
