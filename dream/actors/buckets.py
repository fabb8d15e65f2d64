"""Which bucket a dream's pictures go to; where that is its owner's, the dream may have to be waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dream.actors.storing import RunStorage
from dream.db.dreams import owner_of
from dream.errors import DreamNotVisible
from dream.storage.keys import user_bucket

if TYPE_CHECKING:
    from dream.actors.resources import Resources
    from dream.middleware.run import Run

__all__ = ["bucket_of"]

#: A dream that is not visible yet is looked for again after these (docs/architecture.md, "A dream may come late").
_LOOK_AGAIN_S = (0.5, 1.0, 2.0, 4.0, 8.0)


def bucket_of(resources: Resources, run: Run, dream_id: int) -> str:
    """The bucket of a dream's pictures, which is there when this returns.

    Raises:
      DreamNotVisible: the dream's row is not there (yet).
    """
    settings = resources.settings
    if not settings.is_bucket_per_user:
        return settings.s3_bucket
    for pause_s in (*_LOOK_AGAIN_S, None):
        with resources.database.read() as session:
            owner = owner_of(session, dream_id, settings.owners_sql)
        if owner is not None:
            bucket = user_bucket(settings.s3_bucket, owner.username)
            RunStorage(resources, run).ensure_bucket(bucket)
            return bucket
        run.check()
        if pause_s is not None:
            run.lost.wait(pause_s)
    raise DreamNotVisible(f"the dream {dream_id} is not there (yet)")
