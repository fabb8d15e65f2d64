"""The class of a task's error."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("dream_tasks", sa.Column("error_class", sa.String(length=255), nullable=True))


def downgrade() -> None:
    op.drop_column("dream_tasks", "error_class")
