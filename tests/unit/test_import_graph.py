"""Modules import each other in no circle: not at import time, and beside a short list of exceptions not at all."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Imports inside functions that would close a circle at the top of their module, each with its reason. Imports inside
#: functions for lightness alone are no exception: they could stand at the top.
CLOSING = {
    (
        "dream.compat.commandline",
        "dream.compat.finding",
    ): "an app runs the command line, which finds apps by their class",
}
MOST_CLOSING = 5

Graph = dict[str, set[str]]


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_in(node: ast.AST, *, inside: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Each import below the node, and whether it stands in a function; without those for the type checker."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, inside
        else:
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports_in(child, inside=inside or is_function)


def graphs(root: Path) -> tuple[Graph, Graph]:
    """The modules that each module of `dream` imports at import time; and those that it imports inside functions."""
    paths = {module_name(path, root): path for path in (root / "dream").rglob("*.py")}
    at_top: Graph = {name: set() for name in paths}
    inside: Graph = {name: set() for name in paths}
    for name, path in paths.items():
        for node, is_inside in imports_in(ast.parse(path.read_text(encoding="utf-8"))):
            assert not getattr(node, "level", 0), f"{name} has a relative import"
            for imported in named_by(node) - {name}:
                found = imported if imported in paths else imported.rpartition(".")[0]
                if found in paths and found != name:
                    (inside if is_inside else at_top)[name].add(found)
    return at_top, inside


def named_by(node: ast.Import | ast.ImportFrom) -> set[str]:
    """Full names: of modules, or of names inside modules."""
    before = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    return {before + each.name for each in node.names}


@cache
def ours() -> tuple[Graph, Graph]:
    return graphs(ROOT)


def circle_in(graph: Graph) -> list[str]:
    """The modules of one circle, the first one twice; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def whole(without: set[tuple[str, str]]) -> Graph:
    at_top, inside = ours()
    return {name: {each for each in at_top[name] | inside[name] if (name, each) not in without} for name in at_top}


def test_no_circle_at_import_time() -> None:
    assert circle_in(ours()[0]) == []


def test_imports_inside_functions_close_no_circle_but_those_listed() -> None:
    assert circle_in(whole(set(CLOSING))) == []


def test_the_list_is_short_and_true() -> None:
    """Each entry is an import inside a function, and without the entry there is a circle."""
    assert len(CLOSING) <= MOST_CLOSING
    _, inside = ours()
    assert {pair for pair in CLOSING if pair[1] not in inside.get(pair[0], ())} == set()
    assert {pair for pair in CLOSING if not circle_in(whole(CLOSING.keys() - {pair}))} == set()


@pytest.mark.parametrize(
    ("first", "second", "circles"),
    [
        ("import dream.b", "from dream import a", (True, True)),
        ("from dream.b import name", "def late():\n    from dream.a import name", (False, True)),
        ("class It:\n    import dream.b", "try:\n    import dream.a\nexcept ImportError:\n    pass", (True, True)),
        ("import dream.b", "if TYPE_CHECKING:\n    import dream.a", (False, False)),
    ],
    ids=["at the top", "inside a function", "in other blocks", "for the type checker"],
)
def test_a_circle_is_found(tmp_path: Path, first: str, second: str, circles: tuple[bool, bool]) -> None:
    (tmp_path / "dream").mkdir()
    (tmp_path / "dream" / "__init__.py").touch()
    (tmp_path / "dream" / "a.py").write_text(first)
    (tmp_path / "dream" / "b.py").write_text(second)
    at_top, inside = graphs(tmp_path)
    both = {name: at_top[name] | inside[name] for name in at_top}
    assert (circle_in(at_top) != [], circle_in(both) != []) == circles
