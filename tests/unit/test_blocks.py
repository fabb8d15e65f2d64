"""Every code block of the pages is valid: its language, commands, options, settings and imports.

Other tests run the blocks of the README, of the tutorial and of the deployment page as a reader would.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from typer.main import get_command

from dream.cli import app
from dream.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^( *)```([^\s`]*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
#: Languages that no reader runs: pictures of text, files of other programs.
_SHOWN = {"", "text", "css", "django", "html", "ini", "js", "nginx", "promql", "sql"}


class Block(NamedTuple):
    page: Path
    language: str
    text: str

    def __repr__(self) -> str:
        return f"{self.page.name}: {self.text.strip().splitlines()[0][:50] if self.text.strip() else ''}"


def blocks(*languages: str) -> list[Block]:
    """The blocks of these languages; without any, all."""
    return [
        Block(page, found, re.sub(f"^{indent}", "", text, flags=re.MULTILINE))
        for page in PAGES
        for indent, found, text in _FENCE.findall(page.read_text("utf-8"))
        if not languages or found in languages
    ]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell's block; commands within quotes count, too."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        for part in re.split(
            r"&&|\|\||[|;&()`]", re.sub(r"(^|\s)#.*", "", line).replace("$(", ";").replace('"', " ; ")
        ):
            try:
                words = shlex.split(part)
            except ValueError:  # half of a quotation: its other half is another part
                words = part.replace("'", " ").split()
            while words and re.fullmatch(r"[A-Z_]+=.*|export|exec", words[0]):
                words.pop(0)
            if words:
                yield words


def test_there_are_blocks_to_check() -> None:
    assert len(blocks()) > 40


@pytest.mark.parametrize("block", blocks(), ids=repr)
def test_a_block_is_of_a_language_that_is_checked(block: Block) -> None:
    assert block.language in {*_SHOWN, "sh", "python", "json", "yaml"}


# --- the shell


@pytest.mark.parametrize("block", blocks("sh"), ids=repr)
def test_a_shell_understands_the_block(block: Block) -> None:
    text = re.sub(r"<[a-z ]+>", "PLACE", block.text)  # `<this repository>`: the reader's own
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, timeout=20)
    assert done.stderr == ""


DREAM = [
    (block, words[1:]) for block in blocks("sh") for words in commands(block.text) if Path(words[0]).name == "dream"
]


@pytest.mark.parametrize(("block", "words"), DREAM, ids=lambda each: " ".join(each) if isinstance(each, list) else "")
def test_dream_has_the_command_and_its_options(block: Block, words: list[str]) -> None:
    command: Any = get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"-h", "--help"}
    assert [word for word in words if re.match("--?[a-z]", word) and word.partition("=")[0] not in known] == []


def test_there_are_commands_of_dream_to_check() -> None:
    assert len(DREAM) > 25


@pytest.mark.parametrize("block", blocks("sh"), ids=repr)
def test_targets_modules_and_files_of_the_block_are_there(block: Block) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for program, *words in commands(block.text):
        if program == "make":
            for word in (each for each in words if "=" not in each):
                assert re.search(
                    rf"^[^\t#]*{re.escape(word)}\b.*:|/{re.escape(word.rpartition('/')[2])}:", makefile, re.M
                )
        if Path(program).name.startswith("python") and words[:1] == ["-m"]:
            assert importlib.util.find_spec(words[1]), words[1]
        if Path(program).name.startswith("python") and words and words[0].startswith("dream/"):
            assert (ROOT / words[0]).is_file()
        for word in words:
            if (path := re.fullmatch(r"(?:/opt/dream/)?((?:deploy|requirements)/[\w./-]+)", word)) is not None:
                assert (ROOT / path[1]).exists(), word


# --- settings

#: Blocks that set variables and run nothing.
SETTINGS = [
    block
    for block in blocks("sh")
    if re.fullmatch(r"(?:\s*(?:#.*|(?:export )?DREAM_\w+=.*)?\n)+", block.text) and "DREAM_" in block.text
]


@pytest.mark.parametrize("block", SETTINGS, ids=repr)
def test_the_settings_of_a_block_are_accepted_together(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("DREAM_")]:
        monkeypatch.delenv(name)
    script = f"set -a\n{block.text}\nenv -0 | grep -z ^DREAM_"
    shown = subprocess.run(["bash", "-c", script], capture_output=True, timeout=20, check=True).stdout.decode()
    variables = dict(each.partition("=")[::2] for each in shown.split("\0") if each)
    assert variables
    needs = {"DREAM_S3_STAGING_BUCKET": "staging"} if "{username}" in variables.get("DREAM_S3_BUCKET", "") else {}
    needs |= {"DREAM_REDIS_URL": "redis://r"} if variables.get("DREAM_BROKER_URL", "").startswith("amqp") else {}
    for name, value in (needs | variables).items():
        if name not in ("DREAM_SECRETS_DIR", "DREAM_STAGING_DIR"):  # folders of the reader's machine
            monkeypatch.setenv(name, value)
    Settings()


def test_there_are_settings_to_check() -> None:
    assert len(SETTINGS) > 4


# --- Python and data


@pytest.mark.parametrize("block", blocks("python"), ids=repr)
def test_python_compiles_and_its_imports_of_dream_are_there(block: Block) -> None:
    tree = compile(
        block.text, block.page.name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "dream":
            module = importlib.import_module(node.module)
            for each in node.names:
                if not hasattr(module, each.name):
                    importlib.import_module(f"{node.module}.{each.name}")


def test_data_can_be_read() -> None:
    for block in blocks("json"):
        json.loads(block.text)
    for block in blocks("yaml"):
        list(yaml.safe_load_all(block.text))
