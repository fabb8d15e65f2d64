"""A child of the pool starts quickly: it imports neither settings nor servers' clients."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"pydantic", "sqlalchemy", "boto3", "starlette", "dramatiq", "structlog", "numpy"}


def test_a_child_of_the_pool_imports_only_what_pictures_need() -> None:
    look = f"import sys, dream.imaging.child, dream.imaging.pipeline; print(sorted({HEAVY} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == "[]"
