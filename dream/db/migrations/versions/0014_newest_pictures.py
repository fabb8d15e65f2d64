"""An index of the pictures of a dream by their ids, so that a page of the newest of a large dream needs no sorting."""

from __future__ import annotations

from dream.db.migrations.large_tables import create_partial_index, drop_index

revision = "0014"
down_revision = "0012"
branch_labels = None
depends_on = None

_NAME, _TABLE = "ix_dream_images_newest", "dream_images"


def upgrade() -> None:
    create_partial_index(_NAME, _TABLE, "dream_id id", "state IN ('pending', 'processing', 'completed', 'failed')")


def downgrade() -> None:
    drop_index(_NAME, _TABLE)
