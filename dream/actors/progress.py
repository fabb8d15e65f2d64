"""The events in the course of an upload's run: its beginning, each stored picture, and the steps of its pictures.

Each event names only the pictures whose step has changed since the event before. A step alone is worth an event at most
once a second, so an upload of many pictures sends few more events than it has pictures.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dream.messages.events import ImageUpdate, UpdateStatus
from dream.messages.pictures import ImageStep, image_ref, image_step
from dream.messages.states import ImageState, Step

if TYPE_CHECKING:
    from dream.actors.resources import Job
    from dream.db import DreamImage
    from dream.db.tasks import Claim
    from dream.notifications import Publisher

__all__ = ["Progress"]

#: The least seconds between two events that only say that pictures are in work.
_STEPS_EVERY_S = 1.0


class Progress:
    """The events of one run, before its last one.

    Parameters:
      publisher: sends them.
      claim: the run's.
      dream_id: the dream.
      max_retries: the most retries of a task.
    """

    def __init__(self, publisher: Publisher, claim: Claim, dream_id: int, max_retries: int) -> None:
        self._publisher = publisher
        self._claim = claim
        self._dream_id = dream_id
        self._max_retries = max_retries
        #: The jobs that no child of the pool had begun yet, by the ids of their pictures.
        self._waiting: dict[int, Job] = {}
        self._begun: set[int] = set()
        self._told: dict[int, ImageStep] = {}
        #: Monotonic seconds before which a step alone is not worth an event.
        self._quiet_until = 0.0

    def watch(self, image: DreamImage, job: Job) -> None:
        """Notice when the pool begins this picture."""
        self._waiting[image.id] = job

    def tell(self, images: Sequence[DreamImage], once: str) -> bool:
        """Publish how far the pictures are.

        Parameters:
          images: all pictures of the task.
          once: the name of the event in this attempt.
        """
        self._look()
        done = [image for image in images if image.state is ImageState.COMPLETED]
        ended = [image for image in images if image.state is not ImageState.PROCESSING]
        steps = [step for image in images if (step := self._step_of(image)) and step != self._told.get(image.id)]
        attempts = self._claim.attempts
        update = ImageUpdate(
            dream_id=self._dream_id,
            status=UpdateStatus.PROCESSING,
            images=tuple(image_ref(image) for image in done),
            message=f"{len(ended)} of {len(images)} pictures done",
            # 100 belongs to the last event, which follows the update of the task's row.
            progress=min(99, round(100 * len(ended) / max(1, len(images)))),
            task_id=self._claim.task_id,
            steps=tuple(steps),
            attempt=attempts or None,
            max_retries=self._max_retries if attempts else None,
        )
        is_told = self._publisher.publish(update, once=f"{self._claim.task_id}:{attempts}:{once}")
        if is_told:
            self._told.update((step["id"], step) for step in steps)
        return is_told

    def tell_begun(self, images: Sequence[DreamImage]) -> None:
        """Publish that the pool has begun pictures, if it has, and if the last such event is not too near."""
        if time.monotonic() < self._quiet_until or not (begun := self._look()):
            return
        is_told = self.tell(images, once=f"begun:{begun[0]}")
        # Without Redis a run does not wait again and again for events that nobody gets.
        self._quiet_until = time.monotonic() + _STEPS_EVERY_S if is_told else float("inf")

    def _look(self) -> list[int]:
        """The ids of the pictures that the pool has begun since the last look."""
        begun = [image_id for image_id, job in self._waiting.items() if job.has_begun]
        for image_id in begun:
            del self._waiting[image_id]
        self._begun.update(begun)
        return begun

    def _step_of(self, image: DreamImage) -> ImageStep | None:
        is_waiting = image.state is ImageState.PROCESSING and image.id not in self._begun
        return image_step(image, Step.STAGED if is_waiting else None)
