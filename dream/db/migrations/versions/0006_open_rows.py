"""Indexes over rows that are open, staged or past their time, in place of indexes over all rows."""

from __future__ import annotations

from dream.db.migrations.large_tables import create_partial_index, drop_index

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_OPEN = "state IN ('queued', 'running')"
_PENDING = "state IN ('pending', 'processing')"

_TASKS, _IMAGES = "dream_tasks", "dream_images"
_NEW = (
    ("ix_dream_tasks_leased", _TASKS, "lease_token", "lease_token IS NOT NULL"),
    ("ix_dream_tasks_never_resent", _TASKS, "due_at id", f"{_OPEN} AND resent_at IS NULL"),
    ("ix_dream_tasks_resent", _TASKS, "resent_at id", f"{_OPEN} AND resent_at IS NOT NULL"),
    ("ix_dream_tasks_failed", _TASKS, "finished_at id", "state = 'failed'"),
    ("ix_dream_tasks_announced", _TASKS, "finished_at id", "finished_at IS NOT NULL AND announced_at IS NOT NULL"),
    ("ix_dream_images_pending", _IMAGES, "state user_id", _PENDING),
    (
        "ix_dream_images_staged_ended",
        _IMAGES,
        "updated_at id",
        "state IN ('completed', 'deleted', 'failed') AND staging_key IS NOT NULL",
    ),
    ("ix_dream_images_tombstones", _IMAGES, "updated_at id", "state = 'deleted' AND swept"),
)


def upgrade() -> None:
    for index in _NEW:
        create_partial_index(*index)
    drop_index("ix_dream_tasks_state_due_at", _TASKS)
    drop_index("ix_dream_images_unfinished", _IMAGES)


def downgrade() -> None:
    create_partial_index("ix_dream_tasks_state_due_at", _TASKS, "state due_at", "true")
    create_partial_index("ix_dream_images_unfinished", _IMAGES, "state", _PENDING)
    for name, table, *_ in _NEW:
        drop_index(name, table)
