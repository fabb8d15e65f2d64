"""The documentation says what the code does: every setting, every command, and no link to nowhere."""

from __future__ import annotations

import ast
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from dream import errors
from dream.cli import app
from dream.db.models import Base
from dream.errors import Reason
from dream.gateway.refusals import Code
from dream.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*(ROOT / name for name in ("README.md", "README.zh.md", "CONTRIBUTING.md", "SECURITY.md")), *DOCS]
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


def parameters() -> list[tuple[str, Any]]:
    """Every option and argument of every command."""

    def walk(command: Any, name: str) -> list[tuple[str, Any]]:
        group: dict[str, Any] | None = getattr(command, "commands", None)
        own = [(f"{name} {each.name}", each) for each in command.params]
        return own + [found for each, sub in (group or {}).items() for found in walk(sub, f"{name} {each}")]

    return walk(get_command(app), "dream")


def options() -> list[tuple[str, Any]]:
    """Every option and argument of every command, but switches."""
    return [(name, option) for name, option in parameters() if not getattr(option, "is_flag", False)]


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
    assert re.findall(r"<\w+(?:[ \[][^>]*)?>", shown.stdout) == []


@pytest.mark.parametrize("name", ["", "dlq", "bridge"])
def test_a_list_of_commands_cuts_no_sentence(name: str) -> None:
    """A terminal of 80 columns shows the first sentence of a command's help, if it has room."""
    shown = CliRunner().invoke(app, [*name.split(), "-h"], terminal_width=80)
    _, found, listed = shown.stdout.partition("\nCommands:\n")
    assert found
    assert [line for line in listed.splitlines() if line.endswith("...")] == []


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
    own = (ROOT / "dream/settings/fields.py").read_text(encoding="utf-8")
    read = set(re.findall(r"(?:settings|load\(\))\.(\w+)", code)) | set(re.findall(r"self\.(\w+)", own))
    assert [name for name in Settings.model_fields if name not in read] == []


# --- commands


def test_there_are_commands_to_check() -> None:
    assert "dream worker" in commands()


@pytest.mark.parametrize("command", commands())
def test_every_command_is_documented(command: str) -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert re.search(rf"\b{command}\b(?!-)", pages), f"no page tells of `{command}`"


@pytest.mark.parametrize("command", commands())
def test_the_contract_or_the_page_of_the_bridge_names_every_option(command: str) -> None:
    page = "bridge.md" if " bridge" in command else "contract.md"
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    rows = "\n".join(line for line in lines if page == "bridge.md" or f"`{command}" in line)
    own = [option.opts for name, option in parameters() if name.rpartition(" ")[0] == command]
    assert [opts for opts in own if opts[0].startswith("-") and not any(each in rows for each in opts)] == []


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


# --- the translation

READMES = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md")]


def test_the_chinese_readme_has_the_same_blocks_of_code() -> None:
    english, chinese = (_FENCE.findall(text) + re.findall(r"^ {4}\S.*$", text, re.MULTILINE) for text in READMES)
    assert english == chinese
    assert len(english) > 5


def test_the_chinese_readme_has_the_same_commands_and_settings() -> None:
    """The names in the first column of both tables, and the defaults in the second of settings."""

    def rows(text: str) -> list[tuple[list[str], list[str]]]:
        found = re.findall(r"^\| (`(?:dream |DREAM_).+?) \| (.*?) \|", text, re.MULTILINE)
        names = [(re.findall(r"`([^`]+)`", first), re.findall(r"`([^`]+)`", second)) for first, second in found]
        return [(each, defaults if each[0].startswith("DREAM_") else []) for each, defaults in names]

    english, chinese = map(rows, READMES)
    assert english == chinese
    assert len(english) > 15


def test_the_chinese_readme_has_the_same_sections_and_links() -> None:
    targets = [
        {link.partition("#")[0] for link in _LINK.findall(text)} - {"README.md", "README.zh.md"} for text in READMES
    ]
    assert targets[0] == targets[1]
    levels = [re.findall(r"^(#+) ", _FENCE.sub("", text), re.MULTILINE) for text in READMES]
    assert levels[0] == levels[1]


# --- refusals and reasons

CODES = {each.code for each in Reason} | {getattr(errors, name).code for name in errors.__all__ if name != "Reason"}


def test_every_code_of_a_refused_file_is_documented() -> None:
    text = (ROOT / "docs/contract.md").read_text(encoding="utf-8")
    of_files = sorted(code for code in CODES if code.startswith("file_"))
    assert re.findall(r"^\| `(file_[a-z_]+)` \|", text, re.MULTILINE) == of_files


def test_the_page_of_errors_lists_every_code_once_and_no_other() -> None:
    """In a row of the section on codes that says what it means and what to do."""
    _, _, section = (ROOT / "docs/errors.md").read_text(encoding="utf-8").partition("\n## Codes\n")
    rows = re.findall(r"^\| `([a-z_]+)` \| \S.+ \| \S.+ \|$", section.partition("\n## ")[0], re.MULTILINE)
    assert sorted(rows) == sorted(CODES)


def test_the_page_of_errors_lists_every_code_of_http_with_its_status() -> None:
    """Each is listed in one of the two tables of codes."""
    _, _, section = (ROOT / "docs/errors.md").read_text(encoding="utf-8").partition("\n## Codes of HTTP answers\n")
    rows = re.findall(r"^\| `([a-z_]+)` \| (\d+) \| \S.+ \| \S.+ \|$", section.partition("\n## ")[0], re.MULTILINE)
    assert sorted(rows) == sorted((each.code, str(each.status)) for each in Code if each.code not in CODES)


def test_the_gateway_refuses_no_request_without_a_code() -> None:
    """A bare `HTTPException` has none."""
    sources = (ROOT / "dream/gateway").glob("*.py")
    bare = [path.name for path in sources if re.search(r"\bHTTPException\(\w", path.read_text(encoding="utf-8"))]
    assert bare == []


def test_the_page_of_pictures_names_codes_that_are_there() -> None:
    _, _, section = (ROOT / "docs/images.md").read_text(encoding="utf-8").partition("| limit | default |")
    named = set(re.findall(r"\| `([a-z_]+)`(?:, `([a-z_]+)`)? \|$", section, re.MULTILINE))
    assert named
    assert {code for codes in named for code in codes if code} <= CODES


# --- errors


def test_every_error_is_on_the_page_of_errors_once() -> None:
    """In a row of a table that says when and what to do; those of workers alone are named below."""
    text = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Za-z]+)` \| \S.+ \| \S.+ \|$", text, re.MULTILINE)
    inside = {name for name in errors.__all__ if issubclass(getattr(errors, name), errors.HandedBack)}
    assert sorted(rows) == sorted(set(errors.__all__) - inside - {"DreamError", "Reason"})
    for name in (*inside, "DreamError"):
        assert f"`{name}`" in text


def test_the_page_of_errors_names_no_error_that_is_not_there() -> None:
    named = re.findall(r"^\| `([A-Z]\w+)` \|", (ROOT / "docs/errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= set(errors.__all__)


# --- words

#: `| word | is | not |`
_WORD = re.compile(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
WORDS = [
    row
    for row in _WORD.findall((ROOT / "docs/glossary.md").read_text(encoding="utf-8"))
    if row[0] not in {"word", "---"}
]


def plain(word: str) -> str:
    """A word as a reader looks it up: without accents, in lower case."""
    return unicodedata.normalize("NFKD", word).encode("ascii", "ignore").decode().casefold()


def test_the_glossary_has_each_word_once_in_the_order_of_the_alphabet() -> None:
    words = [plain(word) for word, *_ in WORDS]
    assert len(words) > 60
    assert words == sorted(set(words))


def test_a_word_of_the_glossary_is_explained_in_one_or_two_plain_sentences() -> None:
    sentences = {word: re.findall(r"[.?!](?= |$)", meaning) for word, meaning, _ in WORDS}
    assert [word for word, ends in sentences.items() if len(ends) not in (1, 2)] == []
    relative = re.compile(r"(?:^|\. )(?:What|Who|Whoever|Which|Whose|How|Where)\b")
    assert [word for word, meaning, _ in WORDS if relative.search(meaning)] == []


def test_the_glossary_rejects_no_word_that_it_explains() -> None:
    words = {plain(word) for word, *_ in WORDS}
    rejected = [plain(each) for *_, others in WORDS for each in others.split(", ")]
    assert sorted(words & set(rejected)) == []
    assert sorted(word for word in rejected if rejected.count(word) > 1) == []


#: Words in senses for which the glossary has another word, and that word. A list of expressions finds most of them.
REPLACED = {
    r"\bleftovers?\b": "orphan",
    r"\bbur(?:y|ies|ied|ying)\b": "dead-letter",
    r"\b(?:hand|put|give|gave|given)(?:s|ed|ing|ting)?(?: (?!and|on|to)\w+){0,2} back\b": "requeue",
    r"\blet(?:s|ting)? go\b": "acknowledge, release",
    r"\b(?:un)?said\b": "reported, logged, announced",
    r"\bh(?:old|olds|eld|olding)\b": "has, keeps, contains, claims",
    r"\b(?:all|every|our|the|these|your) parts\b(?! of)|\b(?:a|each|every|this) part\b(?! of)": "process, service",
}
#: Sentences open with their subject, and no sentence is a riddle.
_RELATIVE = re.compile(
    r"(?:^|(?<=[.:!|] )|(?<=^- )|(?<=\*\* ))(?:What|Who|Whose|Which|How|Where|W\w+ever) [^.?]+[.|]", re.MULTILINE
)
#: Names that stand in tables or examples: the fault matrix, and a fault.
_NAMES = re.compile(r"^\| (?:before|after) \w+ \|.*$|`[^`\n]+`", re.MULTILINE)
PROSE = sorted({ROOT / "CHANGELOG.md", *PAGES} - {ROOT / "docs/glossary.md"})


def prose(text: str) -> str:
    """A text without blocks of code, quoted names and the fault matrix."""
    return _NAMES.sub("…", _FENCE.sub("", text))


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_a_page_uses_the_words_of_the_glossary(page: Path) -> None:
    text = prose(page.read_text(encoding="utf-8"))
    found = {match.group(): words for old, words in REPLACED.items() for match in re.finditer(old, text, re.IGNORECASE)}
    assert found == {}


@pytest.mark.parametrize("page", [*PROSE, ROOT / "docs/glossary.md"], ids=lambda page: page.name)
def test_no_sentence_of_a_page_opens_with_a_relative_clause(page: Path) -> None:
    assert _RELATIVE.findall(prose(page.read_text(encoding="utf-8"))) == []


# --- files


ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
#: `| question | `file`, `file` |`
_QUESTION = re.compile(r"^\| ([^|`]*(?:`[^`]+`[^|`]*)*\?) \| ((?:`[^`|]+`(?:, )?)+) \|$", re.MULTILINE)


def files_of(page: Path) -> set[str]:
    """The files and folders of this project that a page names."""
    text = page.read_text(encoding="utf-8")
    return set(re.findall(r"`((?:dream|tests|benchmarks|deploy)/[\w./-]*)`", text))


def test_the_table_of_changes_answers_at_least_twenty_questions_each_by_one_file_or_two() -> None:
    section = ARCHITECTURE.partition("## Where do I change X?")[2].partition("\n## ")[0]
    answers = {question: re.findall(r"`([^`]+)`", files) for question, files in _QUESTION.findall(section)}
    assert len(answers) == section.count("\n| ") - 2 * section.count("\n### ")
    assert len(answers) >= 20
    assert {question: files for question, files in answers.items() if len(files) > 2} == {}
    assert [file for files in answers.values() for file in files if not (ROOT / file).is_file()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if files_of(page)], ids=lambda page: page.name)
def test_a_page_names_no_file_that_is_not_there(page: Path) -> None:
    assert sorted(file for file in files_of(page) if not (ROOT / file).exists()) == []


def test_the_picture_of_the_layers_names_every_package() -> None:
    picture = ARCHITECTURE.partition("## Layers")[2].split("```")[1]
    tops = {path.name.removesuffix(".py") for path in (ROOT / "dream").glob("*") if (path / "__init__.py").exists()}
    tops |= {path.stem for path in (ROOT / "dream").glob("*.py")} - {"__init__"}
    assert tops - set(re.findall(r"\w+", picture)) == set()


# --- words of the code


#: Modules may speak of formats and files: these words are wrong only of messages.
IN_CODE = {
    **{old: new for old, new in REPLACED.items() if "old" not in old and "part" not in old},
    r"\b(?:workers?|threads?|consumers?|it) (?:had |that )?(?:holds?|held)\b": "prefetch, requeue_orphans",
    r"(?:all|every|our|other) parts(?! of)|(?:of|by|to) the parts": "process, service",
}


def docstring_of(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def test_modules_use_the_words_of_the_glossary() -> None:
    old = re.compile("|".join(IN_CODE), re.IGNORECASE)
    found = {str(path.relative_to(ROOT)) for path in (ROOT / "dream").rglob("*.py") if old.search(docstring_of(path))}
    assert found == set()


def test_a_module_quotes_only_what_a_page_has() -> None:
    """`docs/architecture.md, "Rows"`: a heading, or the sentence that opens a paragraph."""
    quotes = {
        (page, " ".join(quoted.split()))
        for path in (ROOT / "dream").rglob("*.py")
        for page, quoted in re.findall(r'(docs/\w+\.md), "([^"]+)"\)', path.read_text(encoding="utf-8"))
    }
    assert quotes
    assert [quote for quote in quotes if quote[1] not in (ROOT / quote[0]).read_text(encoding="utf-8")] == []
