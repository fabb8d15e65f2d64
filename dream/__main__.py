"""`python -m dream` and the `dream` command. Light: processes of a spawned pool import it again."""

from __future__ import annotations

import os
import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    # The kernel drops a SIGTERM that the first process of a container does not handle, for example while it imports.
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    from dream.cli import app
    from dream.work.process import exit_code

    sys.exit(exit_code(app))


if __name__ == "__main__":
    main()
