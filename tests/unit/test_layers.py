"""The layers of docs/architecture.md hold: imports go down only, and every module is in a layer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the project's contract on the package `dream` in that folder."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package and its contract, to be spoiled."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for source in (ROOT / "dream").rglob("*.py"):
        target = tmp_path / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    return tmp_path


def append(folder: Path, module: str, line: str) -> None:
    path = folder / module
    path.write_text((path.read_text() if path.exists() else "") + f"\n{line}\n")


#: In each place of a copy an import that the contract forbids, and the words that tell of it.
WRONG = {
    "up": (
        "dream/storage/keys.py",
        "import dream.producer",
        "dream.storage is not allowed to import dream.producer",
    ),
    "sideways": ("dream/storage/keys.py", "import dream.db.models", "dream.storage is not allowed to import dream.db"),
    "up inside a function": (
        "dream/work/messages.py",
        "def late():\n    import dream.producer",
        "dream.work is not allowed to import dream.producer",
    ),
    "façade to product": (
        "dream/compat/signals.py",
        "import dream.producer",
        "dream.compat is not allowed to import dream.producer",
    ),
    "bridge to rows": (
        "dream/bridge/run.py",
        "def late():\n    import dream.db",
        "dream.bridge is not allowed to import dream.db",
    ),
    "product to façade": (
        "dream/runs/run.py",
        "import dream.compat.exceptions",
        "dream.runs is not allowed to import dream.compat",
    ),
    "nowhere": ("dream/drawer.py", "", "dream.drawer"),
}


def test_imports_go_down_only() -> None:
    outcome = lint_imports(ROOT)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_every_wrong_import_is_found(copy: Path) -> None:
    """All at once: to read the whole package takes seconds."""
    for module, line, _ in WRONG.values():
        append(copy, module, line)
    outcome = lint_imports(copy)
    assert outcome.returncode == 1
    assert {kind for kind, (_, _, told) in WRONG.items() if told not in outcome.stdout} == set(), outcome.stdout


def test_an_import_for_the_type_checker_alone_is_none(copy: Path) -> None:
    append(
        copy,
        "dream/errors.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dream.producer import Producer",
    )
    outcome = lint_imports(copy)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
