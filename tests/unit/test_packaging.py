"""The distribution contains every file, and the same files make the same bytes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from trove_classifiers import classifiers

ROOT = Path(__file__).resolve().parents[2]
#: Tables, scripts for Redis and the page, read from where the wheel is unpacked.
_TRY = """
import sys
from pathlib import Path
import dream
from dream.db import migrate
from dream.gateway import app
from dream.work.broker.redis import RedisBroker

home = Path(dream.__file__).parent
assert home == Path(sys.argv[1], "dream"), home
migrate.upgrade("sqlite:///tried.db")
assert migrate.current("sqlite:///tried.db") == migrate.head()
RedisBroker(url="redis://127.0.0.1:1/0")
"""


def build(source: Path, into: Path, *kinds: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", *kinds, "--outdir", str(into), str(source)],
        check=True,
        capture_output=True,
        timeout=100,
    )


def test_a_source_distribution_has_no_passwords_of_containers(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    assert any(name.endswith("deploy/docker/make-secrets.sh") for name in names)
    assert [name for name in names if "/secrets" in name] == []


def files(folder: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)) for path in found}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and a source distribution, each built from a copy of this tree without the network."""
    folder = tmp_path_factory.mktemp("built")
    copy_of_tree(folder / "source")
    for name in ("secrets", "secrets.new"):
        secrets = folder / "source/deploy/docker" / name
        secrets.mkdir()
        (secrets / "dream_jwt_secret").write_text("a password")
    build(folder / "source", folder / "dist", "--wheel", "--sdist")
    return folder / "dist"


def copy_of_tree(into: Path) -> None:
    """Copy the files of the tree, with other times and in another order."""
    for name in ("benchmarks", "deploy", "docs", "dream", "requirements", "tests"):
        shutil.copytree(
            ROOT / name, into / name, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copyfile
        )
    for path in ROOT.iterdir():
        if path.is_file() and path.suffix in {"", ".md", ".toml", ".yml", ".txt"}:
            shutil.copyfile(path, into / path.name)


@pytest.fixture(scope="module")
def unpacked(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as an installer unpacks it."""
    folder = tmp_path_factory.mktemp("unpacked")
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)  # noqa: S202 (our own wheel)
    return folder


def test_the_wheel_holds_every_file_of_the_package(unpacked: Path) -> None:
    held = files(unpacked / "dream")
    assert files(ROOT / "dream") - held == set()
    kinds = {name.rpartition(".")[2] for name in held}
    assert {"py", "lua", "html", "js", "css", "mako", "typed"} <= kinds
    assert {path.name.partition("-")[0] for path in unpacked.iterdir()} == {"dream", "dream_pictures"}


def test_the_same_files_make_the_same_bytes(built: Path, tmp_path: Path) -> None:
    """Built again from the source distribution, whose files have other times."""
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    for path in source.rglob("*"):
        os.utime(path, (0, 0))

    build(source, tmp_path / "again", "--wheel", "--sdist")

    assert files(source) >= {"Makefile", "tests/conftest.py", "deploy/dream.env", "requirements/dev.txt"}
    assert {path.name: path.read_bytes() for path in built.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()
    }


@pytest.mark.slow
def test_the_wheel_works_where_it_is_unpacked(unpacked: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DREAM_")}
    environment["PYTHONPATH"] = str(unpacked)
    for command in (["-c", _TRY, str(unpacked)], ["-m", "dream", "--help"]):
        outcome = subprocess.run(
            [sys.executable, "-P", *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert outcome.returncode == 0, outcome.stderr


def test_the_metadata_are_complete_and_valid(built: Path) -> None:
    """There is no address: the project has no public home."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        metadata = Metadata.from_email(archive.read(name))
    assert (metadata.license_expression, str(metadata.requires_python)) == ("MIT", ">=3.11")
    assert (metadata.author, metadata.description_content_type) == ("The maintainers of dream", "text/markdown")
    assert (metadata.description or "").startswith("# dream\n")
    assert metadata.summary
    assert metadata.keywords
    named = set(metadata.classifiers or [])
    assert named <= classifiers
    assert {each for each in named if "Python :: 3." in each} == {
        f"Programming Language :: Python :: 3.{minor}" for minor in range(11, 15)
    }


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
