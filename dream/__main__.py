"""`python -m dream` and the `dream` command. Light: processes of a spawned pool import it again."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    from dream.cli import app
    from dream.work.process import exit_code

    sys.exit(exit_code(app))


if __name__ == "__main__":
    main()
