"""Requests that may come twice: the answer to the first one, from its task's row.

An upload with an idempotency key has a task id that is computed from user, dream and key, so the primary key of the
tasks decides which of two requests is the first, over all gateways and after any crash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dream.errors import KeyReused
from dream.messages.receipts import AcceptedUpload, Receipt, RefusedFile

if TYPE_CHECKING:
    from dream.db import Database
    from dream.messages.arguments import ImageFile
    from dream.producer.accepting import Producer
    from dream.producer.orders import Order

__all__ = ["accepted_before", "answer_of", "task_of_key", "upload_once"]


def task_of_key(user_id: object, dream_id: int, key: str) -> str:
    """The id of the task of an upload with an idempotency key."""
    return f"once-{hashlib.sha256(json.dumps([user_id, dream_id, key]).encode()).hexdigest()[:32]}"


def upload_once(
    producer: Producer,
    dream_id: int,
    image_files: Sequence[ImageFile],
    positions: Sequence[int],
    refused: list[RefusedFile],
    *,
    user_id: int,
    key: str,
) -> AcceptedUpload:
    """Accept an upload once for each key of its user and dream; a repeated request gets the answer to the first.

    Parameters:
      image_files, positions: as for `upload_images`.
      refused: the other files of the request.
      key: the idempotency key.

    Raises:
      KeyReused: the first request with this key had another content.
      DreamError: as `upload_images`.
    """
    task_id, fingerprint = task_of_key(user_id, dream_id, key), _fingerprint(image_files, positions, refused)
    first = _receipt(producer.database, dream_id, task_id)
    if first is None:
        order = producer.order_upload(dream_id, image_files, positions, task_id=task_id, user_id=user_id)
        receipt: Receipt = {"files": len(image_files), "refused": refused, "fingerprint": fingerprint}
        order = replace(order, receipt=receipt)
        if producer.accept(order):
            return answer_of(order)
        first = _receipt(producer.database, dream_id, task_id) or receipt
    if first.get("fingerprint") != fingerprint:
        raise KeyReused
    return {"task_id": task_id, "dream_id": dream_id, "files": first["files"], "refused": first["refused"]}


def _fingerprint(image_files: Sequence[ImageFile], positions: Sequence[int], refused: Sequence[RefusedFile]) -> str:
    """A hash of everything in a request that makes a difference. It reads one file's bytes at a time."""
    accepted = [
        [file["name"], hashlib.sha256(file["data"]).hexdigest(), position, file.get("focus")]
        for file, position in zip(image_files, positions, strict=True)
    ]
    others = [[each["index"], each["name"], each["code"]] for each in refused]
    return hashlib.sha256(json.dumps([accepted, others]).encode()).hexdigest()


def accepted_before(database: Database, dream_id: int, task_id: str) -> AcceptedUpload | None:
    """The answer to the request that made this task of this dream; None if there was none.

    Raises:
      DatabaseUnavailable
    """
    receipt = _receipt(database, dream_id, task_id)
    if receipt is None:
        return None
    return {"task_id": task_id, "dream_id": dream_id, "files": receipt["files"], "refused": receipt["refused"]}


def _receipt(database: Database, dream_id: int, task_id: str) -> Receipt | None:
    from dream.db import tasks
    from dream.db.faults import explained

    with explained(), database.read() as session:
        found = tasks.receipt_of(session, task_id)
    return found[1] if found is not None and found[0][:1] == [dream_id] else None


def answer_of(order: Order) -> AcceptedUpload:
    """The answer to a request whose order is accepted."""
    receipt = order.receipt or {"files": len(order.rows), "refused": []}
    return {
        "task_id": order.task_id,
        "dream_id": order.args[0],
        "files": receipt["files"],
        "refused": receipt["refused"],
    }
