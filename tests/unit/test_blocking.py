"""A blocking call on a running event loop is warned of once a process, at the caller's own line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_CALLS = """
import asyncio, warnings
import dream.pictures
from asgiref.sync import sync_to_async
from starlette.concurrency import run_in_threadpool
from dream.errors import DreamError
from dream.producer import delete_images, list_images, set_owner, upload_images
from dream.celery.tasks.image_tasks import delete_dream_images, process_image, process_and_upload_images
from dream.websocket.utils import send_image_update

def called(call):
    try:
        call()
    except (DreamError, TypeError):
        pass

async def main():
    for _ in range(3):
        called(lambda: CALL)  # here

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    called(lambda: CALL)  # no loop runs yet
    async def well():
        await asyncio.to_thread(called, lambda: CALL)
        await run_in_threadpool(called, lambda: CALL)
        await sync_to_async(called)(lambda: CALL)
    asyncio.run(well())
    before = len(caught)
    asyncio.run(main())
for one in caught:
    kinds = [kind.__name__ for kind in one.category.__mro__[:2]]
    print(before, *kinds, one.filename, one.lineno, one.message, sep="|")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("upload_images(0, [])", "upload_images"),
        ("delete_images(0, [], '')", "delete_images"),
        ("list_images(0)", "list_images"),
        ("dream.pictures.list(0)", "dream.pictures.list"),
        ("set_owner(0, 0)", "set_owner"),
        ("process_image(b'', 'a.jpg')", "process_image"),
        ("send_image_update(1, status='nonsense')", "send_image_update"),
        ("process_and_upload_images.delay(0, [], [])", "process_and_upload_images.delay"),
        ("delete_dream_images(0, [], '')", "delete_images"),
    ],
)
def test_a_blocking_call_on_a_loop_is_warned_of_once(tmp_path: Path, call: str, name: str) -> None:
    """Not without a loop, not in a thread beside one; the warning names the call, the line and what to do."""
    script = tmp_path / "view.py"
    script.write_text(_CALLS.replace("CALL", call))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.count("\n") == 1, done.stdout + done.stderr
    before, category, parent, file, line, message = done.stdout.strip().split("|")
    assert (before, category, parent, file) == ("0", "BlockingCallWarning", "RuntimeWarning", str(script))
    assert "# here" in script.read_text().splitlines()[int(line) - 1]
    assert message.startswith(f"{name} blocks this event loop")
    for remedy in ("asyncio.to_thread", "run_in_threadpool", "sync_to_async"):
        assert remedy in message


def test_producer_and_pictures_stay_light() -> None:
    """Neither Pillow nor boto3 nor SQLAlchemy nor Prometheus's client is imported with it."""
    heavy = ("PIL", "boto3", "sqlalchemy", "prometheus_client")
    look = f"import sys, dream.pictures; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
