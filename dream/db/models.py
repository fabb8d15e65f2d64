"""The tables: tasks, images, uploads, dreams, periodic tasks, marks, revoked tokens (docs/architecture.md, "Rows")."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Enum, Index, Integer, MetaData, String, Text, false, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, validates

from dream.db.clock import UTCDateTime, now
from dream.messages.direct import AwaitedFile
from dream.messages.pictures import StoredVariant
from dream.messages.receipts import Receipt
from dream.messages.states import ImageState, TaskState, check_move
from dream.variants import VariantSpec
from dream.work.messages import MAX_ID_LENGTH

__all__ = ["Base", "Dream", "DreamImage", "DreamMark", "DreamPeriodic", "DreamTask", "DreamUpload", "RevokedToken"]

#: SQLite counts rows by itself only in a column of exactly this type.
_BigId = BigInteger().with_variant(Integer(), "sqlite")


def _state(states: type[StrEnum]) -> Enum:
    """A column that holds a state by its value, as plain text."""
    return Enum(states, native_enum=False, length=16, values_callable=lambda cls: [state.value for state in cls])


def _partial(name: str, columns: str, condition: str) -> Index:
    """An index over the rows that meet the condition.

    It serves only queries with the same condition, word for word: bound parameters (`state IN (?, ?)`) defeat it.
    """
    return Index(name, *columns.split(), sqlite_where=text(condition), postgresql_where=text(condition))


# Conditions of indexes and of the queries that they serve.
#: Tasks that have not ended.
OPEN = "state IN ('queued', 'running')"
NEVER_RESENT = f"{OPEN} AND resent_at IS NULL"
RESENT = f"{OPEN} AND resent_at IS NOT NULL"
LEASED = "lease_token IS NOT NULL"
#: Tasks that have ended and are not announced.
UNANNOUNCED = "finished_at IS NOT NULL AND announced_at IS NULL"
#: Tasks that have ended and are announced.
ANNOUNCED = "finished_at IS NOT NULL AND announced_at IS NOT NULL"
FAILED = "state = 'failed'"
#: Pictures that their owner sees.
VISIBLE = "state IN ('pending', 'processing', 'completed', 'failed')"
#: Pictures that wait or are in work.
PENDING = "state IN ('pending', 'processing')"
#: Pictures that were processed: each may have objects, or an original.
PROCESSED = "state IN ('completed', 'failed')"
STAGED = "staging_key IS NOT NULL"
#: Pictures that have ended, with their uploaded bytes still there.
STAGED_ENDED = f"state IN ('completed', 'deleted', 'failed') AND {STAGED}"
UNSWEPT = "state IN ('deleted', 'failed') AND NOT swept"
TOMBSTONES = "state = 'deleted' AND swept"
#: Pictures that may have objects of older remakes.
OUTDATED = "first_remake < last_remake AND state = 'completed'"
#: Stored pictures whose upload's hash is known.
HASHED = "state = 'completed' AND sha256 IS NOT NULL"
#: Pictures that an older release completed.
UNMEASURED = "stored_bytes IS NULL AND state = 'completed'"


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class DreamTask(Base):
    """A task, before its message exists and after it is gone: the row decides whether it runs, and has its outcome."""

    __tablename__ = "dream_tasks"
    __table_args__ = (
        # Workers and the sweep ask every few seconds: these stay small, however many rows there are.
        _partial("ix_dream_tasks_leased", "lease_token", LEASED),
        _partial("ix_dream_tasks_never_resent", "due_at id", NEVER_RESENT),
        _partial("ix_dream_tasks_resent", "resent_at id", RESENT),
        _partial("ix_dream_tasks_unannounced", "finished_at", UNANNOUNCED),
        _partial("ix_dream_tasks_failed", "finished_at id", FAILED),
        # For retention.
        _partial("ix_dream_tasks_announced", "finished_at id", ANNOUNCED),
    )

    id: Mapped[str] = mapped_column(String(MAX_ID_LENGTH), primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    #: The queue that it was sent to, without prefix; None means the task's own.
    queue: Mapped[str | None] = mapped_column(String(255))
    args: Mapped[list[Any]] = mapped_column(JSON)
    state: Mapped[TaskState] = mapped_column(_state(TaskState), default=TaskState.QUEUED)
    #: Failed runs; a requeued run does not count, nor does a run that ended with its worker.
    attempts: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    #: Runs that ended with the death of their worker.
    deaths: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    due_at: Mapped[datetime] = mapped_column(UTCDateTime, default=now())
    #: It does not start after this.
    expires_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    lease_token: Mapped[str | None] = mapped_column(String(32))
    lease_expires_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    result: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[str | None] = mapped_column(Text)
    #: The class of the error that callers get: `module:QualifiedName`.
    error_class: Mapped[str | None] = mapped_column(String(255))
    #: The reason for programs (docs/errors.md, "Codes").
    error_code: Mapped[str | None] = mapped_column(String(64))
    #: The time at which its last event was appended to the stream.
    announced_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    #: The number of times that the sweep sent it again, and the time of the last one.
    resends: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    resent_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=now())
    finished_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    #: The answer to its request, which a repeated request gets again (`dream.messages.receipts`).
    receipt: Mapped[Receipt | None] = mapped_column(JSON(none_as_null=True))


class DreamImage(Base):
    """One uploaded picture. `dream_id` is no foreign key: the dream's transaction may not be visible yet."""

    __tablename__ = "dream_images"
    __table_args__ = (
        Index("ix_dream_images_dream_id_state", "dream_id", "state"),
        # For pages, in the order of the dream's text.
        _partial("ix_dream_images_visible", "dream_id position id", VISIBLE),
        # For pages, the newest first.
        _partial("ix_dream_images_newest", "dream_id id", VISIBLE),
        _partial("ix_dream_images_pending", "state user_id", PENDING),
        _partial("ix_dream_images_staged", "staging_key", STAGED),
        _partial("ix_dream_images_staged_ended", "updated_at id", STAGED_ENDED),
        _partial("ix_dream_images_unswept", "updated_at", UNSWEPT),
        _partial("ix_dream_images_tombstones", "updated_at id", TOMBSTONES),
        # For the quota of a user.
        _partial("ix_dream_images_stored", "user_id stored_bytes", PROCESSED),
        _partial("ix_dream_images_unmeasured", "updated_at", UNMEASURED),
        _partial("ix_dream_images_outdated", "updated_at", OUTDATED),
        # For `duplicate_of`.
        _partial("ix_dream_images_hashed", "dream_id sha256 id", HASHED),
    )

    id: Mapped[int] = mapped_column(_BigId, primary_key=True)
    dream_id: Mapped[int] = mapped_column(BigInteger)
    #: The user who uploaded it, if the gateway knows.
    user_id: Mapped[int | None] = mapped_column(BigInteger)
    #: No foreign key: a picture outlives its task's row.
    task_id: Mapped[str] = mapped_column(String(MAX_ID_LENGTH), index=True)
    #: Place in the task's list of files.
    index: Mapped[int]
    #: Offset in the dream's text; many pictures may share one.
    position: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    filename: Mapped[str] = mapped_column(String(255))
    state: Mapped[ImageState] = mapped_column(_state(ImageState), default=ImageState.PENDING)
    bucket: Mapped[str | None] = mapped_column(String(63))
    #: `dreams/<YYYYMMDD>/<32 hex>` from the start; `.<ext>` follows once the picture's format is known.
    storage_key: Mapped[str] = mapped_column(String(255), unique=True)
    staging_key: Mapped[str | None] = mapped_column(String(255))
    #: The canonical URL, fixed at the first completion: callers compare URLs as strings.
    url: Mapped[str | None] = mapped_column(String(255))
    width_px: Mapped[int | None]
    height_px: Mapped[int | None]
    size_bytes: Mapped[int | None]
    content_type: Mapped[str | None] = mapped_column(String(64))
    placeholder: Mapped[str | None] = mapped_column(String(255))
    #: `#rrggbb`
    dominant_colour: Mapped[str | None] = mapped_column(String(7))
    #: The variants that a run may have stored, as `VariantSpec.row` writes them. They are written before their objects,
    #: so a deletion knows every key, although `DREAM_VARIANTS` may have changed.
    wanted_variants: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    #: The stored variants.
    variants: Mapped[list[StoredVariant]] = mapped_column(JSON, default=list, server_default=text("'[]'"))
    #: The number of the remake that made the picture's object; 0 is the upload's own run. The object's key has this
    #: number, its URL never changes (`dream.storage.keys.object_key`).
    remakes: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    #: The first and the last remake that may have left objects. A run takes the next number before it stores any.
    first_remake: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    last_remake: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    #: The time at which the objects were last made; None in rows of older releases.
    made_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    #: `[x, y]`, each 0 to 1, from the top left of the upright picture: the point that crops keep. Given by the
    #: owner, or found.
    focus: Mapped[list[float] | None] = mapped_column(JSON(none_as_null=True))
    found_focus: Mapped[list[float] | None] = mapped_column(JSON(none_as_null=True))
    #: The place of the uploaded file, if it is kept; written before the file is stored.
    original_bucket: Mapped[str | None] = mapped_column(String(63))
    original_key: Mapped[str | None] = mapped_column(String(255))
    #: The size of the uploaded file.
    original_bytes: Mapped[int | None] = mapped_column(BigInteger)
    #: The bytes in the store of picture, variants and original.
    stored_bytes: Mapped[int | None] = mapped_column(BigInteger)
    #: When, where and with what the photo was taken; for its owner only.
    facts: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    #: The SHA-256 of the uploaded file, in hex.
    sha256: Mapped[str | None] = mapped_column(String(64))
    #: Similar pictures have similar ones: 64 bits, in hex (`dream.imaging.perceptual_hash`).
    perceptual_hash: Mapped[str | None] = mapped_column(String(16))
    #: The id of another picture of the dream with the same upload, which was stored when this one was completed.
    duplicate_of: Mapped[int | None] = mapped_column(BigInteger)
    error: Mapped[str | None] = mapped_column(Text)
    error_code: Mapped[str | None] = mapped_column(String(64))
    #: The keys of a deleted or failed picture were deleted once more by the nightly sweep.
    swept: Mapped[bool] = mapped_column(default=False, server_default=false())
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=now())
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime, default=now(), onupdate=now())

    @property
    def wanted_specs(self) -> list[VariantSpec]:
        """The variants that a run may have stored."""
        return [VariantSpec.of_row(pair) for pair in self.wanted_variants or ()]

    @property
    def variant_names(self) -> list[str]:
        """The names of all variants that a run may have stored."""
        return [name for name, _ in self.wanted_variants or ()]

    @validates("state")
    def _legal_move(self, _name: str, target: ImageState) -> ImageState:
        if self.state is not None:
            check_move(ImageState(self.state), ImageState(target))
        return target


class DreamUpload(Base):
    """An open direct upload: clients have URLs for its files. Its completion replaces the row by a task's of its id."""

    __tablename__ = "dream_uploads"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    dream_id: Mapped[int] = mapped_column(BigInteger)
    user_id: Mapped[int | None] = mapped_column(BigInteger)
    files: Mapped[list[AwaitedFile]] = mapped_column(JSON)
    #: The number of files and of their bytes, for the limits.
    file_count: Mapped[int]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)


class Dream(Base):
    """A dream and its owner, if the application has no such table (else: `DREAM_OWNERS_SQL`)."""

    __tablename__ = "dreams"

    id: Mapped[int] = mapped_column(_BigId, primary_key=True)
    user_id: Mapped[int] = mapped_column(BigInteger)
    username: Mapped[str] = mapped_column(String(150))
    title: Mapped[str] = mapped_column(String(255), default="", server_default=text("''"))
    #: The user, if it is no number; then `user_id` is the number that stands for it.
    user_text: Mapped[str | None] = mapped_column(String(255))


class DreamPeriodic(Base):
    """An entry of a Celery-compatible app's `beat_schedule`: the last run that was sent."""

    __tablename__ = "dream_periodic"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    #: The time from which the next run's is counted: when the newest run was due, or when the entry was first seen.
    ran_at: Mapped[datetime] = mapped_column(UTCDateTime, default=now())
    #: The run that a scheduler has taken and that the broker may not have yet.
    task_id: Mapped[str | None] = mapped_column(String(MAX_ID_LENGTH))
    taken_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    #: The last time at which a scheduler had the entry in its schedule; noted once an hour.
    seen_at: Mapped[datetime | None] = mapped_column(UTCDateTime, default=now())


class DreamMark(Base):
    """A moment under a name."""

    __tablename__ = "dream_marks"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    at: Mapped[datetime] = mapped_column(UTCDateTime)


class RevokedToken(Base):
    """A JWT that was logged out; its row may go once the token would have expired anyway."""

    __tablename__ = "dream_revoked_tokens"

    jti: Mapped[str] = mapped_column(String(255), primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime, index=True)
    user_id: Mapped[int | None] = mapped_column(BigInteger)
