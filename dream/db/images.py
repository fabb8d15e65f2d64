"""Rows of pictures: added with their task, moved by conditional update, found by key."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar, cast

from sqlalchemy import ColumnElement, Row, Table, bindparam, case, func, select, text, true, tuple_, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from dream.db.batches import at_most, behind
from dream.db.clock import as_of, now
from dream.db.models import HASHED, PENDING, PROCESSED, STAGED, STAGED_ENDED, UNMEASURED, UNSWEPT, VISIBLE, DreamImage
from dream.messages.listing import ListOrder
from dream.messages.pictures import LISTED, VariantRef
from dream.messages.states import ImageState, check_move, sources_of
from dream.variants import VariantSpec

__all__ = [
    "BY_AGE",
    "LATE_OBJECT_S",
    "Cursor",
    "begin_task",
    "behind_age",
    "by_id",
    "by_key",
    "by_keys",
    "by_stem",
    "complete",
    "count_pending",
    "detail",
    "fail",
    "forget_staged",
    "give_focus",
    "give_positions",
    "gone_of_task",
    "list_images",
    "mark_deleted",
    "mark_deleting",
    "measure",
    "move_task",
    "note_swept",
    "of_task",
    "page",
    "positions_of",
    "staged_ended",
    "staged_keys",
    "stored_by",
    "stored_bytes",
    "take_failed",
    "twin_of",
    "undo_sweep",
    "unswept",
]

T = TypeVar("T")

#: The most values in one statement; every SQLite accepts at least 999.
_MOST_VALUES = 500
#: Seconds after its end for which a picture's own run deletes its staged bytes; later the sweep does.
_DROPPED_AFTER_S = 3600
#: Seconds after a picture's end; no run that was paused puts an object so late.
LATE_OBJECT_S = 600
_GONE = (ImageState.DELETING, ImageState.DELETED)
_images = cast("Table", DreamImage.__table__)


def _moving(target: ImageState, *conditions: Any, **values: Any) -> ReturningUpdate[tuple[int]]:
    """A change of state: it updates only rows that may move to `target`, and returns their ids.

    A picture counts in its user's quota until it fails or is deleted; while it waits, the uploaded file counts.
    """
    if target is ImageState.PENDING:
        values["stored_bytes"] = func.coalesce(_images.c.stored_bytes, _images.c.original_bytes)
    elif target is ImageState.FAILED:
        values["stored_bytes"] = None
    return (
        update(_images)
        .where(*conditions, _images.c.state.in_(sources_of(target)))
        .values(state=target, updated_at=now(), **values)
        .returning(_images.c.id)
    )


# Statements of every run are built once: to build one costs more than to run it.
_OF_TASK = select(DreamImage).where(DreamImage.task_id == bindparam("task")).order_by(DreamImage.index)
_BEGIN = _moving(
    ImageState.PROCESSING,
    _images.c.task_id == bindparam("task"),
    bucket=func.coalesce(_images.c.bucket, bindparam("first_bucket")),
    wanted_variants=func.coalesce(
        _images.c.wanted_variants, bindparam("first_wanted", type_=_images.c.wanted_variants.type)
    ),
    error=None,
    error_code=None,
)
_COMPLETE = _moving(
    ImageState.COMPLETED,
    _images.c.id == bindparam("image"),
    url=func.coalesce(_images.c.url, bindparam("first_url")),
    made_at=now(),
    error=None,
    error_code=None,
)
_TWIN = (
    select(_images.c.id)
    .where(text(HASHED), _images.c.dream_id == bindparam("dream"), _images.c.sha256 == bindparam("upload"))
    .where(_images.c.id != bindparam("image"))
    .order_by(_images.c.id)
    .limit(1)
)
_GONE_OF_TASK = select(_images.c.id).where(_images.c.task_id == bindparam("task"), _images.c.state.in_(_GONE))
_PLACE = (
    update(_images)
    .where(_images.c.id == bindparam("image"))
    .values(position=bindparam("place"), updated_at=_images.c.updated_at)
)
_NOTE = (
    update(_images).where(_images.c.id.in_(bindparam("images", expanding=True))).values(updated_at=_images.c.updated_at)
)


def list_images(session: Session, dream_id: int) -> Sequence[DreamImage]:
    """The dream's pictures in the order of its text, without pictures that are being deleted."""
    return session.scalars(
        select(DreamImage)
        .where(DreamImage.dream_id == dream_id, text(VISIBLE))
        .order_by(DreamImage.position, DreamImage.id)
    ).all()


def page(
    session: Session,
    dream_id: int,
    *,
    after: tuple[int, ...] | None = None,
    limit: int | None = None,
    task_id: str | None = None,
    order: ListOrder = ListOrder.POSITION,
    states: Collection[ImageState] | None = None,
) -> Sequence[Row[Any]]:
    """The columns in `LISTED` of a dream's pictures.

    Parameters:
      after: the keys of the picture before the first wanted one, as of `parse_cursor`.
      limit: most rows; None means all.
      task_id: only the pictures of this upload.
      order: the order of the list.
      states: only the pictures in these states; None means all that their owner sees.
    """
    # Without stored pictures there are few, which the index of states finds; they are sorted. Else the index in the
    # order of the list leads, past the few that are not stored.
    is_few = states is not None and ImageState.COMPLETED not in states
    query = select(*(getattr(DreamImage, name) for name in LISTED))
    if not is_few:
        query = query.where(text(VISIBLE))
    if states is not None:
        query = query.where(DreamImage.state.in_(states))
    if task_id is None:
        query = query.where(DreamImage.dream_id == dream_id)
    else:
        # A sum, so that the index of the task serves: the dream may have very many pictures.
        query = query.where(DreamImage.task_id == task_id, DreamImage.dream_id + 0 == dream_id)
    # A sum has no index.
    position, image_id = ((each + 0 if is_few else each) for each in (DreamImage.position, DreamImage.id))
    if order is ListOrder.NEWEST:
        query = query.order_by(image_id.desc())
        return session.execute((query if after is None else query.where(image_id < after[0])).limit(limit)).all()
    query = query.order_by(position, image_id)
    return session.execute(
        (query if after is None else query.where(tuple_(position, image_id) > after)).limit(limit)
    ).all()


def of_task(session: Session, task_id: str) -> Sequence[DreamImage]:
    """The task's pictures in the order of its files."""
    return session.scalars(_OF_TASK, {"task": task_id}).all()


def gone_of_task(session: Session, task_id: str) -> set[int]:
    """The ids of the task's pictures that are deleted, or being deleted."""
    return set(session.scalars(_GONE_OF_TASK, {"task": task_id}))


def by_id(session: Session, dream_id: int, image_id: int) -> DreamImage | None:
    """The picture of that id in that dream, in any state."""
    return session.scalar(select(DreamImage).where(DreamImage.id == image_id, DreamImage.dream_id == dream_id))


def positions_of(session: Session, dream_id: int, urls: Iterable[str]) -> dict[str, int]:
    """The positions in the dream's text of the pictures with these URLs, tombstones included."""
    # A URL ends with its picture's key, which has an index. A condition on the dream could lead the database to an
    # index that has all its pictures.
    keys = {"/".join(url.rsplit("/", 3)[1:]): url for url in urls}
    columns = select(DreamImage.storage_key, DreamImage.url, DreamImage.dream_id, DreamImage.position)
    return {
        url: position
        for some in _in_parts(list(keys))
        for key, url, its_dream, position in session.execute(columns.where(DreamImage.storage_key.in_(some)))
        if its_dream == dream_id and url == keys[key]
    }


def detail(session: Session, dream_id: int, image_id: int) -> Row[Any] | None:
    """The columns in `LISTED` and the private facts of a picture that its owner sees."""
    columns = (getattr(DreamImage, name) for name in (*LISTED, "facts"))
    its = (DreamImage.id == image_id, DreamImage.dream_id == dream_id, text(VISIBLE))
    return session.execute(select(*columns).where(*its)).first()


def by_key(session: Session, key: str) -> DreamImage | None:
    """The picture stored under that key."""
    return session.scalar(select(DreamImage).where(DreamImage.storage_key == key))


def by_stem(session: Session, stem: str, extensions: Iterable[str]) -> DreamImage | None:
    """The picture stored under this stem and one of the extensions."""
    keys = [f"{stem}.{extension}" for extension in extensions]
    return session.scalar(select(DreamImage).where(DreamImage.storage_key.in_(keys)))


def by_keys(session: Session, keys: Iterable[str], extensions: Iterable[str] = ()) -> dict[str, DreamImage]:
    """Pictures by their full keys, or by their stems.

    Parameters:
      extensions: those that a picture may have whose key is given without one.
    """
    endings = tuple(extensions)
    names = {key: _names_of(key, endings) for key in keys}
    rows: dict[str, DreamImage] = {}
    for some in _in_parts(list({name for each in names.values() for name in each})):
        found = session.scalars(select(DreamImage).where(DreamImage.storage_key.in_(some)))
        rows.update((row.storage_key, row) for row in found)
    found_by = {key: next((rows[name] for name in each if name in rows), None) for key, each in names.items()}
    return {key: row for key, row in found_by.items() if row is not None}


def _names_of(key: str, extensions: tuple[str, ...]) -> list[str]:
    """The keys under which the row of a picture may be found; it has none but the stem until its format is known."""
    stem = key.rpartition(".")[0]
    return [key, stem] if stem else [key, *(f"{key}.{extension}" for extension in extensions)]


def count_pending(session: Session, most: int, *, dream_id: int | None = None, user_id: int | None = None) -> int:
    """The number of pictures that wait or are in work, counted up to `most`: of all, of one dream, or of one user."""
    query = select(_images.c.id).where(text(PENDING))
    if dream_id is not None:
        query = query.where(_images.c.dream_id == dream_id)
    if user_id is not None:
        query = query.where(_images.c.user_id == user_id)
    few = query.limit(at_most(most)).subquery()
    return session.scalar(select(func.count()).select_from(few)) or 0


def stored_by(session: Session, user_id: int) -> int:
    """The bytes of a user: those in the store, and the uploads that wait."""
    # One query for each index: PostgreSQL would read all pictures of a user for those that wait.
    sums = (
        session.scalar(select(func.sum(_images.c.stored_bytes)).where(text(state), _images.c.user_id == user_id))
        for state in (PROCESSED, PENDING)
    )
    return sum(int(each or 0) for each in sums)


def stored_bytes(size_bytes: int | None, variants: Iterable[VariantRef], original_bytes: int | None = 0) -> int:
    """The bytes of a picture, its variants and its original, as the quota counts them."""
    return (size_bytes or 0) + sum(each["size_bytes"] for each in variants) + (original_bytes or 0)


def measure(session: Session, limit: int) -> int:
    """Count the bytes of pictures that an older release completed; returns how many were counted."""
    rows = session.execute(
        select(_images.c.id, _images.c.size_bytes, _images.c.variants)
        .where(text(UNMEASURED))
        .order_by(_images.c.updated_at)
        .limit(at_most(limit))
    ).all()
    for row in rows:
        counted = stored_bytes(row.size_bytes, row.variants or ())
        unmeasured = (_images.c.id == row.id, _images.c.stored_bytes.is_(None))
        session.execute(
            update(_images).where(*unmeasured).values(stored_bytes=counted, updated_at=_images.c.updated_at)
        )
    return len(rows)


def _in_parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Portions of values, each small enough for a statement."""
    for start in range(0, len(values), _MOST_VALUES):
        yield values[start : start + _MOST_VALUES]


def move_task(
    session: Session,
    task_id: str,
    source: ImageState,
    target: ImageState,
    error: str | None = None,
    error_code: str | None = None,
) -> None:
    """Move all pictures of a task that are in `source`.

    Raises:
      DreamError: the diagram has no such move.
    """
    check_move(source, target)
    its = (_images.c.task_id == task_id, _images.c.state == source)
    session.execute(_moving(target, *its, error=error, error_code=error_code))


def begin_task(session: Session, task_id: str, bucket: str, variants: Sequence[VariantSpec]) -> None:
    """Begin a run: the task's pending pictures are in work. The first run fixes their bucket and variants."""
    wanted = [variant.row for variant in variants]
    session.execute(_BEGIN, {"task": task_id, "first_bucket": bucket, "first_wanted": wanted})


def complete(session: Session, image_id: int, *, url: str, **values: Any) -> bool:
    """Record a finished picture; False if its row has changed meanwhile (to `deleting`)."""
    return session.execute(_COMPLETE, {"image": image_id, "first_url": url, **values}).first() is not None


def twin_of(session: Session, image: DreamImage) -> int | None:
    """The id of the dream's oldest other stored picture of the same upload; None if there is none.

    Two pictures that are completed at the same moment may not see each other. Then neither is a duplicate.
    """
    return session.scalar(_TWIN, {"dream": image.dream_id, "upload": image.sha256, "image": image.id})


def fail(session: Session, image_id: int, error: str, error_code: str) -> bool:
    """Record a refused picture with the reason, for its owner and for programs."""
    failing = _moving(ImageState.FAILED, _images.c.id == image_id, error=error, error_code=error_code)
    return session.execute(failing).first() is not None


def give_focus(session: Session, dream_id: int, image_id: int, focus: list[float] | None) -> DreamImage | None:
    """Write the given focal point of a picture; returns it, or None if the dream does not have it (any more)."""
    return session.scalar(
        update(DreamImage)
        .where(DreamImage.id == image_id, DreamImage.dream_id == dream_id, text(VISIBLE))
        .values(focus=focus, updated_at=DreamImage.updated_at)
        .returning(DreamImage)
        .execution_options(synchronize_session=False)
    )


def give_positions(session: Session, dream_id: int, positions: Mapping[int, int]) -> Sequence[Row[Any]]:
    """Write the positions of a dream's pictures, if it has all of them.

    Parameters:
      positions: the position of each picture, by its id.

    Returns:
      The columns in `LISTED` of those that the dream has.
    """
    columns = [getattr(DreamImage, name) for name in LISTED]
    its: list[Any] = [DreamImage.dream_id == dream_id, text(VISIBLE)]
    parts = [list(ids) for ids in _in_parts(sorted(positions))]
    found: set[int] = set()
    for ids in parts:  # locked in the order of their ids, so that two callers do not wait for each other
        locked = select(DreamImage.id).where(DreamImage.id.in_(ids), *its).order_by(DreamImage.id).with_for_update()
        found.update(session.scalars(locked))
    if found == positions.keys():
        session.execute(_PLACE, [{"image": each, "place": positions[each]} for each in sorted(positions)])
    return [row for ids in parts for row in session.execute(select(*columns).where(DreamImage.id.in_(ids), *its))]


def mark_deleting(session: Session, image_ids: Iterable[int]) -> None:
    """Hide these pictures from every reader until their objects are deleted, and clear their private facts."""
    for ids in _in_parts(list(image_ids)):
        session.execute(_moving(ImageState.DELETING, _images.c.id.in_(ids), facts=None))


def mark_deleted(session: Session, image_ids: Iterable[int]) -> None:
    """Make tombstones of these pictures; the nightly sweep deletes objects that stay."""
    # An older release that marked them `deleting` left the facts.
    session.execute(_moving(ImageState.DELETED, _images.c.id.in_(list(image_ids)), facts=None))


#: `updated_at` and id of the last picture on a page.
Cursor = tuple[datetime, int]
BY_AGE = DreamImage.updated_at, DreamImage.id


def behind_age(last: Cursor | None) -> ColumnElement[bool]:
    """Pictures after `last`, the oldest first; all of them if it is None."""
    return behind(*zip(BY_AGE, last, strict=True)) if last else true()


def staged_ended(
    session: Session, older_than_s: float, limit: int, last: Cursor | None = None
) -> Sequence[Row[tuple[int, str, datetime]]]:
    """Pictures that need no staged bytes: completed, deleted, or failed long ago.

    Parameters:
      last: the last picture of the page before.

    Returns:
      The `id`, `staging_key` and `updated_at` of each.
    """
    is_failed = DreamImage.state == ImageState.FAILED
    return session.execute(
        select(DreamImage.id, DreamImage.staging_key, DreamImage.updated_at)
        .where(
            text(STAGED_ENDED),
            behind_age(last),
            DreamImage.updated_at <= as_of(-min(_DROPPED_AFTER_S, older_than_s)),
            case(
                (is_failed, DreamImage.updated_at <= as_of(-older_than_s)),
                else_=DreamImage.updated_at <= as_of(-_DROPPED_AFTER_S),
            ),
        )
        .order_by(*BY_AGE)
        .limit(at_most(limit))
    ).all()  # type: ignore[return-value]  # the condition says that it has a key


def staged_keys(session: Session, keys: Iterable[str]) -> set[str]:
    """The staging keys among these that a row names."""
    found = session.scalars(select(DreamImage.staging_key).where(text(STAGED), DreamImage.staging_key.in_(list(keys))))
    return {key for key in found if key is not None}


def unswept(session: Session, limit: int, last: Cursor | None = None) -> Sequence[DreamImage]:
    """Deleted and failed pictures whose keys are to be deleted once more.

    A run that was paused, or died between its object and its row, may have left an object there.

    Parameters:
      last: the last picture of the page before.
    """
    long_ago = DreamImage.updated_at <= as_of(-LATE_OBJECT_S)
    oldest = select(DreamImage).where(text(UNSWEPT), long_ago, behind_age(last)).order_by(*BY_AGE)
    return session.scalars(oldest.limit(at_most(limit))).all()


def take_failed(session: Session, image_ids: Collection[int]) -> Sequence[DreamImage]:
    """Note failed pictures as swept before their keys are deleted; returns those that are still failed.

    One that is replayed from now on gets another key (`dead_letters.revive`), so nothing new is deleted.
    """
    failed = DreamImage.id.in_(image_ids), DreamImage.state == ImageState.FAILED, text(UNSWEPT)
    ids = session.scalars(select(DreamImage.id).where(*failed).with_for_update(skip_locked=True)).all()
    return session.scalars(
        update(DreamImage)
        .where(DreamImage.id.in_(ids), text(UNSWEPT))
        .values(swept=True, facts=None, updated_at=DreamImage.updated_at)
        .returning(DreamImage)
        .execution_options(synchronize_session=False)
    ).all()


def note_swept(session: Session, image_ids: Iterable[int]) -> None:
    """Note that their keys are deleted, and clear private facts of older releases."""
    _note(session, image_ids, swept=True, facts=None)


def undo_sweep(session: Session, image_ids: Iterable[int]) -> None:
    """Let a later sweep try again: the keys could not be deleted now."""
    _note(session, image_ids, swept=False)


def forget_staged(session: Session, image_ids: Iterable[int]) -> None:
    """Note that their staged bytes are deleted."""
    _note(session, image_ids, staging_key=None)


def _note(session: Session, image_ids: Iterable[int], **values: Any) -> None:
    """Write without a new `updated_at`, because the nightly sweep reads the picture's age from it."""
    session.execute(_NOTE, {"images": list(image_ids), **values})
