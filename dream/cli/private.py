"""The checks of `dream doctor` about private data: originals that the public could read, and facts of earlier days."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from dream.cli.findings import Check, Finding, right, warning, wrong
from dream.db import Database, DreamImage
from dream.db.faults import explain
from dream.storage import Storage
from dream.storage.keys import new_original_key

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["checks_of_private_data"]

_PROBE = b"written by `dream doctor`, which removes it at once"
_BLOCK = "block public access to that bucket: its files have the places at which photos were taken"


def checks_of_private_data(settings: Settings) -> Iterator[Check]:
    """The checks of originals, if there may be any, and of facts."""
    if bucket := settings.originals_bucket:
        own = bucket not in (settings.s3_bucket, settings.staging_bucket)
        needs = ["originals bucket" if own else "bucket" if bucket == settings.s3_bucket else "staging bucket"]
        yield Check("privacy of originals", partial(_originals, settings, bucket), _BLOCK, needs=needs)
    if settings.keep_facts == "none":
        yield Check("privacy of facts", partial(_facts, settings), "look at the database", needs=["migrations"])


def _originals(settings: Settings, bucket: str) -> Iterator[Finding]:
    """Read an object of the bucket without credentials."""
    storage, key = Storage(settings), new_original_key()
    storage.put_bytes(bucket, key, _PROBE)
    try:
        is_public = storage.is_public(bucket, key)
    finally:
        storage.delete(bucket, [key])
    if is_public:
        yield wrong(f"anybody can read the originals in {bucket} without credentials", _BLOCK)
    else:
        yield right(f"nobody reads originals in {bucket} without credentials")


def _facts(settings: Settings) -> Iterator[Finding]:
    """Look for facts from the time before the setting became `none`."""
    database = Database(settings)
    try:
        with database.read() as session:
            found = session.scalar(select(DreamImage.id).where(DreamImage.facts.is_not(None)).limit(1))
    except SQLAlchemyError as error:
        raise explain(error, "the facts cannot be counted") from error
    finally:
        database.dispose()
    if found is not None:
        said = "DREAM_KEEP_FACTS is none, and rows still have facts of photos"
        yield warning(said, "run `dream reprocess --all`, which clears them")
    else:
        yield right("no row has facts of a photo")
