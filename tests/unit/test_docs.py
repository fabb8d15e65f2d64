"""The documentation says what the code does: every setting, every command, and no link to nowhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from dream import errors
from dream.arguments import RefusalCode
from dream.cli import app
from dream.db.models import Base
from dream.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
#: `| `DREAM_X` | default | meaning |`
_ROW = re.compile(r"^\| `(DREAM_[A-Z0-9_]+)` \| (.+?) \| (.+?) \|$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)

ROWS = _ROW.findall((ROOT / "docs/settings.md").read_text(encoding="utf-8"))


def shown(default: Any) -> str:
    """A default as the table shows it."""
    if default is None:
        return "unset"
    if default in ("", ()):
        return "empty"
    return f"`{','.join(default) if isinstance(default, tuple) else default}`"


def without_code(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    headings = (heading.lower() for heading in _HEADING.findall(without_code(page)))
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in headings}


def commands() -> list[str]:
    """Every command of `dream`, groups with their own."""

    def walk(command: Any, name: str) -> list[str]:
        group: dict[str, Any] | None = getattr(command, "commands", None)
        if group is None:
            return [name]
        return [found for each, sub in group.items() for found in walk(sub, f"{name} {each}")]

    return walk(get_command(app), "dream")


# --- help


def options() -> list[tuple[str, Any]]:
    """Every option and argument of every command, but switches."""

    def walk(command: Any, name: str) -> list[tuple[str, Any]]:
        group: dict[str, Any] | None = getattr(command, "commands", None)
        own = [(f"{name} {each.name}", each) for each in command.params if not getattr(each, "is_flag", False)]
        return own + [found for each, sub in (group or {}).items() for found in walk(sub, f"{name} {each}")]

    return walk(get_command(app), "dream")


def test_help_says_what_each_option_takes_in_words_of_its_own() -> None:
    """Without one, Typer prints the type: `<int range>`."""
    assert len(options()) > 20
    assert [name for name, option in options() if not option.metavar] == []
    assert [name for name, option in options() if not option.help] == []


@pytest.mark.parametrize("name", ["", *(name.removeprefix("dream ") for name in commands())])
def test_h_is_help(name: str) -> None:
    shown = CliRunner().invoke(app, [*name.split(), "-h"])
    assert shown.exit_code == 0
    assert shown.stdout.startswith("Usage:")
    assert re.findall(r"<\w+(?:[ \[][^>]*)?>", shown.stdout.replace("user<N>", "")) == []


# --- settings


def test_every_setting_is_documented_once() -> None:
    assert sorted(name for name, *_ in ROWS) == sorted(f"DREAM_{name.upper()}" for name in Settings.model_fields)


def test_defaults_are_those_of_the_code() -> None:
    documented = {name: default for name, default, _ in ROWS}
    assert documented == {
        f"DREAM_{name.upper()}": shown(field.default) for name, field in Settings.model_fields.items()
    }


def test_a_setting_has_a_meaning_in_sentences() -> None:
    assert [name for name, _, meaning in ROWS if not meaning.endswith(".")] == []


def test_the_filter_for_alembic_leaves_out_dreams_tables_and_no_table_of_the_callers() -> None:
    """`dreams` is the caller's where he sets `DREAM_OWNERS_SQL`: without its name the filter lets it through."""
    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(def include_name.*?)^```", page, re.MULTILINE | re.DOTALL)
    filters: list[dict[str, Any]] = [{}, {}]
    for names, text in zip(filters, (code, code.replace('{"dreams"}', "{}")), strict=True):
        exec(text, names)  # noqa: S102 (what the page tells its readers to paste)
    unset, owners_sql = (names["include_name"] for names in filters)
    tables = [*Base.metadata.tables, "dream_alembic_version"]
    assert [name for name in tables if unset(name, "table", {})] == []
    assert [name for name in tables if owners_sql(name, "table", {})] == ["dreams"]
    assert unset("albums", "table", {})
    assert unset("dream_id", "column", {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_setting_that_is_not_there(page: Path) -> None:
    known = {f"DREAM_{name.upper()}" for name in Settings.model_fields} | {"DREAM_SECRETS_DIR"}
    named = set(re.findall(r"\bDREAM_[A-Z0-9_]*[A-Z0-9]\b", page.read_text(encoding="utf-8")))
    assert {name for name in named - known if not name.startswith(("DREAM_TEST_", "DREAM_S3_…"))} == set()


def test_every_setting_is_used() -> None:
    """A setting that nothing reads would be a promise that nothing keeps."""
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "dream").rglob("*.py"))
    own = (ROOT / "dream/settings.py").read_text(encoding="utf-8")
    read = set(re.findall(r"(?:settings|load\(\))\.(\w+)", code)) | set(re.findall(r"self\.(\w+)", own))
    assert [name for name in Settings.model_fields if name not in read] == []


# --- commands


def test_there_are_commands_to_check() -> None:
    assert "dream worker" in commands()


@pytest.mark.parametrize("command", commands())
def test_every_command_is_documented(command: str) -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert re.search(rf"\b{command}\b(?!-)", pages), f"no page tells of `{command}`"


# --- links


LINKS = [
    (page, target)
    for page in sorted(
        [*ROOT.glob("*.md"), *DOCS, *(ROOT / "deploy").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
    )
    for target in _LINK.findall(without_code(page))
    if not re.match(r"[a-z]+:", target)
]


def test_there_are_links_to_check() -> None:
    assert LINKS


@pytest.mark.parametrize(("page", "target"), LINKS, ids=lambda each: each.name if isinstance(each, Path) else each)
def test_a_link_leads_somewhere(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    assert file.exists(), f"{page.name} links to {target}, which is not there"
    if anchor and file.suffix == ".md":
        assert anchor in anchors(file), f"{page.name} links to {target}: there is no such heading"


# --- refusals


def test_every_code_of_a_refused_file_is_documented() -> None:
    text = (ROOT / "docs/contract.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(file_[a-z_]+)` \|", text, re.MULTILINE) == sorted(RefusalCode)


# --- errors


def test_every_error_is_on_the_page_of_errors_once() -> None:
    """In a row of a table that says when and what to do; those of workers alone are named below."""
    text = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Za-z]+)` \| \S.+ \| \S.+ \|$", text, re.MULTILINE)
    inside = {name for name in errors.__all__ if issubclass(getattr(errors, name), errors.HandedBack)}
    assert sorted(rows) == sorted(set(errors.__all__) - inside - {"DreamError"})
    for name in (*inside, "DreamError"):
        assert f"`{name}`" in text


def test_the_page_of_errors_names_no_error_that_is_not_there() -> None:
    named = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= set(errors.__all__)
