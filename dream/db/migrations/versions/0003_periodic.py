"""Periodic tasks of Celery-compatible apps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dream_periodic",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("ran_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("task_id", sa.String(length=155), nullable=True),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_dream_periodic")),
    )


def downgrade() -> None:
    op.drop_table("dream_periodic")
