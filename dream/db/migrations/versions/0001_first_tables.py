"""The first tables: tasks and images.

Earlier releases made two more here. `dreams` is made by `dream.db.migrate`, where `DREAM_OWNERS_SQL` is not set, and
`revoked_tokens` is `dream_revoked_tokens` now (see 0007).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dream_tasks",
        sa.Column("id", sa.String(length=155), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("queue", sa.String(length=255), nullable=True),
        sa.Column("args", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("deaths", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_token", sa.String(length=32), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("result", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("announced_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resends", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("resent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dream_tasks")),
    )
    op.create_index("ix_dream_tasks_state_due_at", "dream_tasks", ["state", "due_at"])
    _create_partial_index(
        "ix_dream_tasks_unannounced", "dream_tasks", "finished_at", "finished_at IS NOT NULL AND announced_at IS NULL"
    )

    op.create_table(
        "dream_images",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("dream_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=True),
        sa.Column("task_id", sa.String(length=155), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("filename", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("bucket", sa.String(length=63), nullable=True),
        sa.Column("storage_key", sa.String(length=255), nullable=False),
        sa.Column("staging_key", sa.String(length=255), nullable=True),
        sa.Column("url", sa.String(length=255), nullable=True),
        sa.Column("width_px", sa.Integer(), nullable=True),
        sa.Column("height_px", sa.Integer(), nullable=True),
        sa.Column("size_bytes", sa.Integer(), nullable=True),
        sa.Column("content_type", sa.String(length=64), nullable=True),
        sa.Column("placeholder", sa.String(length=255), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("swept", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["dream_tasks.id"], name=op.f("fk_dream_images_task_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dream_images")),
        sa.UniqueConstraint("storage_key", name=op.f("uq_dream_images_storage_key")),
    )
    op.create_index("ix_dream_images_dream_id_state", "dream_images", ["dream_id", "state"])
    _create_partial_index("ix_dream_images_staged", "dream_images", "staging_key", "staging_key IS NOT NULL")
    ended = "state IN ('deleted', 'failed') AND NOT swept"
    _create_partial_index("ix_dream_images_unswept", "dream_images", "updated_at", ended)
    _create_partial_index("ix_dream_images_unfinished", "dream_images", "state", "state IN ('pending', 'processing')")
    op.create_index("ix_dream_images_task_id", "dream_images", ["task_id"])


def _create_partial_index(name: str, table: str, column: str, condition: str) -> None:
    op.create_index(name, table, [column], sqlite_where=sa.text(condition), postgresql_where=sa.text(condition))


def downgrade() -> None:
    for table in ("dream_images", "dream_tasks"):
        op.drop_table(table)
