"""The web layer of a cell, as a process that can die: `python -m tests.acceptance.faults.web FLOW ARGUMENTS`.

Prints `accepted ID` once its call has returned.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dream.celery.tasks.image_tasks import delete_images, upload_images

__all__ = ["accepted"]

_ACCEPTED = "accepted "


def accepted(output: str) -> list[str]:
    """The ids that such a process was given."""
    return [line.removeprefix(_ACCEPTED) for line in output.splitlines() if line.startswith(_ACCEPTED)]


def main(flow: str, arguments: str) -> None:
    given = json.loads(arguments)
    if flow == "upload":
        files = [{"name": Path(path).name, "data": Path(path).read_bytes()} for path in given["paths"]]
        task_id = upload_images(given["dream_id"], files, [0] * len(files))
    else:
        task_id = delete_images(given["dream_id"], given["image_urls"], "ann")
    sys.stdout.write(f"{_ACCEPTED}{task_id}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
