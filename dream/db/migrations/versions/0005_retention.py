"""Columns for the removal of old rows: pictures outlive their task, and entries have the time of their last use."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from dream.db.migrations.large_tables import in_a_short_lock

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_FOREIGN_KEY = "fk_dream_images_task_id"


def upgrade() -> None:
    op.create_table(
        "dream_marks",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_dream_marks")),
    )
    op.add_column("dream_periodic", sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True))
    if op.get_bind().dialect.name == "postgresql":
        in_a_short_lock(lambda: op.drop_constraint(_FOREIGN_KEY, "dream_images", type_="foreignkey"))
    else:
        # SQLite makes the table anew, in the one transaction in which all migrations are: a kill leaves the old one.
        with op.batch_alter_table("dream_images", recreate="always") as batch:
            batch.drop_constraint(_FOREIGN_KEY, type_="foreignkey")


def downgrade() -> None:
    with op.batch_alter_table("dream_images") as batch:
        batch.create_foreign_key(_FOREIGN_KEY, "dream_tasks", ["task_id"], ["id"])
    op.drop_column("dream_periodic", "seen_at")
    op.drop_table("dream_marks")
