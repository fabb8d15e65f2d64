"""What has to be there before the parts start: the database's tables and the bucket.

Runs as a process of its own, `python -m dream.stack.prepare`, while the servers are starting: `dream up` itself
stays free of the database's and the object store's libraries.
"""

from __future__ import annotations

import sys
import time

from dream.process import exit_code

__all__ = ["main"]

_TIMEOUT_S = 60.0


def main() -> int:
    """Migrate, then make the bucket as soon as the object store answers. Returns an exit code."""
    return exit_code(_prepare)


def _prepare() -> int:
    from dream.db.faults import explained
    from dream.db.migrate import upgrade
    from dream.errors import ObjectStoreUnavailable
    from dream.settings import load
    from dream.storage import Storage

    settings = load()
    with explained():
        upgrade(settings.database_url, schema=settings.database_schema, with_dreams=settings.owners_sql is None)
    storage = Storage(settings)
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            storage.ensure_bucket(settings.s3_bucket)
        except ObjectStoreUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return 0


if __name__ == "__main__":
    sys.exit(main())
