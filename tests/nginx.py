"""A real nginx with files of deploy/nginx, on ports of the test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from dream.stack.ports import is_free
from tests.conftest import IN_CI, wait_for

__all__ = ["filled_in", "nginx", "program"]

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"


def program(name: str) -> str:
    """The program's path; without it the test is skipped, and in CI it fails."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        message = f"{name} is not installed"
        if IN_CI:
            pytest.fail(message)
        pytest.skip(message)
    return found


def filled_in(name: str, values: Mapping[str, str]) -> str:
    """A file of deploy/nginx with an operator's values; each text to replace must be there."""
    text = (DEPLOY / "nginx" / name).read_text()
    for before, after in values.items():
        assert before in text, before
        text = text.replace(before, after)
    return text


@contextmanager
def nginx(folder: Path, sites: str, port: int) -> Iterator[None]:
    """Run nginx with these server blocks until the end of the block.

    Parameters:
      folder: for its files.
      port: one of its own on 127.0.0.1; when it accepts, nginx serves.
    """
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config, log = folder / "nginx.conf", folder / "nginx.log"
    # Else its workers are nobody's, and may not write into the test's folder.
    first = f"{'user root; ' if os.getuid() == 0 else ''}pid {folder}/nginx.pid;"
    config.write_text(f"{first} error_log stderr; events {{}}\nhttp {{ {temporary} access_log off;\n{sites}\n}}\n")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program("nginx"), "-c", str(config), "-p", str(folder), "-e", "stderr", "-g", "daemon off;"],
            stderr=output,
        )
    try:
        wait_for(lambda: not is_free(port) or process.poll() is not None, what="nginx")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        assert process.wait(20) == 0, log.read_text()
