"""Configuration of an app: its sources, their precedence, and refused settings."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery.app import defaults

from dream.compat import Celery, refused
from dream.compat.adoption import adopt, results_elsewhere
from dream.compat.conf import DEFAULTS, WARNED, Conf, is_without_effect, new_name
from dream.compat.exceptions import ImproperlyConfigured
from dream.errors import SettingsError
from dream.settings import load

# --- where settings come from


def test_a_setting_is_read_and_written_as_attribute_and_as_item_under_new_and_old_names() -> None:
    conf = Conf()
    conf.CELERY_ROUTES = {"a": "q"}
    conf["task_time_limit"] = 4
    conf.update(CELERYBEAT_SCHEDULE={"x": {}}, mine=1)
    assert (conf["task_routes"], conf.CELERYD_TASK_TIME_LIMIT, conf.beat_schedule) == ({"a": "q"}, 4, {"x": {}})
    assert (conf.mine, conf.result_expires, conf.get("nobody")) == (1, timedelta(days=1), None)
    with pytest.raises(AttributeError, match="nobody is not set"):
        conf.nobody  # noqa: B018


def test_what_is_added_to_a_default_stays_and_is_that_apps_alone() -> None:
    first, second = Conf(), Conf()
    first.beat_schedule["x"] = {}
    assert (first.beat_schedule, second.beat_schedule) == ({"x": {}}, {})


def test_a_change_goes_before_the_constructor_and_that_before_an_object() -> None:
    app = Celery("shop", task_time_limit=1, changes={"task_ignore_result": True})
    app.config_from_object({"task_time_limit": 2, "task_soft_time_limit": 2, "task_ignore_result": False})
    assert (app.conf.task_time_limit, app.conf.task_soft_time_limit, app.conf.task_ignore_result) == (1, 2, True)
    app.conf.task_time_limit = 3
    assert app.conf.task_time_limit == 3


@pytest.mark.parametrize("name", ["shop.celeryconfig", "shop.settings:config", "shop.settings.Config"])
def test_an_object_may_be_named(shop: Path, name: str) -> None:
    (shop / "celeryconfig.py").write_text(
        "from datetime import timezone\nimport re as include\nBROKER_URL = 'redis://h/1'\ntask_always_eager = True\n"
    )
    (shop / "settings.py").write_text(
        "class Config:\n    broker_url = 'redis://h/1'\n    CELERY_ALWAYS_EAGER = True\nconfig = Config()\n"
    )
    app = Celery("shop", config_source=name)
    assert (app.conf.broker_url, app.conf.task_always_eager) == ("redis://h/1", True)
    assert (app.conf.include, app.timezone) == ((), ZoneInfo("UTC")), "what a module imports is no setting"


def test_an_object_is_looked_into_when_the_first_setting_is_asked_for(shop: Path) -> None:
    app = Celery("shop")
    app.config_from_object("shop.later")
    (shop / "later.py").write_text("task_default_queue = 'later'")
    assert app.conf.task_default_queue == "later"


def test_with_a_namespace_only_its_names_count_as_in_django() -> None:
    class Settings:
        CELERY_TASK_ROUTES: Any = {"a": "q"}  # noqa: RUF012
        CELERY_TIMEZONE = "Europe/Paris"
        TIME_ZONE = "Asia/Tokyo"
        BROKER_URL = "redis://another/1"

        @property
        def DEPRECATED(self) -> None:  # noqa: N802
            raise AssertionError("only settings are looked at")

    app = Celery("shop", broker="redis://h/1")
    app.config_from_object(Settings(), namespace="CELERY")
    assert (app.conf.task_routes, app.conf.timezone, app.conf.broker_url) == ({"a": "q"}, "Europe/Paris", "redis://h/1")
    assert app.now().tzinfo == app.timezone == ZoneInfo("Europe/Paris")


def test_an_object_that_is_not_there_is_an_error_unless_silent(shop: Path) -> None:
    app = Celery("shop")
    with pytest.raises(ImproperlyConfigured, match=r"'nowhere\.settings': there is no such module"):
        app.config_from_object("nowhere.settings", force=True)
    with pytest.raises(ImproperlyConfigured, match="shop has no 'settings'"):
        app.config_from_object("shop:settings", force=True)
    app.config_from_object("nowhere.settings", silent=True)
    assert app.conf.task_routes is None


def test_the_settings_module_may_be_named_by_a_variable(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shop / "conf.py").write_text("task_default_queue = 'mail'")
    fresh = Celery("shop", set_as_current=False)
    with pytest.raises(ImproperlyConfigured, match="SHOP_CONF is not set"):
        fresh.config_from_envvar("SHOP_CONF")
    monkeypatch.setenv("SHOP_CONF", "shop.conf")
    fresh.config_from_envvar("SHOP_CONF")
    assert fresh.conf.task_default_queue == "mail"


def test_an_error_inside_the_configuration_is_told_as_it_is(shop: Path) -> None:
    (shop / "broken.py").write_text("import not_installed_at_all")
    with pytest.raises(ModuleNotFoundError, match="not_installed_at_all"):
        Celery("shop").config_from_object("shop.broken", force=True)


@pytest.mark.parametrize(
    ("key", "namespace", "name"),
    [
        ("CELERY_ALWAYS_EAGER", None, "task_always_eager"),
        ("CELERY_EAGER_PROPAGATES_EXCEPTIONS", None, "task_eager_propagates"),
        ("CELERY_TASK_RESULT_EXPIRES", None, "result_expires"),
        ("CELERY_DEFAULT_QUEUE", None, "task_default_queue"),
        ("CELERY_ENABLE_UTC", None, "enable_utc"),
        ("CELERYD_CONCURRENCY", None, "worker_concurrency"),
        ("CELERYD_TASK_SOFT_TIME_LIMIT", None, "task_soft_time_limit"),
        ("CELERYBEAT_SCHEDULER", None, "beat_scheduler"),
        ("BROKER_URL", None, "broker_url"),
        ("CELERY_BROKER_URL", "CELERY", "broker_url"),
        ("CELERY_TASK_ALWAYS_EAGER", "CELERY", "task_always_eager"),
        ("CELERY_ALWAYS_EAGER", "CELERY", "task_always_eager"),
        ("BROKER_URL", "CELERY", None),
        ("DATABASES", None, None),
        ("ROUTES", None, "task_routes"),
    ],
)
def test_a_key_names_a_setting(key: str, namespace: str | None, name: str | None) -> None:
    assert new_name(key, namespace) == name


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An environment without these, before and after."""
    for name in ("DREAM_BROKER_URL", "DREAM_REDIS_URL", "DREAM_RESULT_TTL_S", "DREAM_WORKER_THREADS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    load.cache_clear()
    yield
    load.cache_clear()


def test_an_apps_address_and_threads_hold_where_the_environment_says_nothing(unset: None) -> None:
    conf = Conf({"broker_url": "redis://shop/1", "CELERYD_CONCURRENCY": 7, "result_backend": "redis://shop/2"})
    settings = adopt(conf)
    assert (settings.broker_url, settings.redis_url, settings.worker_threads) == ("redis://shop/1", "redis://shop/2", 7)
    assert adopt(conf) == settings
    assert load() is settings, "and so for whoever asks later"


def test_an_apps_addresses_are_celerys(unset: None) -> None:
    """Its tutorial's own was refused."""
    settings = adopt(Conf({"broker_url": "pyamqp://guest@shop//", "result_backend": "socket:///run/r.sock"}))
    assert (settings.broker_url, settings.redis_url) == ("amqp://guest@shop//", "unix:///run/r.sock?db=0")


def test_what_is_no_brokers_address_is_refused(unset: None) -> None:
    with pytest.raises(SettingsError, match="memory://"):
        adopt(Conf({"broker_url": "memory://"}))
    assert adopt(Conf({"broker_url": "redis://shop/1"})).broker_url == "redis://shop/1", "and not for ever"


def test_the_environment_goes_before_an_app(unset: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_BROKER_URL", "redis://operators/1")
    settings = adopt(Conf({"broker_url": "redis://shop/1", "result_backend": "redis://shop/2"}))
    assert (settings.broker_url, settings.redis_url) == ("redis://operators/1", None)


@pytest.mark.parametrize(
    ("backend", "kept_in", "elsewhere"),
    [
        ("redis://:secret@shop/1", "redis://shop/2", "redis://***@shop/1"),
        ("redis://shop/1", "", "redis://shop/1"),
        ("redis://:secret@SHOP/1", "redis://:other@shop:6379/1", None),
        ("redis://localhost", "redis://127.0.0.1:6379/0", None),
        ("unix:///run/a.sock", "unix:///run/b.sock", "unix:///run/a.sock"),
        ("rpc://", "redis://shop/2", None),
        (None, "redis://shop/2", None),
    ],
)
def test_results_that_are_kept_where_the_app_does_not_look_are_told(
    unset: None, monkeypatch: pytest.MonkeyPatch, backend: str | None, kept_in: str, elsewhere: str | None
) -> None:
    """Celery's producers would wait in their `result_backend` for ever."""
    monkeypatch.setenv("DREAM_BROKER_URL", "redis://operators/1")
    monkeypatch.setenv("DREAM_REDIS_URL", kept_in)
    conf = Conf({"result_backend": backend} if backend else {})
    adopt(conf)
    assert results_elsewhere(conf) == elsewhere


@pytest.mark.parametrize(("expires", "ttl_s"), [(timedelta(hours=1), 3600), (60, 60), (None, 0)])
def test_an_app_says_how_long_results_are_kept(unset: None, expires: Any, ttl_s: int) -> None:
    conf = Conf()
    conf.result_expires = expires
    assert adopt(conf).result_ttl_s == ttl_s


def test_an_app_that_is_set_to_nothing_changes_nothing(unset: None) -> None:
    before = load()
    assert adopt(Conf()) == before


def test_every_setting_that_celery_has_is_known_here_under_its_old_name_too() -> None:
    """Only what is warned of is warned of: none of Celery's passes for misspelt."""
    suspected = {name for name in defaults.DEFAULTS if is_without_effect(name)}
    assert suspected == WARNED
    renamed = {defaults._TO_OLD_KEY[name]: name for name in DEFAULTS}
    assert {key: new_name(key) for key in renamed} == renamed


# --- what is refused


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("task_serializer", "pickle", "use json"),
        ("CELERY_RESULT_SERIALIZER", "pickle", "use json"),
        ("accept_content", ["pickle"], "only json is read"),
        ("result_backend", "django-db", r"use redis://"),
        ("CELERY_RESULT_BACKEND", "db+postgresql://h/d", r"use redis://"),
        ("task_acks_on_failure_or_timeout", False, "raise Reject in the task"),
        (
            "task_annotations",
            {"*": {"rate_limit": "10/s", "time_limit": 5}},
            "set the options where the tasks are defined",
        ),
        ("beat_scheduler", "django_celery_beat.schedulers:DatabaseScheduler", "beat_schedule"),
        ("broker_use_ssl", {"cert_reqs": 0}, "rediss://"),
        ("task_default_rate_limit", "1/s", r"dramatiq\.rate_limits"),
        ("task_protocol", 1, "protocol 1 is not read"),
    ],
)
def test_a_setting_that_would_not_hold_is_refused_by_name(name: str, value: Any, said: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=said):
        Celery("shop", **{name: value})
    with pytest.raises(ImproperlyConfigured, match=said):
        Celery("shop").conf[name] = value
    with pytest.raises(ImproperlyConfigured, match=said):
        Celery("shop").config_from_object({name: value}, force=True)


HARMLESS = {
    "worker_prefetch_multiplier": 1,
    "broker_transport_options": {"visibility_timeout": 3600},
    "worker_hijack_root_logger": False,
    "task_serializer": "json",
    "accept_content": ["json", "pickle"],
    "beat_scheduler": "celery.beat:PersistentScheduler",
    "result_backend": "rpc://",
    "redis_max_connections": 20,
    "task_create_missing_queues": True,
}


@pytest.mark.parametrize("namespace", [None, "CELERY"])
def test_settings_that_change_nothing_here_are_accepted_in_silence(namespace: str | None) -> None:
    named = {f"CELERY_{name.upper()}" if namespace else name: value for name, value in HARMLESS.items()}
    conf = Conf()
    conf.read_from(named, namespace)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        conf.resolve()
    assert {name: conf[name] for name in HARMLESS} == HARMLESS


def test_what_is_asked_for_in_vain_or_misspelt_is_one_warning() -> None:
    with pytest.warns(
        UserWarning, match=re.escape("here: task_rotes, worker_send_task_events (docs/celery.md)")
    ) as all_:
        Conf({"task_rotes": {"a": "b"}, "CELERY_SEND_EVENTS": True, "worker_max_tasks_per_child": None})
    assert len(all_) == 1


@pytest.mark.parametrize("name", ["shop.celeryconfig", "shop.celeryconfig:Config"])
def test_what_a_module_or_class_misspells_is_told_and_what_is_its_own_stays(shop: Path, name: str) -> None:
    """A name that is only used there, or named by a setting, is no setting."""
    lines = ["task_rotes = {'a': 'b'}", "currency = 'EUR'", "task_routes = task_route = lambda *_: None"]
    body = "\n".join(["import json as task_json", "from os import getenv as task_getenv", *lines])
    (shop / "celeryconfig.py").write_text(f"{body}\nclass Config:\n    " + "\n    ".join(lines) + "\n")
    conf = Conf()
    conf.read_from(name)
    with pytest.warns(UserWarning, match=re.escape("here: task_rotes (docs/celery.md)")):
        conf.resolve()
    assert conf.currency == "EUR"
    assert callable(conf.task_routes)


# --- what the page says


def test_the_page_names_every_setting_that_is_not_accepted_in_silence() -> None:
    page = (Path(__file__).parents[3] / "docs/celery.md").read_text(encoding="utf-8")
    expected = {*DEFAULTS, *refused.SETTINGS, *WARNED}
    assert {name for name in expected if f"`{name}`" not in page} == set()


@pytest.mark.parametrize("annotations", [{"shop.add": {"rate_limit": "10/s"}}, [{"*": {"rate_limit": "1/m"}}]])
def test_a_rate_limit_of_one_task_does_not_make_all_of_the_app_fail(annotations: Any) -> None:
    """It runs without; a warning says so, wherever the limit stands."""
    with pytest.warns(UserWarning, match="without effect here: task_annotations"):
        app = Celery("shop", task_annotations=annotations)
    with pytest.warns(UserWarning, match=r"shop\.add: rate_limit='10/s' has no effect here: use dramatiq\.rate_limits"):
        add = app.task(name="shop.add", rate_limit="10/s")(lambda x, y: x + y)
    assert app.task(name="shop.mul")(lambda x, y: x * y)(2, 3) == 6
    assert add.apply((1, 2)).get() == 3
