"""The site's generated pages: `make docs` writes them from the code and from the files of the root.

MkDocs loads this module as a hook (`mkdocs.yml`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic_core import PydanticUndefined
from typer.main import get_command

from dream import errors
from dream.cli import app
from dream.gateway.app import document_text
from dream.messages.events import ImageUpdate, UpdateStatus
from dream.messages.pictures import DeletionError, ImageError, ImageInfo, ImageRef, ImageStep
from dream.observe.metrics import CATALOGUE
from dream.settings import Settings

__all__ = ["deploy_files", "llms_txt", "on_files", "on_page_markdown", "on_post_build", "pages"]

ROOT = Path(__file__).resolve().parents[1]
#: Files of the root, and their names on the site.
_OF_ROOT = {
    "README.md": "index.md",
    "README.zh.md": "README.zh.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "LICENSE": "licence.md",
}
_LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")
#: Folders that `deploy/docker/make-secrets.sh` creates.
_PRIVATE = {"secrets", "secrets.new"}
_LANGUAGES = {".yml": "yaml", ".yaml": "yaml", ".json": "json", ".service": "ini", ".conf": "nginx", ".env": "sh"}


# --- hooks of MkDocs


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_about: Any) -> str:
    """Point links to files of the root at their pages."""
    return _LINK.sub(lambda found: _target(found[1], page.file.src_uri), markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Write `llms.txt`, the list of pages for language models, and the description of the HTTP API."""
    (Path(config.site_dir) / "llms.txt").write_text(llms_txt(config), "utf-8")
    (Path(config.site_dir) / "openapi.json").write_bytes(document_text())


def _target(link: str, source: str) -> str:
    up = "../" * source.count("/")
    of_root = source in _OF_ROOT.values()
    name = link.removeprefix("docs/") if of_root else link
    plain = name.removeprefix("../")
    if (of_root or name != plain) and plain.rstrip("/") in _OF_ROOT:
        return up + _OF_ROOT[plain]
    if plain.startswith("deploy/") or plain == "deploy":
        return f"{up}deploy-files.md"
    return name


# --- pages


def pages() -> dict[str, str]:
    """The Markdown of each generated page, by its path."""
    return {
        **{name: (ROOT / source).read_text("utf-8") for source, name in _OF_ROOT.items() if source != "LICENSE"},
        "licence.md": f"# Licence\n\nMIT.\n\n```text\n{(ROOT / 'LICENSE').read_text('utf-8')}```\n",
        "deploy-files.md": "\n".join(deploy_files(ROOT / "deploy")),
        "reference/commands.md": "\n".join(_commands()),
        "reference/settings.md": "\n".join(_settings()),
        "reference/events.md": "\n".join(_events()),
        "reference/metrics.md": "\n".join(_metrics()),
        "reference/codes.md": "\n".join(_codes()),
        "reference/python.md": "\n".join(_python()),
    }


def llms_txt(config: MkDocsConfig) -> str:
    """An index of the site in Markdown: each page's title, file and first sentence."""
    lines = ["# dream", "", f"> {config.site_description}: an upload returns at once; workers make the pictures.", ""]
    generated = pages()
    for section in config.nav or []:
        for title, entries in section.items():
            lines += [f"## {title}", ""]
            for entry in entries:
                name = entry if isinstance(entry, str) else next(iter(entry.values()))
                text = generated.get(name) or (Path(config.docs_dir) / name).read_text("utf-8")
                heading = re.search(r"^# (.+)$", text, re.MULTILINE)
                lines.append(
                    f"- [{heading[1] if heading else name}]({name.removesuffix('.md')}.html): {_summary(text)}"
                )
            lines.append("")
    return "\n".join(lines)


def _summary(text: str) -> str:
    """The first sentence of a page."""
    paragraphs = (each.strip() for each in text.split("\n\n"))
    first = next((each for each in paragraphs if each and not each.startswith(("#", "!", "|", "```", "[", "<"))), "")
    plain = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", " ".join(first.split()))
    return re.split(r"(?<=[.。])(?:\s|(?<=。))", plain, maxsplit=1)[0]


def deploy_files(folder: Path) -> Iterator[str]:
    """The page of the files for deployment, without the passwords of a site that runs from this checkout."""
    yield "# Files for deployment\n\nThe folder `deploy/` has these files. [Deployment](deploy.md) explains them.\n"
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".json" and not _PRIVATE & set(path.relative_to(folder).parts):
            text = path.read_text("utf-8").rstrip().replace("```", "` ` `")
            yield f"## {path.relative_to(folder.parent)}\n\n```{_LANGUAGES.get(path.suffix, 'text')}\n{text}\n```\n"


# --- reference


def _commands() -> Iterator[str]:
    yield "# Commands\n\n`dream` has these commands. `-h` after each prints the same.\n"
    yield from _command(get_command(app), "dream")


def _command(command: Any, name: str) -> Iterator[str]:
    context = typer.Context(command, info_name=name)
    if name != "dream":
        yield f"## {name}\n\n```text\n{_plain(command.get_help(context))}\n```\n"
    for each, sub in sorted(getattr(command, "commands", {}).items()):
        if not sub.hidden:
            yield from _command(sub, f"{name} {each}")


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text).strip()


def _settings() -> Iterator[str]:
    yield "# Settings, by the code\n\n`dream/settings/fields.py` defines these settings."
    yield "[Settings](../settings.md) explains them.\n\n| variable | default | meaning |\n| --- | --- | --- |"
    for name, field in Settings.model_fields.items():
        yield f"| `DREAM_{name.upper()}` | {_default(field.default)} | {_cell(field.description or '')} |"


def _default(value: Any) -> str:
    if value is None or value is PydanticUndefined:
        return "unset"
    if value in ("", ()):
        return "empty"
    return f"`{','.join(map(str, value)) if isinstance(value, tuple) else value}`"


def _events() -> Iterator[str]:
    yield "# Events\n\nThe WebSocket sends these objects. The [contract](../contract.md) has the protocol.\n"
    for kind in (ImageUpdate, ImageRef, ImageStep, ImageError, DeletionError, ImageInfo):
        yield f"## {kind.__name__}\n\n{inspect.cleandoc(kind.__doc__ or '').partition(chr(10))[0]}\n"
        yield "| field | type |\n| --- | --- |"
        for name, hint in get_type_hints(kind, include_extras=False).items():
            yield f"| `{name}` | `{_cell(_type(hint))}` |"
        yield ""
    yield "## Statuses\n\n" + ", ".join(f"`{each}`" for each in UpdateStatus) + "\n"


def _type(hint: Any) -> str:
    return (
        hint.__name__
        if isinstance(hint, type) and not hasattr(hint, "__args__")
        else re.sub(r"\b[a-z_.]+\.", "", str(hint))
    )


def _codes() -> Iterator[str]:
    yield "# Error codes\n\nPrograms read the code, people the sentence. [Errors](../errors.md) has the remedies.\n"
    yield "| code | sentence |\n| --- | --- |"
    said: dict[str, list[str]] = {}
    for reason in errors.Reason:
        said.setdefault(reason.code, []).append(reason.sentence)
    for name in errors.__all__:
        kind = getattr(errors, name)
        if not issubclass(kind, Enum):
            said.setdefault(kind.code, []).append(inspect.cleandoc(kind.__doc__ or "").partition("\n")[0])
    for code in sorted(said):
        yield f"| `{code}` | {_cell('; '.join(said[code]))} |"


def _metrics() -> Iterator[str]:
    yield "# Metrics, by the code\n"
    yield "The page [Metrics](../metrics.md) explains how to switch them on, and the alerts.\n"
    yield "| metric | kind | labels | meaning |\n| --- | --- | --- | --- |"
    for each in CATALOGUE.values():
        labels = ", ".join(f"`{label}`" for label in each.labels)
        yield f"| `{each.name}` | {each.kind} | {labels} | {_cell(each.about)} |"


def _python() -> Iterator[str]:
    yield "# Python\n\nCallers use these modules. The [contract](../contract.md) lists the calls that never change.\n"
    yield "## dream.producer\n\nThe functions of this module are methods of the process's `Producer`.\n"
    for name in ("upload_images", "delete_images", "list_images", "set_owner"):
        yield f"::: dream.producer.accepting.Producer.{name}\n    options: {{show_root_full_path: false}}\n"
    yield "## dream.pictures\n\n::: dream.pictures.listing\n\n::: dream.pictures.picture\n"
    yield "## dream.media\n\n"
    for name in ("sign", "viewable"):
        yield f"::: dream.media.signatures.{name}\n    options: {{show_root_full_path: false}}\n"
    yield "## dream.celery\n\n::: dream.celery.tasks.image_tasks\n\n::: dream.celery.tasks.token_tasks\n"
    yield "## dream.websocket\n\n::: dream.websocket.utils\n"
    yield "## dream.errors\n\n::: dream.errors\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
