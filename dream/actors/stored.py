"""Work with the objects of a picture: fetch its best source, process a file in the pool, take back stored objects."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dream.errors import ObjectMissing
from dream.log import get_logger
from dream.messages.pictures import OUTPUT_FORMATS
from dream.observe import tracing
from dream.storage.keys import object_key

if TYPE_CHECKING:
    from dream.actors.resources import Imaging
    from dream.db import DreamImage
    from dream.imaging import Limits, Processed
    from dream.runs.run import Run
    from dream.storage import Storage

__all__ = ["fetch_source", "loses", "process", "take_back"]

log = get_logger(__name__)

#: Stored pictures of these media types do not move; only a JPEG may be in HDR.
_JPEG, _AVIF = (OUTPUT_FORMATS[name].content_type for name in ("jpeg", "avif"))


def fetch_source(run: Run, storage: Storage, image: DreamImage, path: Path) -> bool:
    """Write the source of a completed picture to `path`: its original, or else the stored picture itself.

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


def process(
    run: Run, pool: Imaging, image: DreamImage, source: Path, target: Path, limits: Limits, group: str
) -> Processed:
    """Let the pool make `target` of `source`; a run that ends early cancels it, because other runs need the pool."""
    with tracing.span("process", image_id=image.id):
        job = pool.submit(source, target, limits, group)
        try:
            return job.wait(run.check)
        finally:
            job.cancel()


def loses(image: DreamImage, variant: Processed) -> bool:
    """Whether a variant lacks HDR or motion that the stored picture may have."""
    if image.content_type == _JPEG:
        return variant.loses_hdr
    return variant.loses_motion and image.content_type != _AVIF


def take_back(run: Run, storage: Storage, image_id: int, places: Iterable[tuple[str, str]]) -> None:
    """Delete objects of a run that no row names; one that stays is logged, and the nightly sweep finds it."""
    for error in run.wait_for(storage.delete_places, set(places)).values():
        log.warning("object_left", image_id=image_id, error=str(error))
