"""PostgreSQL vacuums the tables of tasks and pictures after a number of dead rows, not after a share of all.

Each run leaves dead entries in the indexes over open rows. Queries read past them until a vacuum removes them. By
default that comes after a fifth of the table: millions of rows, where the table is large.
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_TABLES = ("dream_tasks", "dream_images")
#: `vacuum_index_cleanup`: PostgreSQL 14 and newer would else leave the indexes alone where few pages have dead rows.
_PARAMETERS = {
    "autovacuum_vacuum_scale_factor": "0",
    "autovacuum_vacuum_threshold": "50000",
    "vacuum_index_cleanup": "on",
}


def upgrade() -> None:
    _alter("SET", ", ".join(f"{name} = {value}" for name, value in _PARAMETERS.items()))


def downgrade() -> None:
    _alter("RESET", ", ".join(_PARAMETERS))


def _alter(verb: str, parameters: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table in _TABLES:
            # Its lock stops neither readers nor writers.
            op.execute(f"ALTER TABLE {table} {verb} ({parameters})")
