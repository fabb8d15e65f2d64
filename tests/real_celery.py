"""Programs with the real Celery: forks of one process that has imported it, for its import costs more than they do.

See `tests/preloaded.py`, whose process must not have Celery.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["run"]

#: Takes programs as lines of JSON, runs each in a process of its own, and answers with its exit code.
_PARENT = """
import atexit, json, os, sys, threading, traceback
import celery, celery.app.amqp, celery.app.events, celery.backends.redis, celery.canvas, celery.result
import kombu.pools, kombu.transport.pyamqp, kombu.transport.redis

def become(wanted):
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["cwd"])
    for number, path in enumerate([os.devnull, wanted["stdout"], wanted["stderr"]]):
        os.dup2(os.open(path, os.O_WRONLY if number else os.O_RDONLY), number)
    try:
        exec(compile(wanted["program"], "<string>", "exec"), {"__name__": "__main__"})
        return 0
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()

for line in sys.stdin:
    child = os.fork()
    if not child:
        os._exit(become(json.loads(line)))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
_one_at_a_time = threading.Lock()


def run(program: str) -> str:
    """The output of the program, which must end well."""
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = Path(folder) / "stdout", Path(folder) / "stderr"
        stdout.touch()
        stderr.touch()
        wanted = {"program": program, "environment": dict(os.environ), "cwd": str(Path.cwd())}
        code = _ask({**wanted, "stdout": str(stdout), "stderr": str(stderr)})
        assert code == 0, stderr.read_text()
        return stdout.read_text()


def _ask(wanted: dict[str, Any]) -> int:
    with _one_at_a_time:
        parent = _parent()
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(json.dumps(wanted) + "\n")
        parent.stdin.flush()
        return int(parent.stdout.readline())


@cache
def _parent() -> subprocess.Popen[str]:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(parent.communicate)  # no more programs: it ends
    return parent
