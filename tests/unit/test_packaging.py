"""What an installed dream is made of: whoever runs it from a checkout would not miss a file that no package holds."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_file_that_is_no_module_is_packaged() -> None:
    """The page, the scripts for Redis, the template of migrations: each is named by `package-data`."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"][
        "dream"
    ]
    package = ROOT / "dream"
    packaged = {path for pattern in patterns for path in package.glob(pattern)}
    others = {
        path
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts
    }
    assert others
    assert {str(path.relative_to(package)) for path in others - packaged} == set()


def test_every_folder_of_modules_is_a_package() -> None:
    """A folder without `__init__.py` is found in a checkout and left out of what is installed."""
    folders = {path.parent for path in (ROOT / "dream").rglob("*.py")}
    assert {str(folder) for folder in folders if not (folder / "__init__.py").exists()} == set()


def test_the_distribution_names_its_licence_and_not_somebody_elses_package() -> None:
    """On PyPI `dream` is another project: who installs it by our import name must not be told to."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert (project["name"], project["license"]) == ("dream-pictures", "MIT")
    assert (ROOT / "LICENSE").read_text("utf-8").startswith("MIT License\n")
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "dream").rglob("*.py")]
    wrong = re.compile(r"pip install (?:-U )?['\"]?dream(?![-\w/])")
    assert [str(page) for page in pages if wrong.search(page.read_text("utf-8"))] == []
