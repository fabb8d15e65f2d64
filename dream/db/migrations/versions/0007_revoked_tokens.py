"""Revoked tokens in a table whose name no application has.

A table `revoked_tokens` of an older release gets the new name, with its rows, and a view keeps the old one: a gateway
of the older release that still runs, and the caller's own code, read and write the same rows (on SQLite without
ON CONFLICT, which it has for tables only). An application's table of that name is left alone.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from dream.db.migrations.large_tables import in_a_short_lock

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if _is_an_older_releases():
        if op.get_bind().dialect.name == "sqlite":
            _rename_on_sqlite()
        else:
            in_a_short_lock(_rename_on_postgresql)
        return
    op.create_table(
        "dream_revoked_tokens",
        sa.Column("jti", sa.String(length=255), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("jti", name=op.f("pk_dream_revoked_tokens")),
    )
    op.create_index("ix_dream_revoked_tokens_expires_at", "dream_revoked_tokens", ["expires_at"])


def _is_an_older_releases() -> bool:
    """Whether an older release's migrations made the table: they ran, and the table has their form."""
    inspector = sa.inspect(op.get_bind())
    if op.get_context().opts["found"] is None or not inspector.has_table("revoked_tokens"):
        return False
    columns = {column["name"] for column in inspector.get_columns("revoked_tokens")}
    indexes = {index["name"] for index in inspector.get_indexes("revoked_tokens")}
    return columns >= {"jti", "expires_at", "user_id"} and "ix_revoked_tokens_expires_at" in indexes


def _rename_on_sqlite() -> None:
    op.rename_table("revoked_tokens", "dream_revoked_tokens")
    op.drop_index("ix_revoked_tokens_expires_at", "dream_revoked_tokens")
    op.create_index("ix_dream_revoked_tokens_expires_at", "dream_revoked_tokens", ["expires_at"])
    op.execute("CREATE VIEW revoked_tokens AS SELECT * FROM dream_revoked_tokens")
    op.execute(
        "CREATE TRIGGER revoked_tokens_insert INSTEAD OF INSERT ON revoked_tokens BEGIN"
        " INSERT INTO dream_revoked_tokens (jti, expires_at, user_id)"
        " VALUES (NEW.jti, NEW.expires_at, NEW.user_id); END"
    )
    op.execute(
        "CREATE TRIGGER revoked_tokens_delete INSTEAD OF DELETE ON revoked_tokens BEGIN"
        " DELETE FROM dream_revoked_tokens WHERE jti = OLD.jti; END"
    )


def _rename_on_postgresql() -> None:
    """Rename the table and create the view; quick for any number of rows."""
    op.rename_table("revoked_tokens", "dream_revoked_tokens")
    op.execute("ALTER TABLE dream_revoked_tokens RENAME CONSTRAINT pk_revoked_tokens TO pk_dream_revoked_tokens")
    op.execute("ALTER INDEX ix_revoked_tokens_expires_at RENAME TO ix_dream_revoked_tokens_expires_at")
    op.execute("CREATE VIEW revoked_tokens AS SELECT * FROM dream_revoked_tokens")
    # Other roles get the same rights on the view as on the table.
    op.execute(
        "DO $$ DECLARE each record; BEGIN FOR each IN SELECT grantee, privilege_type"
        " FROM information_schema.role_table_grants WHERE table_name = 'dream_revoked_tokens'"
        " AND table_schema = current_schema() AND grantee <> grantor"
        " AND privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE') LOOP"
        " EXECUTE format('GRANT %s ON revoked_tokens TO %s', each.privilege_type,"
        " CASE each.grantee WHEN 'PUBLIC' THEN 'PUBLIC' ELSE quote_ident(each.grantee) END);"
        " END LOOP; END $$"
    )


def downgrade() -> None:
    op.drop_table("dream_revoked_tokens")
