"""The code of the reason for which a task or a picture failed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from dream.db.migrations.large_tables import in_a_short_lock

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TABLES = ("dream_tasks", "dream_images")


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        in_a_short_lock(_add_columns)
    else:
        _add_columns()


def _add_columns() -> None:
    """Add the columns; quick for any number of rows, because older rows have no code."""
    for table in _TABLES:
        op.add_column(table, sa.Column("error_code", sa.String(length=64), nullable=True))


def downgrade() -> None:
    for table in _TABLES:
        op.drop_column(table, "error_code")
