"""The app that `-A` means."""

from __future__ import annotations

from pathlib import Path

import pytest

from dream.compat.exceptions import ImproperlyConfigured
from dream.compat.finding import finalize, find_app

APP = "from dream.compat import Celery\n{name} = Celery('shop')\n"


@pytest.mark.parametrize(
    ("module", "name", "asked"),
    [
        ("celery.py", "app", "shop"),
        ("celery.py", "celery", "shop.celery"),
        ("__init__.py", "celery_app", "shop"),
        ("jobs.py", "mine", "shop.jobs"),
        ("jobs.py", "mine", "shop.jobs:mine"),
        ("jobs.py", "mine", "shop.jobs.mine"),
    ],
)
def test_an_app_is_found_where_celery_finds_it(shop: Path, module: str, name: str, asked: str) -> None:
    (shop / module).write_text(APP.format(name=name))
    assert find_app(asked).main == "shop"


@pytest.mark.parametrize("asked", ["shop", "shop:app", "shop.jobs:other", "nowhere", "nowhere.celery:app"])
def test_where_there_is_none_the_error_names_what_was_asked_for(shop: Path, asked: str) -> None:
    (shop / "jobs.py").write_text("app = 'no app'")
    with pytest.raises(ImproperlyConfigured, match=asked.split(":")[0].split(".")[0]):
        find_app(asked)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("import not_installed_at_all", r"ModuleNotFoundError in .*shop/celery.py, line 1: .*not_installed_at_all"),
        ("from dream.compat import made_up", r"in .*shop/celery.py, line 1: .*made_up"),
        ("app = (", r"SyntaxError in .*shop/celery.py, line 1: .*never closed"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_its_place(shop: Path, written: str, told: str) -> None:
    (shop / "celery.py").write_text(written)
    with pytest.raises(ImproperlyConfigured, match=f"^shop cannot be loaded: .*{told}"):
        find_app("shop")


def test_a_module_of_tasks_that_cannot_be_imported_is_told_with_its_place(shop: Path) -> None:
    (shop / "celery.py").write_text(f"{APP.format(name='app')}app.autodiscover_tasks(['shop'])")
    (shop / "tasks.py").write_text("\nimport not_installed_at_all")
    with pytest.raises(ImproperlyConfigured, match=r"ModuleNotFoundError in .*shop/tasks.py, line 2: .*not_installed"):
        finalize(find_app("shop"))


def test_a_module_that_a_setting_names_and_is_not_there_is_told_by_its_name(shop: Path) -> None:
    (shop / "celery.py").write_text(f"{APP.format(name='app')}app.conf.include = ['shop.nothing']")
    with pytest.raises(ImproperlyConfigured, match=r"^shop cannot be loaded: ModuleNotFoundError: .*'shop.nothing'"):
        finalize(find_app("shop"))


def test_what_else_an_apps_module_raises_goes_through(shop: Path) -> None:
    (shop / "celery.py").write_text("{}['missing']")
    with pytest.raises(KeyError, match="missing"):
        find_app("shop")


def test_the_folder_that_a_process_starts_in_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here_only.py").write_text(APP.format(name="app"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in __import__("sys").path if path])
    assert find_app("here_only").main == "shop"
