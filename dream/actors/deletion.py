"""The steps of a deletion's run: say so, delete the objects, leave tombstones.

An image whose row says `deleting` is gone for every reader already; what is left is to remove its bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dream.actors.storing import RunStorage
from dream.arguments import check_deletion
from dream.db import images, tasks
from dream.errors import DreamError
from dream.fault_points import step
from dream.log import get_logger
from dream.messages import ImageUpdate, UpdateStatus
from dream.targets import Target, resolve

if TYPE_CHECKING:
    from dream.actors.resources import Resources
    from dream.middleware.run import Run

__all__ = ["delete"]

log = get_logger(__name__)


def delete(resources: Resources, run: Run, dream_id: int, image_urls: list[Any], username: str) -> list[bool]:
    """Delete pictures of a dream; returns for each whether it is gone."""
    deletion = Deletion(resources, run)
    run.check()
    with run.whole():
        targets = deletion.begin(dream_id, image_urls, username)
        deletion.delete_objects(targets)
        return deletion.end(targets)


class Deletion:
    """One run of `delete_dream_images`.

    Parameters:
      resources: what it works with.
      run: this run's claim and deadline.
    """

    def __init__(self, resources: Resources, run: Run) -> None:
        self._resources = resources
        self._storage = RunStorage(resources, run)
        self._run = run
        self._claim = run.claim

    @step("mark")
    def begin(self, dream_id: int, image_urls: list[Any], username: str) -> Sequence[Target]:
        """Find what is meant, make its rows say `deleting`, and the dream hear of it."""
        wanted = check_deletion(dream_id, image_urls, username)
        with self._resources.database.begin() as session:
            tasks.hold(session, self._claim)
            targets = resolve(session, self._resources.settings, dream_id, wanted, username or "")
            images.mark_deleting(session, [target.image.id for target in targets if target.image])
        update = ImageUpdate(
            dream_id=dream_id, status=UpdateStatus.DELETE_PROCESSING, progress=0, task_id=self._claim.task_id
        )
        self._resources.publisher.publish(update, once=f"{self._claim.task_id}:{self._claim.attempts}:started")
        return targets

    @step("remove")
    def delete_objects(self, targets: Sequence[Target]) -> None:
        """Remove the objects and the staged bytes; those of one bucket with one call.

        Raises:
          DreamError: some could not be removed; what could is gone, and the next run sees to the rest.
        """
        by_bucket: defaultdict[str, set[str]] = defaultdict(set)
        for target in targets:
            if target.bucket:
                by_bucket[target.bucket].update(target.keys)
        failed = self._storage.delete_staged(
            target.image.staging_key for target in targets if target.image and target.image.staging_key
        )
        for bucket, keys in by_bucket.items():
            self._run.check()
            failed.update(self._storage.delete(bucket, sorted(keys)))
        self._leave_tombstones(targets, failed)
        if failed:
            raise next(iter(failed.values()))

    @step("bury")
    def _leave_tombstones(self, targets: Sequence[Target], failed: dict[str, DreamError]) -> None:
        gone = [
            target.image.id
            for target in targets
            if target.image and not failed.keys() & {*target.keys, target.image.staging_key}
        ]
        with self._resources.database.begin() as session:
            tasks.hold(session, self._claim)
            images.mark_deleted(session, gone)
            images.forget_staged(session, gone)
        self._run.has_progressed = bool(gone)
        log.info("images_deleted", count=len(gone))

    def end(self, targets: Sequence[Target]) -> list[bool]:
        """For each item whether it is gone."""
        return [target.is_allowed for target in targets]
