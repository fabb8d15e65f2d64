"""Rows: models, transactions, migrations, and the queries on each table (SQLAlchemy 2, Alembic)."""

from dream.db.models import Base, Dream, DreamImage, DreamMark, DreamPeriodic, DreamTask, DreamUpload, RevokedToken
from dream.db.session import Database

__all__ = [
    "Base",
    "Database",
    "Dream",
    "DreamImage",
    "DreamMark",
    "DreamPeriodic",
    "DreamTask",
    "DreamUpload",
    "RevokedToken",
]
