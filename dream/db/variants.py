"""Variants on demand in the rows of their pictures: each is in the row before its object is in the store.

completed picture ─► `want`: name and place are in the row ─► object ─► `store`: it is one of the picture's variants

Callers lock the row (`locked`), so no change overwrites another.
"""

from __future__ import annotations

from typing import cast

from sqlalchemy import Table, select
from sqlalchemy.orm import Session

from dream.db.clock import now
from dream.db.models import DreamImage, DreamTask
from dream.errors import TooManyVariants
from dream.messages.pictures import StoredVariant
from dream.messages.states import ImageState, TaskState
from dream.messages.variants import made_as, slot_of
from dream.variants import VariantSpec

__all__ = ["leave", "locked", "states_of", "store", "touch", "url_of", "want"]

_tasks = cast("Table", DreamTask.__table__)


def locked(session: Session, image_id: int) -> DreamImage | None:
    """The stored picture, locked until the transaction ends; None if it is gone."""
    image = session.get(DreamImage, image_id, with_for_update=True)
    return image if image is not None and image.state is ImageState.COMPLETED else None


def want(image: DreamImage, name: str, spec: VariantSpec, most: int, *, overwrites: bool) -> int:
    """Note in a locked picture's row that a run stores this version, and take the place of its object.

    Parameters:
      name: the version's name.
      spec: the definition under its name in the settings.
      most: the most stored variants of a picture.
      overwrites: whether the key must be that of the URL, because browsers read the object itself.

    Returns:
      The number for `dream.storage.keys.object_stem`. Unless `overwrites`, no other bytes were stored under
      its key, because caches may keep an object for ever.

    Raises:
      TooManyVariants
    """
    variants = image.variants or []
    if len(variants) >= most and all(each["name"] != name for each in variants):
        raise TooManyVariants(f"picture {image.id} has {len(variants)} variants: DREAM_MAX_VARIANTS_PER_PICTURE={most}")
    is_new = spec.name not in image.variant_names
    if is_new or spec not in image.wanted_specs:
        # The definition in the row changes, so variants that were made by the old one get it as their own.
        image.variants = [_saying(image, each) if slot_of(each["name"]) == spec.name else each for each in variants]
        others = [pair for pair in image.wanted_variants or () if pair[0] != spec.name]
        image.wanted_variants = [*others, spec.row]
    if is_new or overwrites:
        return 0
    image.last_remake = max(image.remakes, image.last_remake) + 1
    return image.last_remake


def touch(image: DreamImage) -> None:
    """Note that a run works on a locked picture now: the sweep of old objects leaves it alone for a while."""
    image.updated_at = now()


def url_of(image: DreamImage, name: str, recipe: str) -> str | None:
    """The URL of the stored version of that name, if it was made by this recipe."""
    return next(
        (each["url"] for each in image.variants or () if each["name"] == name and made_as(image, each) == recipe), None
    )


def leave(image: DreamImage, name: str) -> bool:
    """Leave a locked picture's version of that name as it is; False if there is none.

    The row counts it, so that the same recipe is another task from now on (`dream.messages.variants.task_of`).
    """
    variants = image.variants or []
    image.variants = [{**each, "left": each.get("left", 0) + 1} if each["name"] == name else each for each in variants]
    return any(each["name"] == name for each in variants)


def _saying(image: DreamImage, variant: StoredVariant) -> StoredVariant:
    recipe = made_as(image, variant)
    return variant if recipe is None else {**variant, "made_as": recipe}


def store(image: DreamImage, variant: StoredVariant) -> None:
    """Write a version whose object is stored into a locked picture's row; it replaces the one of its name or URL."""
    old = [each for each in image.variants or () if variant["name"] == each["name"] or variant["url"] == each["url"]]
    image.variants = [*(each for each in image.variants or () if each not in old), variant]
    if image.stored_bytes is not None:
        image.stored_bytes += variant["size_bytes"] - sum(each["size_bytes"] for each in old)


def states_of(session: Session, task_ids: list[str]) -> dict[str, tuple[TaskState, bool]]:
    """The state of each of these tasks that has a row, and whether it may run now."""
    query = select(_tasks.c.id, _tasks.c.state, _tasks.c.due_at <= now()).where(_tasks.c.id.in_(task_ids))
    return {task_id: (state, bool(is_due)) for task_id, state, is_due in session.execute(query)}
