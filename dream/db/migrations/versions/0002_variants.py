"""Variants and the dominant colour of a picture."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dream_images", sa.Column("dominant_colour", sa.String(length=7), nullable=True))
    op.add_column("dream_images", sa.Column("wanted_variants", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("dream_images", sa.Column("variants", sa.JSON(), server_default=sa.text("'[]'"), nullable=False))


def downgrade() -> None:
    for column in ("variants", "wanted_variants", "dominant_colour"):
        op.drop_column("dream_images", column)
