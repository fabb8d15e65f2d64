"""The web layer of a cell, as a process that can die: `python -m tests.acceptance.faults.web FLOW ARGUMENTS`.

Prints `accepted ID` once its call has returned.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx

from dream.celery.tasks.image_tasks import delete_images, upload_images
from dream.db import DreamImage
from dream.messages.registry import MAKE_VARIANT
from dream.messages.variants import ask_for, task_of
from dream.producer import Delivery, Producer, begin_direct_upload, complete_direct_upload, default, orders
from dream.variants import VariantSpec

__all__ = ["accepted", "ask", "put_directly", "remake"]

_ACCEPTED = "accepted "


def accepted(output: str) -> list[str]:
    """The ids that such a process was given."""
    return [line.removeprefix(_ACCEPTED) for line in output.splitlines() if line.startswith(_ACCEPTED)]


def ask(producer: Producer, image_id: int, definition: str) -> str:
    """Record and send the task that the gateway would for a visitor; returns its id."""
    with producer.database.read() as session:
        image = session.get_one(DreamImage, image_id)
    task_id, arguments = task_of(image, ask_for(image, VariantSpec.parse(f"card:{definition}")))
    producer.submit(MAKE_VARIANT, arguments, task_id=task_id, delivery=Delivery(priority=8))
    return task_id


def remake(producer: Producer, image_id: int) -> str:
    """Record and send the task that `dream reprocess` would; returns its id."""
    order = orders.remake(image_id, datetime.now(UTC))
    producer.accept(order)
    return order.task_id


def put_directly(dream_id: int, paths: list[Path]) -> str:
    """Upload as a client does that puts its files into the store itself; returns the id of the task."""
    files = [{"name": path.name, "size": path.stat().st_size, "type": "image/jpeg"} for path in paths]
    begun = begin_direct_upload(dream_id, files)

    give_up = time.monotonic() + 30
    for order, path in zip(begun["files"], paths, strict=True):
        while not _is_put(order["url"], order["headers"], path.read_bytes()):
            if time.monotonic() > give_up:
                raise TimeoutError("the store did not take the file")
            time.sleep(0.1)
    return complete_direct_upload(dream_id, begun["upload_id"])["task_id"]


def _is_put(url: str, headers: dict[str, str], data: bytes) -> bool:
    try:
        return httpx.put(url, headers=headers, content=data, timeout=2).is_success
    except httpx.HTTPError:
        return False


def main(flow: str, arguments: str) -> None:
    given = json.loads(arguments)
    if flow == "upload":
        files = [{"name": Path(path).name, "data": Path(path).read_bytes()} for path in given["paths"]]
        task_id = upload_images(given["dream_id"], files, [0] * len(files))
    elif flow == "direct":
        task_id = put_directly(given["dream_id"], [Path(path) for path in given["paths"]])
    elif flow == "variant":
        task_id = ask(default(), **given)
    elif flow == "remake":
        task_id = remake(default(), **given)
    else:
        task_id = delete_images(given["dream_id"], given["image_urls"], "ann")
    sys.stdout.write(f"{_ACCEPTED}{task_id}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
