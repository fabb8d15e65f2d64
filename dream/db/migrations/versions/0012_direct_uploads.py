"""Open direct uploads, and the receipts of uploads in the rows of their tasks.

The older release knows neither: it goes on with its tables, and its nightly sweep removes staged bytes only after more
than the life of a direct upload.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from dream.db.migrations.large_tables import in_a_short_lock

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_TABLE = "dream_uploads"


def upgrade() -> None:
    op.create_table(
        _TABLE,
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("dream_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=True),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("file_count", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dream_uploads")),
    )
    op.create_index("ix_dream_uploads_expires_at", _TABLE, ["expires_at"])
    receipt = sa.Column("receipt", sa.JSON(none_as_null=True), nullable=True)
    if op.get_bind().dialect.name == "postgresql":
        in_a_short_lock(lambda: op.add_column("dream_tasks", receipt))
    else:
        op.add_column("dream_tasks", receipt)


def downgrade() -> None:
    op.drop_column("dream_tasks", "receipt")
    op.drop_table(_TABLE)
