"""Programs of PostgreSQL on this machine, and the user who may run them."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from tests.conftest import IN_CI

__all__ = ["as_nobody", "programs"]

_DEBIANS = Path("/usr/lib/postgresql")


def programs() -> Path:
    """The folder of the newest release's programs; without one the test is skipped, and in CI it fails."""
    found = sorted(_DEBIANS.glob("*/bin/initdb"))
    if not found:
        message = f"there is no PostgreSQL to start under {_DEBIANS}"
        if IN_CI:
            pytest.fail(message)
        pytest.skip(message)
    return found[-1].parent


def as_nobody(folder: Path) -> list[str]:
    """Words before a command that refuses to run as root: the user `nobody` runs it, and gets the folder.

    They are none if this process is not root's.
    """
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam("nobody")
    for path in (folder, *folder.iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
