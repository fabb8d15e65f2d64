"""The steps of a deletion's run: mark the rows, delete the objects, leave tombstones.

No list shows a picture whose row is `deleting`; the run removes its bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from dream.db import images, tasks
from dream.fault_points import step
from dream.log import get_logger
from dream.messages.arguments import check_deletion
from dream.messages.events import ImageUpdate, UpdateStatus
from dream.observe import tracing
from dream.runs.targets import Target, resolve

if TYPE_CHECKING:
    from dream.actors.resources import Resources
    from dream.runs.run import Run

__all__ = ["delete"]

log = get_logger(__name__)


def delete(resources: Resources, run: Run, dream_id: int, image_urls: list[Any], username: str) -> list[bool]:
    """Delete pictures of a dream; returns for each whether it is gone."""
    deletion = Deletion(resources, run)
    with run.whole():  # a revocation must not leave pictures hidden and their objects stored
        run.check()
        with tracing.span("mark"):
            targets = deletion.begin(dream_id, image_urls, username)
        with tracing.span("remove", count=len(targets)):
            deletion.delete_objects(targets)
        return deletion.end(targets)


class Deletion:
    """One run of `delete_dream_images`.

    Parameters:
      resources: connections and staging.
      run: this run's claim and deadline.
    """

    def __init__(self, resources: Resources, run: Run) -> None:
        self._resources = resources
        self._run = run
        self._claim = run.claim

    @step("mark")
    def begin(self, dream_id: int, image_urls: list[Any], username: str) -> Sequence[Target]:
        """Resolve the targets, mark their rows `deleting`, and publish the event."""
        wanted = check_deletion(dream_id, image_urls, username)
        with self._resources.connections.database.begin() as session:
            tasks.begin_deletion(session, self._claim)
            targets = resolve(session, self._resources.settings, dream_id, wanted, username or "")
            images.mark_deleting(session, [target.image.id for target in targets if target.image])
        update = ImageUpdate(
            dream_id=dream_id, status=UpdateStatus.DELETE_PROCESSING, progress=0, task_id=self._claim.task_id
        )
        self._resources.connections.publisher.publish(
            update, once=f"{self._claim.task_id}:{self._claim.attempts}:started"
        )
        return targets

    @step("remove")
    def delete_objects(self, targets: Sequence[Target]) -> None:
        """Remove the objects, the originals and the staged bytes.

        Raises:
          DreamError: some objects could not be removed; the next run tries these again.
        """
        places = set().union(*(target.places for target in targets))
        connections = self._resources.connections
        staged = [target.image.staging_key for target in targets if target.image and target.image.staging_key]
        unstaged = self._run.wait_for(connections.staging.delete, staged)
        self._run.check()
        failed = self._run.wait_for(connections.storage.delete_places, places)
        self._leave_tombstones(targets, failed.keys(), unstaged.keys())
        for error in (*unstaged.values(), *failed.values()):
            raise error

    @step("bury")
    def _leave_tombstones(
        self, targets: Sequence[Target], failed: Collection[tuple[str, str]], unstaged: Collection[str]
    ) -> None:
        gone = [
            target.image.id
            for target in targets
            if target.image and target.places.isdisjoint(failed) and target.image.staging_key not in unstaged
        ]
        with self._resources.connections.database.begin() as session:
            tasks.check_lease(session, self._claim)
            images.mark_deleted(session, gone)
            images.forget_staged(session, gone)
        self._run.has_progressed = bool(gone)
        log.info("images_deleted", count=len(gone))

    def end(self, targets: Sequence[Target]) -> list[bool]:
        """Return for each item whether it is gone."""
        return [target.is_allowed for target in targets]
