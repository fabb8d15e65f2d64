"""Image rows: added with their task, moved by conditional update, found by key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

from sqlalchemy import Row, Table, bindparam, case, func, select, text, tuple_, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from dream.db.batches import at_most
from dream.db.clock import as_of, now
from dream.db.models import PENDING, STAGED, STAGED_ENDED, UNSWEPT, DreamImage
from dream.messages import ImageState, check_move, sources_of

__all__ = [
    "LISTED",
    "begin_task",
    "by_id",
    "by_key",
    "by_keys",
    "by_stem",
    "complete",
    "count_pending",
    "fail",
    "forget_staged",
    "give_back_unswept",
    "list_images",
    "mark_deleted",
    "mark_deleting",
    "move_task",
    "of_task",
    "page",
    "positions_of",
    "staged_keys",
    "staged_leftovers",
    "take_unswept",
]

T = TypeVar("T")

#: The columns that readers see of an image.
LISTED = (
    "id",
    "url",
    "position",
    "state",
    "filename",
    "width_px",
    "height_px",
    "size_bytes",
    "content_type",
    "placeholder",
    "dominant_colour",
    "variants",
    "error",
    "task_id",
)

#: In one statement; SQLite has taken 999 at least, ever since.
_MOST_VALUES = 500
#: A finished picture's staged bytes are its own run's to drop; after this nobody but the sweep does.
_DROPPED_AFTER_S = 3600
#: A run that was paused may still put its object after its picture's end, but hardly this long after.
_LATE_OBJECT_S = 600
_GONE = (ImageState.DELETING, ImageState.DELETED)
_images = cast("Table", DreamImage.__table__)


def _moving(target: ImageState, *conditions: Any, **values: Any) -> ReturningUpdate[tuple[int]]:
    """Every change of state is a statement of this form: legal by the diagram, and told by which rows it hit."""
    return (
        update(_images)
        .where(*conditions, _images.c.state.in_(sources_of(target)))
        .values(state=target, updated_at=now(), **values)
        .returning(_images.c.id)
    )


# What each run asks and writes is built once: to build a statement costs more than to run it.
_OF_TASK = select(DreamImage).where(DreamImage.task_id == bindparam("task")).order_by(DreamImage.index)
_BEGIN = _moving(
    ImageState.PROCESSING,
    _images.c.task_id == bindparam("task"),
    bucket=func.coalesce(_images.c.bucket, bindparam("first_bucket")),
    wanted_variants=func.coalesce(
        _images.c.wanted_variants, bindparam("first_wanted", type_=_images.c.wanted_variants.type)
    ),
    error=None,
)
_COMPLETE = _moving(
    ImageState.COMPLETED,
    _images.c.id == bindparam("image"),
    url=func.coalesce(_images.c.url, bindparam("first_url")),
    error=None,
)
_NOTE = (
    update(_images).where(_images.c.id.in_(bindparam("images", expanding=True))).values(updated_at=_images.c.updated_at)
)


def list_images(session: Session, dream_id: int) -> Sequence[DreamImage]:
    """The dream's images in the order of its text; those being deleted are not among them."""
    return session.scalars(
        select(DreamImage)
        .where(DreamImage.dream_id == dream_id, DreamImage.state.not_in(_GONE))
        .order_by(DreamImage.position, DreamImage.id)
    ).all()


def page(
    session: Session,
    dream_id: int,
    *,
    after: tuple[int, int] | None = None,
    limit: int | None = None,
    task_id: str | None = None,
) -> Sequence[Row[Any]]:
    """The columns in `LISTED` of a dream's images, in the order of `list_images`.

    Parameters:
      after: position and id of the image before the first one wanted.
      limit: most rows; None means all.
      task_id: only the images of this upload.
    """
    query = select(*(getattr(DreamImage, name) for name in LISTED)).where(
        DreamImage.dream_id == dream_id, DreamImage.state.not_in(_GONE)
    )
    if task_id is not None:
        query = query.where(DreamImage.task_id == task_id)
    if after is not None:
        query = query.where(tuple_(DreamImage.position, DreamImage.id) > after)
    return session.execute(query.order_by(DreamImage.position, DreamImage.id).limit(limit)).all()


def of_task(session: Session, task_id: str) -> Sequence[DreamImage]:
    """The task's images in the order of its files."""
    return session.scalars(_OF_TASK, {"task": task_id}).all()


def by_id(session: Session, dream_id: int, image_id: int) -> DreamImage | None:
    """The image of that id, whatever its state, only within that dream."""
    return session.scalar(select(DreamImage).where(DreamImage.id == image_id, DreamImage.dream_id == dream_id))


def positions_of(session: Session, dream_id: int, urls: Iterable[str]) -> dict[str, int]:
    """Where in the dream's text the images of these URLs stand, tombstones too."""
    query = select(DreamImage.url, DreamImage.position).where(
        DreamImage.dream_id == dream_id, DreamImage.url.in_(list(urls))
    )
    return {url: position for url, position in session.execute(query) if url is not None}


def by_key(session: Session, key: str) -> DreamImage | None:
    """The image stored under that key."""
    return session.scalar(select(DreamImage).where(DreamImage.storage_key == key))


def by_stem(session: Session, stem: str, extensions: Iterable[str]) -> DreamImage | None:
    """The image whose key is this stem with one of the extensions."""
    keys = [f"{stem}.{extension}" for extension in extensions]
    return session.scalar(select(DreamImage).where(DreamImage.storage_key.in_(keys)))


def by_keys(session: Session, keys: Iterable[str]) -> dict[str, DreamImage]:
    """Images by their full keys, or by the stems that keys have before the format is known."""
    stems = {key: key.rpartition(".")[0] or key for key in keys}
    rows: dict[str, DreamImage] = {}
    for some in _in_parts([*stems, *set(stems.values())]):
        found = session.scalars(select(DreamImage).where(DreamImage.storage_key.in_(some)))
        rows.update((row.storage_key, row) for row in found)
    return {key: row for key, stem in stems.items() if (row := rows.get(key) or rows.get(stem))}


def count_pending(session: Session, *, dream_id: int | None = None, user_id: int | None = None) -> int:
    """Images that wait or are in work: in all, of one dream, or of one user."""
    query = select(func.count()).select_from(DreamImage).where(text(PENDING))
    if dream_id is not None:
        query = query.where(DreamImage.dream_id == dream_id)
    if user_id is not None:
        query = query.where(DreamImage.user_id == user_id)
    return session.scalar(query) or 0


def _in_parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """As many values at a time as a statement takes."""
    for start in range(0, len(values), _MOST_VALUES):
        yield values[start : start + _MOST_VALUES]


def move_task(session: Session, task_id: str, source: ImageState, target: ImageState, error: str | None = None) -> None:
    """Move all images of a task that are in `source`.

    Raises:
      DreamError: the diagram has no such move.
    """
    check_move(source, target)
    session.execute(_moving(target, _images.c.task_id == task_id, _images.c.state == source, error=error))


def begin_task(session: Session, task_id: str, bucket: str, variants: Sequence[tuple[str, int]]) -> None:
    """A run begins: the task's pictures that wait are in work. Where they go and what is made does not change again."""
    wanted = [list(variant) for variant in variants]
    session.execute(_BEGIN, {"task": task_id, "first_bucket": bucket, "first_wanted": wanted})


def complete(session: Session, image_id: int, *, url: str, **values: Any) -> bool:
    """Record a finished picture; False where its row says something else by now (it is being deleted)."""
    return session.execute(_COMPLETE, {"image": image_id, "first_url": url, **values}).first() is not None


def fail(session: Session, image_id: int, error: str) -> bool:
    """Record a refused picture with the reason that its owner reads."""
    failing = _moving(ImageState.FAILED, _images.c.id == image_id, error=error)
    return session.execute(failing).first() is not None


def mark_deleting(session: Session, image_ids: Iterable[int]) -> None:
    """From here on these pictures are gone for every reader."""
    for ids in _in_parts(list(image_ids)):
        session.execute(_moving(ImageState.DELETING, _images.c.id.in_(ids)))


def mark_deleted(session: Session, image_ids: Iterable[int]) -> None:
    """Their objects are gone: the rows stay as tombstones."""
    session.execute(_moving(ImageState.DELETED, _images.c.id.in_(list(image_ids))))


def staged_leftovers(session: Session, older_than_s: float, limit: int) -> Sequence[Row[tuple[int, str]]]:
    """The `id` and `staging_key` of rows whose staged bytes nobody needs: completed, deleted, and failures past their
    time.
    """
    is_failed = DreamImage.state == ImageState.FAILED
    return session.execute(
        select(DreamImage.id, DreamImage.staging_key)
        .where(
            text(STAGED_ENDED),
            DreamImage.updated_at <= as_of(-min(_DROPPED_AFTER_S, older_than_s)),
            case(
                (is_failed, DreamImage.updated_at <= as_of(-older_than_s)),
                else_=DreamImage.updated_at <= as_of(-_DROPPED_AFTER_S),
            ),
        )
        .order_by(DreamImage.updated_at, DreamImage.id)
        .limit(at_most(limit))
    ).all()  # type: ignore[return-value]  # the condition says that it has a key


def staged_keys(session: Session, keys: Iterable[str]) -> set[str]:
    """Those of the staging keys that a row names."""
    found = session.scalars(select(DreamImage.staging_key).where(text(STAGED), DreamImage.staging_key.in_(list(keys))))
    return {key for key in found if key is not None}


def take_unswept(session: Session, limit: int) -> Sequence[DreamImage]:
    """Take the turn to delete the keys of pictures that are deleted or failed, once more.

    A run that was paused, or died between its object and its row, may have left an object there. A picture that is
    replayed after its turn was taken gets another key (`dead_letters.revive`), so nothing new is deleted.
    """
    long_ago = DreamImage.updated_at <= as_of(-_LATE_OBJECT_S)
    # In the order of the index, and locked: two schedulers take different ones.
    oldest = select(DreamImage.id).where(text(UNSWEPT), long_ago).order_by(DreamImage.updated_at).limit(at_most(limit))
    ids = session.scalars(oldest.with_for_update(skip_locked=True)).all()
    if not ids:
        return []
    return session.scalars(
        update(DreamImage)
        .where(DreamImage.id.in_(ids), text(UNSWEPT))
        .values(swept=True, updated_at=DreamImage.updated_at)
        .returning(DreamImage)
        .execution_options(synchronize_session=False)
    ).all()


def give_back_unswept(session: Session, image_ids: Iterable[int]) -> None:
    """Their keys could not be deleted now; somebody else may try."""
    _note(session, image_ids, swept=False)


def forget_staged(session: Session, image_ids: Iterable[int]) -> None:
    """Their staged bytes are gone."""
    _note(session, image_ids, staging_key=None)


def _note(session: Session, image_ids: Iterable[int], **values: Any) -> None:
    """Write what does not change a picture: `updated_at` stays, by which the nightly sweep knows its age."""
    session.execute(_NOTE, {"images": list(image_ids), **values})
