"""Shape of the code: public names are listed and exist, aliases hold no logic, no drawers, small modules."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "dream"
#: Documented import paths, which hold nothing of their own.
ALIASES = ("celery/__init__.py", "celery/app.py", "celery/beat.py", "celery/worker.py", "celery/tasks", "websocket")
MOST_LINES = 600
MOST_LOOSE_MODULES = 7
MOST_LINES_OF_A_FUNCTION = 45
DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc"}
#: A Django app that shares the name `dream` has these (docs/architecture.md, "Layers").
OF_A_DJANGO_APP = {"models", "views", "utils", "urls", "admin", "apps", "signals"}

PATHS = sorted(PACKAGE.rglob("*.py"))
OURS = [path for path in PATHS if path.relative_to(PACKAGE).parts[:2] != ("db", "migrations")]

#: Imports every module and says which listed names are not there.
_LOOK = """
import importlib, json, sys
missing = []
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    missing += [f"{name}.{each}" for each in getattr(module, "__all__", ()) if not hasattr(module, each)]
print(json.dumps(missing))
"""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), path.name)


def is_alias(path: Path) -> bool:
    return path.relative_to(PACKAGE).as_posix().startswith(ALIASES)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def listed(module: ast.Module) -> list[str] | None:
    """`__all__`, or None where there is none."""
    for node in module.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            names: list[str] = ast.literal_eval(node.value)
            return names
    return None


def test_public_names_are_listed() -> None:
    """A module that is a docstring alone has none; aliases re-export what is documented."""
    without = [
        module_name(path)
        for path in OURS
        if len(tree(path).body) > 1 and not is_alias(path) and listed(tree(path)) is None
    ]
    assert without == []


def test_no_private_name_is_listed() -> None:
    names = [f"{module_name(path)}.{name}" for path in OURS for name in listed(tree(path)) or ()]
    private = [name for name in names if name.rpartition(".")[2].startswith("_") and not name.endswith("__")]
    assert names
    assert private == []


def test_a_module_says_what_it_owns() -> None:
    assert [module_name(path) for path in OURS if not ast.get_docstring(tree(path))] == []


def test_every_listed_name_exists(tmp_path: Path) -> None:
    """Every module can be imported, without a server, in a process of its own, and has what it lists."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DREAM_")}
    environment["DREAM_DATABASE_URL"] = f"sqlite:///{tmp_path}/dream.db"
    names = [module_name(path) for path in OURS]
    command = [sys.executable, "-W", "error", "-c", _LOOK, *names]
    outcome = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads(outcome.stdout) == []


def test_no_module_is_a_drawer() -> None:
    """Only those are called so that callers import under that name."""
    drawers = {module_name(path) for path in PATHS if DRAWERS & set(path.relative_to(PACKAGE).with_suffix("").parts)}
    documented = {"dream.websocket.utils", "dream.websocket.utils.notifications"}
    celerys = {"", ".dispatch", ".log", ".serialization", ".time"}
    assert drawers <= documented | {f"dream.compat.utils{each}" for each in celerys}


def test_the_package_holds_packages() -> None:
    loose = {path.stem for path in PACKAGE.glob("*.py") if path.name != "__init__.py"}
    assert len(loose) <= MOST_LOOSE_MODULES, sorted(loose)


def test_no_name_of_a_django_app_is_taken() -> None:
    assert {path.stem for path in PACKAGE.iterdir()} & OF_A_DJANGO_APP == set()


def test_aliases_hold_no_logic() -> None:
    logic = [
        f"{module_name(path)}.{node.name}"
        for path in OURS
        if is_alias(path)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    assert logic == []


def test_a_file_is_small() -> None:
    lines = {module_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in OURS}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_a_function_is_small() -> None:
    lines = {
        f"{module_name(path)}.{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in OURS
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: count for name, count in lines.items() if count > MOST_LINES_OF_A_FUNCTION} == {}
