"""The documented paths are cheap to import, and hold names only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dream

ROOT = Path(dream.__file__).parent
HEAVY = ("PIL", "boto3", "botocore", "starlette", "sqlalchemy", "dramatiq", "redis", "prometheus_client")

#: Beside the documented paths of `dream.celery`: dream's own tasks as Celery sees them, and dream as the façade's host.
OWN = ("accepting", "host", "own", "own_task")

PROBE = """
import sys, time
begun = time.process_time()
import {module}
took = time.process_time() - begun
print(took, *[name for name in {heavy} if name in sys.modules])
"""


@pytest.mark.parametrize(
    "module",
    ["dream.compat", "dream.celery.tasks.image_tasks", "dream.celery.tasks.token_tasks", "dream.websocket.utils"],
)
def test_a_web_process_imports_it_in_under_0_3_s_and_nothing_heavy(module: str) -> None:
    """Seconds of CPU, and the best of up to three: a busy machine says nothing about the import."""
    times: list[float] = []
    while len(times) < 3 and min(times, default=1) >= 0.3:
        probe = PROBE.format(module=module, heavy=HEAVY)
        answer = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=30)
        took, *heavy = answer.stdout.split()
        assert heavy == []
        times.append(float(took))
    assert min(times) < 0.3


def aliases() -> list[Path]:
    celery = ROOT / "celery"
    own = {celery / f"{name}.py" for name in OWN}
    return sorted([*(set(celery.rglob("*.py")) - own), *ROOT.joinpath("websocket").rglob("*.py")])


@pytest.mark.parametrize("path", aliases(), ids=lambda path: str(path.relative_to(ROOT)))
def test_aliases_hold_no_logic(path: Path) -> None:
    """No `def`, `class` or `lambda` under the documented paths."""
    logic = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    assert [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, logic)] == []
