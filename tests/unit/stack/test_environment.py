"""The environment of each process of the stack."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

LOOK = """
import sys
from dream.stack.environment import for_process
print(for_process(dict([sys.argv[1].split("=")]), {}).get("DREAM_LOG_FORMAT"))
"""


@pytest.mark.parametrize(
    ("is_terminal", "given", "found"),
    [(True, "X=", "console"), (False, "X=", "None"), (True, "DREAM_LOG_FORMAT=json", "json")],
)
def test_parts_log_as_text_where_a_person_reads_them(is_terminal: bool, given: str, found: str) -> None:
    """Their own standard error is a file in any case; `dream up` copies it to its own."""
    ours, theirs = pty.openpty()
    try:
        run = subprocess.run(
            [sys.executable, "-c", LOOK, given],
            stdout=subprocess.PIPE,
            stderr=theirs if is_terminal else subprocess.PIPE,
            text=True,
            check=True,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert run.stdout.strip() == found
