"""An index of the pictures of a dream in the order of its text, so that a page of a large dream needs no sorting.

`ix_dream_images_dream_id_state` stays: processes of the older release list dreams by it.
"""

from __future__ import annotations

from dream.db.migrations.large_tables import create_partial_index, drop_index

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_NAME, _TABLE = "ix_dream_images_visible", "dream_images"


def upgrade() -> None:
    create_partial_index(
        _NAME, _TABLE, "dream_id position id", "state IN ('pending', 'processing', 'completed', 'failed')"
    )


def downgrade() -> None:
    drop_index(_NAME, _TABLE)
