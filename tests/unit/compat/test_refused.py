"""Celery features that dream lacks: each access raises an error with a replacement."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from dream.compat import AsyncResult, Celery, Task, exceptions, refused
from dream.compat.exceptions import Unsupported

TABLE = (Path(__file__).resolve().parents[3] / "docs" / "celery.md").read_text()
app = Celery("shop", set_as_current=False)
task = app.task(name="shop.task")(print)


@pytest.mark.parametrize("name", refused.MODULES)
def test_a_module_that_is_not_there_says_what_to_use(name: str) -> None:
    """As an ImportError, which callers may expect; what is in it is not there, either."""
    for module in (name, f"{name}.deeper"):
        with pytest.raises(ImportError, match=f"celery.{name} is not there: .") as caught:
            import_module(f"dream.compat.{module}")
        assert isinstance(caught.value, Unsupported)


def test_what_nobody_has_is_as_ever() -> None:
    with pytest.raises(ModuleNotFoundError):
        import_module("dream.compat.no_such_module")
    with pytest.raises(ImportError, match="cannot import name 'NoSuchName'"):
        from dream.compat.result import NoSuchName  # type: ignore[attr-defined]  # noqa: F401
    for each in (app, task, AsyncResult("t")):
        assert not hasattr(each, "no_such_attribute")


@pytest.mark.parametrize("name", refused.BACKENDS)
def test_a_name_of_a_module_says_what_to_use(name: str) -> None:
    told = f"celery.backends.base.{name} is not there: {refused.BACKENDS[name]}"
    with pytest.raises(ImportError, match=re.escape(told)):
        exec(f"from dream.compat.backends.base import {name}")  # noqa: S102 (the statement of callers)


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        *((app, name) for name in refused.APP),
        *((task, name) for name in refused.TASK),
        *((AsyncResult("t"), name) for name in refused.RESULT),
        *((app.control.inspect(), name) for name in refused.INSPECT),
    ],
)
def test_an_attribute_says_what_to_use(thing: object, name: str) -> None:
    assert not hasattr(thing, name)
    with pytest.raises(Unsupported, match=f"{name} is not there: ."):
        getattr(thing, name)


def test_the_table_names_all_of_it() -> None:
    tables = {
        name: table for name, table in vars(refused).items() if name in refused.__all__ and isinstance(table, dict)
    }
    assert len(tables) >= 13
    assert [f"{table}.{name}" for table, names in tables.items() for name in names if f"`{name}`" not in TABLE] == []


def test_a_worker_is_not_ended_from_a_task() -> None:
    with pytest.raises(Unsupported, match="service manager"):
        raise exceptions.WorkerShutdown(0)


@pytest.mark.parametrize("option", ["acks_on_failure", "acks_on_failure_or_timeout", "acks_on_timeout"])
def test_a_message_is_acknowledged_after_its_run(option: str) -> None:
    with pytest.raises(Unsupported, match=option):
        app.task(name=f"shop.{option}", **{option: False})(print)


def test_a_hook_that_is_not_called_is_refused() -> None:
    class Named(Task):
        def shadow_name(self, *_: object) -> str:
            return "other"

    with pytest.raises(Unsupported, match="shadow_name"):
        app.task(name="shop.named", base=Named)(print)
