"""Alembic's script: dream's metadata on the connection that `dream.db.migrate` gives it."""

from __future__ import annotations

from alembic import context

from dream.db.migrate import VERSION_TABLE
from dream.db.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    # Some indexes cannot be created in a transaction; if one is open already, every statement is in that one.
    transaction_per_migration=True,
    version_table=VERSION_TABLE,
    found=context.config.attributes["found"],
)
with context.begin_transaction():
    context.run_migrations()
