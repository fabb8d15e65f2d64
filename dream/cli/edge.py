"""The edge of a process: an error of ours becomes one line and an exit code, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from dream.errors import DreamError, SettingsError

__all__ = ["EXIT_FAILURE", "EXIT_SETTINGS", "exit_code"]

EXIT_FAILURE = 1
EXIT_SETTINGS = 2


def exit_code(call: Callable[[], int]) -> int:
    """What `call` returns, or 2 for a wrong setting and 1 for any other error of ours, told on standard error."""
    try:
        return call()
    except DreamError as error:
        sys.stderr.write(f"dream: {error}\n")
        return EXIT_SETTINGS if isinstance(error, SettingsError) else EXIT_FAILURE
