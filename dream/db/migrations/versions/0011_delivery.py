"""Columns of delivery: remakes, focal points, originals, private facts, and hashes of uploads.

Each column may be null or has a default, so processes of the older release go on with their rows.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from dream.db.migrations.large_tables import create_partial_index, drop_index, in_a_short_lock

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_TABLE = "dream_images"
_INDEXES = {
    "ix_dream_images_stored": ("user_id stored_bytes", "state IN ('completed', 'failed')"),
    "ix_dream_images_unmeasured": ("updated_at", "stored_bytes IS NULL AND state = 'completed'"),
    "ix_dream_images_outdated": ("updated_at", "first_remake < last_remake AND state = 'completed'"),
    "ix_dream_images_hashed": ("dream_id sha256 id", "state = 'completed' AND sha256 IS NOT NULL"),
}


def _columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("remakes", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("first_remake", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_remake", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("focus", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("found_focus", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("original_bucket", sa.String(length=63), nullable=True),
        sa.Column("original_key", sa.String(length=255), nullable=True),
        sa.Column("original_bytes", sa.BigInteger(), nullable=True),
        sa.Column("stored_bytes", sa.BigInteger(), nullable=True),
        sa.Column("facts", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("perceptual_hash", sa.String(length=16), nullable=True),
        sa.Column("duplicate_of", sa.BigInteger(), nullable=True),
    ]


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        in_a_short_lock(lambda: _add_columns(if_not_exists=True))
    else:
        _add_columns(if_not_exists=None)
    for name, (columns, condition) in _INDEXES.items():
        create_partial_index(name, _TABLE, columns, condition)


def _add_columns(*, if_not_exists: bool | None) -> None:
    """Add the columns. PostgreSQL keeps them if the creation of an index after them is interrupted."""
    for column in _columns():
        op.add_column(_TABLE, column, if_not_exists=if_not_exists)


def downgrade() -> None:
    for name in _INDEXES:
        drop_index(name, _TABLE)
    for column in reversed(_columns()):
        op.drop_column(_TABLE, column.name)
