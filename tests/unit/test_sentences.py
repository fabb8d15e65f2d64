"""Docstrings open with their noun or verb, never with a relative clause (docs/glossary.md has the words)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATHS = sorted(path for folder in ("dream", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
RELATIVE = re.compile(
    r"(As what|Of what|How|However|What|Whatever|When|Where|Wherever|Whether|Which|Whichever|Who|Whoever|Whom|Whose)\b"
)


def opening(node: ast.AST) -> str:
    """The first line of a docstring; empty where there is none."""
    return (ast.get_docstring(node) or "").partition("\n")[0]  # type: ignore[arg-type]


def sentences(node: ast.AST) -> list[str]:
    """The sentences of a docstring, each with its rest of the line."""
    text = ast.get_docstring(node) or ""  # type: ignore[arg-type]
    return [found[1] for line in text.splitlines() for found in re.finditer(r"(?:^ *|[.:] )(?=([A-Z].*))", line)]


def test_no_sentence_of_a_docstring_opens_with_a_relative_clause() -> None:
    """`Whether` opens the docstring of a predicate."""
    found = [
        f"{path.relative_to(ROOT)}: {sentence}"
        for path in PATHS
        if not path.is_relative_to(ROOT / "tests")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for sentence in sentences(node)
        if RELATIVE.match(sentence) and not sentence.startswith(("When ", "Whether ", "However, "))
    ]
    assert found == []


def test_a_module_opens_with_its_noun_or_verb() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in PATHS
        if RELATIVE.match(opening(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert found == set()


def test_a_class_and_a_function_open_with_their_noun_or_verb() -> None:
    """`Whether` opens the docstring of a predicate."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in PATHS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and RELATIVE.match(opening(node))
        and not opening(node).startswith("Whether ")
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "is_found"),
    [("What a task is.", True), ("Who asks.", True), ("Tasks, and what they are.", False), ("Whole rows.", False)],
)
def test_a_relative_clause_is_found(line: str, is_found: bool) -> None:
    assert (RELATIVE.match(line) is not None) == is_found
