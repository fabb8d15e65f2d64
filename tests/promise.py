"""The promise, checked from outside: whatever died on the way, each accepted task came to one honest end.

Four checks, the same after every fault, every outage and the soak:

1. every accepted task is terminal, and its pictures are what it says of them;
2. the objects in the bucket are those that completed pictures and their variants name: none lost, none left over;
3. each task said its end exactly once, and a failed one is a FAILURE for its caller;
4. the last event of each task says what the database says.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import redis
from sqlalchemy import select, update

from dream.compat.result import FAILURE, AsyncResult
from dream.db import DreamImage, DreamTask
from dream.db.clock import now
from dream.messages.arguments import STAGING_PREFIX
from dream.messages.events import UpdateStatus
from dream.messages.registry import DELETE_IMAGES, PROCESS_IMAGES, kind_of
from dream.messages.states import ImageState, TaskState
from dream.producer import Producer
from dream.scheduler.removal import Orphans
from dream.settings import Settings
from dream.storage import Storage
from dream.storage.keys import object_key, variant_object_key
from tests.this_process import configured

__all__ = ["Findings", "check", "sweep_the_night"]

_TERMINAL = {str(status) for status in UpdateStatus if status.is_terminal}


@dataclass
class Findings:
    """The findings of the checks.

    counts: how many tasks of each state, pictures of each state, objects, events.
    broken: one sentence for each breach of the promise; none is what we want.
    """

    counts: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join([*(f"{name}: {count}" for name, count in sorted(self.counts.items())), *self.broken])


def check(environment: Mapping[str, str], accepted: Iterable[str], *, events_were_lost: bool = False) -> Findings:
    """Check the promise for the tasks of these ids.

    Parameters:
      environment: the `DREAM_…` variables of the system, whose database and bucket hold nothing else.
      accepted: the ids that callers were given.
      events_were_lost: Redis was emptied: what it had been told before is gone with it.
    """
    findings = Findings()
    with _as_ours(environment) as settings:
        producer = Producer(settings)
        try:
            with producer.database.read() as session:
                tasks = {task.id: task for task in session.scalars(select(DreamTask))}
                images = list(session.scalars(select(DreamImage)))
            _check_ends(findings, tasks, list(accepted))
            _check_pictures(findings, tasks, images)
            _check_objects(findings, producer.storage, settings, images)
            _check_events(findings, _events(settings, tasks.values()), tasks, events_were_lost)
            _check_failures(findings, tasks)
        finally:
            producer.database.dispose()
    return findings


def sweep_the_night(environment: Mapping[str, str]) -> None:
    """Let an hour pass for every picture, then remove leftovers as the scheduler does at 03:30."""
    with _as_ours(environment) as settings:
        producer = Producer(settings)
        try:
            with producer.database.begin() as session:
                session.execute(update(DreamImage).values(updated_at=now(-3601)))
            Orphans(settings, producer.connections).remove()
        finally:
            producer.database.dispose()


def _as_ours(environment: Mapping[str, str]) -> AbstractContextManager[Settings]:
    """Make a system's variables those of this process, so that a caller's result is looked up as callers do."""
    return configured({name: value for name, value in environment.items() if name.startswith("DREAM_")})


def _check_ends(findings: Findings, tasks: Mapping[str, DreamTask], accepted: list[str]) -> None:
    findings.counts["accepted"] = len(accepted)
    for task_id in accepted:
        task = tasks.get(task_id)
        if task is None:
            findings.broken.append(f"task {task_id} was accepted and has no row")
        elif not task.state.is_terminal:
            findings.broken.append(f"task {task_id} is {task.state}, not terminal")
    findings.counts.update(f"tasks {task.state}" for task in tasks.values())


def _check_pictures(findings: Findings, tasks: Mapping[str, DreamTask], images: list[DreamImage]) -> None:
    """Rows are where their tasks left them: nothing waits, results name what is there, what was deleted is gone."""
    may_be_left = any(task.name == DELETE_IMAGES and task.state is not TaskState.SUCCEEDED for task in tasks.values())
    for image in images:
        task = tasks.get(image.task_id)
        waits = image.state in (ImageState.PENDING, ImageState.PROCESSING)
        if waits and (task is None or task.state.is_terminal):
            findings.broken.append(f"picture {image.id} is {image.state}, and its task has ended")
        if image.state is ImageState.DELETING and not may_be_left:
            findings.broken.append(f"picture {image.id} is still deleting, and every deletion has succeeded")
    for task in tasks.values():
        if task.state is not TaskState.SUCCEEDED or not task.args:
            continue
        if task.name == PROCESS_IMAGES:
            findings.broken += _wrong_urls(task, [image for image in images if image.task_id == task.id])
        elif task.name == DELETE_IMAGES:
            findings.broken += _not_deleted(task, images)


def _wrong_urls(task: DreamTask, images: list[DreamImage]) -> list[str]:
    told: list[str] = task.result or []
    rows = sorted(images, key=lambda image: image.index)
    if len(told) != len(rows):
        return [f"task {task.id} told of {len(told)} pictures and has {len(rows)} rows"]
    stayed = [
        (url, row)
        for url, row in zip(told, rows, strict=True)
        if row.state not in (ImageState.DELETING, ImageState.DELETED)
    ]
    return [
        f"task {task.id} told {url!r}, and its picture has {row.url!r}" for url, row in stayed if url != (row.url or "")
    ]


def _not_deleted(task: DreamTask, images: list[DreamImage]) -> list[str]:
    by_url = {image.url: image for image in images if image.url}
    wanted: list[dict[str, Any]] = task.args[1]
    deleted = [item for item, is_deleted in zip(wanted, task.result or [], strict=True) if is_deleted]
    rows = [row for item in deleted if (row := by_url.get(item.get("url"))) is not None]
    return [
        f"task {task.id} says that picture {row.id} is deleted, and it is {row.state}"
        for row in rows
        if row.state is not ImageState.DELETED
    ]


def _check_objects(findings: Findings, storage: Storage, settings: Settings, images: Iterable[DreamImage]) -> None:
    buckets = {settings.s3_bucket} if not settings.is_bucket_per_user else set()
    named: set[tuple[str, str]] = set()
    for image in images:
        findings.counts[f"pictures {image.state}"] += 1
        buckets.update(bucket for bucket in (image.bucket, image.original_bucket) if bucket)
        if image.state is ImageState.COMPLETED:
            named.update((image.bucket or "", key) for key in stored_keys(image))
            if image.original_key:
                named.add((image.original_bucket or "", image.original_key))
    stored = {
        (bucket, key)
        for bucket in buckets
        for key, _ in storage.list_keys(bucket, "")
        if not key.startswith(STAGING_PREFIX)
    }
    findings.counts["objects"] = len(stored)
    findings.broken += [f"a row names {key}, which is not in {bucket}" for bucket, key in sorted(named - stored)]
    findings.broken += [f"no completed row names {key} in {bucket}" for bucket, key in sorted(stored - named)]


def stored_keys(image: DreamImage) -> list[str]:
    """The keys of the objects that a completed picture's row names."""
    return [object_key(image), *map(variant_object_key, image.variants or ())]


def _events(settings: Settings, tasks: Iterable[DreamTask]) -> dict[str, list[dict[str, Any]]]:
    """The events of each task, in order."""
    client = redis.Redis.from_url(settings.events_url)
    told: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    try:
        for dream_id in sorted({int(task.args[0]) for task in tasks if task.args}):
            stream: Any = client.xrange(f"{settings.redis_prefix}:events:{dream_id}")
            for _, fields in stream:
                event = json.loads(fields[b"event"])
                told[event.get("task_id", "")].append(event)
    finally:
        client.close()
    return told


def _check_events(
    findings: Findings,
    told: Mapping[str, list[dict[str, Any]]],
    tasks: Mapping[str, DreamTask],
    events_were_lost: bool,
) -> None:
    for task in tasks.values():
        kind = kind_of(task.name)
        if not task.state.is_terminal or kind is None or kind.last_event is None:
            continue  # nobody is told of it
        statuses = [event["status"] for event in told.get(task.id, ())]
        findings.counts["events"] += len(statuses)
        ends = [status for status in statuses if status in _TERMINAL]
        if not ends and events_were_lost:
            continue
        if len(ends) != 1:
            findings.broken.append(f"task {task.id} ({task.state}) said its end {len(ends)} times: {statuses}")
        elif statuses[-1] != ends[0]:
            findings.broken.append(f"task {task.id} went on talking after its end: {statuses}")
        elif ends[0] != _expected_end(task):
            findings.broken.append(f"task {task.id} is {task.state} and said {ends[0]}")


def _expected_end(task: DreamTask) -> str:
    is_deletion = task.name == DELETE_IMAGES
    failed = task.state is not TaskState.SUCCEEDED or (is_deletion and bool(task.result) and not any(task.result))
    if is_deletion:
        return str(UpdateStatus.DELETE_FAILED if failed else UpdateStatus.DELETE_COMPLETED)
    return str(UpdateStatus.FAILED if failed else UpdateStatus.COMPLETED)


def _check_failures(findings: Findings, tasks: Mapping[str, DreamTask]) -> None:
    for task in tasks.values():
        if task.state is TaskState.FAILED:
            state = AsyncResult(task.id).state
            if state != FAILURE or not task.error:
                findings.broken.append(f"task {task.id} failed, and its caller reads {state}: {task.error}")
