"""What has to be there before the parts start: the database's tables and the bucket.

Runs as a process of its own, `python -m dream.stack.prepare`, while the servers are starting: `dream up` itself
stays free of the database's and the object store's libraries.
"""

from __future__ import annotations

import sys
import time

from dream.errors import DreamError, SettingsError

__all__ = ["main"]

_TIMEOUT_S = 60.0


def main() -> int:
    """Migrate, then make the bucket as soon as the object store answers. Returns an exit code."""
    try:
        _prepare()
    except DreamError as error:
        sys.stderr.write(f"dream: {error}\n")
        return 2 if isinstance(error, SettingsError) else 1
    return 0


def _prepare() -> None:
    from dream.db.migrate import upgrade
    from dream.errors import ObjectStoreUnavailable
    from dream.settings import load
    from dream.storage import Storage

    settings = load()
    upgrade(settings.database_url)
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
            return


if __name__ == "__main__":
    sys.exit(main())
