"""Imports of workers and schedulers for an app, and calls after its configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from dream.compat import Celery
from dream.compat.exceptions import ImproperlyConfigured


def test_a_worker_imports_the_tasks_that_an_app_has_told_it(shop: Path) -> None:
    (shop / "orders").mkdir()
    for module, text in {
        "tasks.py": "LOADED = 1",
        "orders/__init__.py": "",
        "orders/jobs.py": "LOADED = 1",
        "apps.py": "class ShopConfig: pass",
        "extra.py": "",
        "named.py": "",
    }.items():
        (shop / module).write_text(text)
    app = Celery("shop", include=["shop.extra"])
    app.conf.imports = ("shop.named",)
    app.autodiscover_tasks(["shop.apps.ShopConfig", "shop.orders"])
    app.autodiscover_tasks(lambda: ["shop.orders"], related_name="jobs")
    assert not sys.modules.keys() & {"shop.tasks", "shop.orders.jobs", "shop.extra", "shop.named"}
    app.finalize()
    assert sys.modules.keys() >= {"shop.tasks", "shop.orders.jobs", "shop.extra", "shop.named"}


def test_an_error_in_a_tasks_module_is_told(shop: Path) -> None:
    (shop / "tasks.py").write_text("import not_installed_at_all")
    with pytest.raises(ModuleNotFoundError, match="not_installed_at_all"):
        Celery("shop").autodiscover_tasks(["shop"], force=True)


def test_djangos_apps_are_asked_for_only_where_there_is_django(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "django.apps", None)  # as where it is not installed
    with pytest.raises(ImproperlyConfigured, match="without Django name packages"):
        Celery("shop").autodiscover_tasks(force=True)


def test_who_waits_for_the_configuration_is_told_once_and_late_comers_at_once() -> None:
    app, told = Celery("shop"), []
    app.on_after_configure.connect(lambda sender, source, **_: told.append((sender, source)))
    app.finalize()
    app.finalize()

    @app.on_after_finalize.connect()
    def late(sender: Celery, **_: Any) -> None:
        told.append((sender, "late"))

    assert told == [(app, app.conf), (app, "late")]
