"""What Alembic runs: our metadata on the connection that `dream.db.migrate` hands over."""

from __future__ import annotations

from alembic import context

from dream.db.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    # Some indexes cannot be created in a transaction; where one is open already, all is in that.
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
