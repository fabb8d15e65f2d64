"""Fetch the best source of a stored picture: its original, or else the stored picture itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dream.errors import ObjectMissing
from dream.log import get_logger
from dream.storage.keys import object_key

if TYPE_CHECKING:
    from dream.db import DreamImage
    from dream.runs.run import Run
    from dream.storage import Storage

__all__ = ["fetch_source"]

log = get_logger(__name__)


def fetch_source(run: Run, storage: Storage, image: DreamImage, path: Path) -> bool:
    """Write the source of a completed picture to `path`.

    Returns:
      Whether it is the original.

    Raises:
      ObjectMissing: the store has neither.
    """
    if image.original_bucket and image.original_key:
        try:
            run.wait_for(storage.download, image.original_bucket, image.original_key, path)
        except ObjectMissing:
            log.warning("original_missing", image_id=image.id)
        else:
            return True
    run.wait_for(storage.download, image.bucket or "", object_key(image), path)
    return False
