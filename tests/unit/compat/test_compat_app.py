"""The app: a registry of tasks, the documented ones in it, and tasks that others define."""

from __future__ import annotations

from typing import Any

import pytest

import dream
from dream.celery import celery_app
from dream.celery.app import app
from dream.celery.tasks import image_tasks, token_tasks
from dream.compat import Celery, Task
from dream.compat.exceptions import ImproperlyConfigured, NotRegistered, Unsupported
from dream.compat.schedules import crontab
from dream.messages.registry import (
    ALIASES,
    CLEANUP_TOKENS,
    DELETE_IMAGES,
    MAKE_VARIANT,
    PROCESS_IMAGES,
    REMAKE_IMAGE,
)


def test_there_is_one_app_under_all_its_names() -> None:
    assert dream.current_app is celery_app is app


def test_the_documented_tasks_are_registered_under_new_and_old_names() -> None:
    documented = {PROCESS_IMAGES, DELETE_IMAGES, CLEANUP_TOKENS, *ALIASES}
    assert set(app.tasks) == documented | {MAKE_VARIANT, REMAKE_IMAGE}
    assert app.tasks[PROCESS_IMAGES] is image_tasks.process_and_upload_images is image_tasks.celery_upload_images
    assert app.tasks[DELETE_IMAGES] is image_tasks.delete_dream_images is image_tasks.celery_delete_images
    assert app.tasks[CLEANUP_TOKENS] is token_tasks.cleanup_expired_tokens
    assert all(app.tasks[alias] is app.tasks[name] for alias, name in ALIASES.items())


def test_a_task_knows_its_name_and_its_app() -> None:
    task = image_tasks.process_and_upload_images
    assert (task.name, task.app, task.__name__) == (PROCESS_IMAGES, app, "process_and_upload_images")


def test_an_unknown_name_is_not_registered() -> None:
    with pytest.raises(NotRegistered, match=r"no task is called 'nobody\.knows'"):
        app.send_task("nobody.knows", ["x"])


def test_the_timetable_is_shown_as_celery_writes_it() -> None:
    assert app.conf.beat_schedule == {
        "cleanup-expired-tokens": {"task": CLEANUP_TOKENS, "schedule": crontab(minute=0, hour=3)}
    }


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, [], [], 4), {}), ((1,), {"files": []})])
def test_wrong_arity_is_a_type_error_at_the_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="process_and_upload_images"):
        image_tasks.process_and_upload_images.delay(*args, **kwargs)


def test_args_that_are_a_string_are_refused() -> None:
    """Each of its letters would be an argument."""
    with pytest.raises(TypeError, match="args must be a list or a tuple"):
        image_tasks.process_and_upload_images.apply_async("abc")


def test_a_function_becomes_a_task_with_or_without_options() -> None:
    own = Celery("shop")

    @own.task
    def add(x: int, y: int) -> int:
        return x + y

    @own.task(name="shop.twice", ignore_result=True, acks_late=True)
    def twice(x: int) -> int:
        return 2 * x

    assert add(2, y=3) == 5
    assert own.tasks["shop.twice"] is twice
    assert add.name == f"{__name__}.add"


def test_tasks_are_registered_and_forgotten_as_in_older_code() -> None:
    class Old(Task):
        name = "shop.old"

    fresh = Celery("shop", set_as_current=False)
    fresh.tasks.register(Old())
    assert "shop.old" in fresh.tasks
    fresh.tasks.unregister("shop.old")
    assert "shop.old" not in fresh.tasks
    with pytest.raises(NotRegistered):
        fresh.tasks.unregister("shop.old")


def test_a_task_of_a_script_is_named_after_its_app() -> None:
    assert Celery("shop").gen_task_name("add", "__main__") == "shop.add"


@pytest.mark.parametrize("option", [{"acks_on_failure": False}, {"serializer": "pickle"}, {"backend": "redis://"}])
def test_an_option_of_a_definition_without_meaning_is_refused_by_name(option: dict[str, Any]) -> None:
    with pytest.raises(Unsupported, match=rf"shop\.add.*{next(iter(option))}"):
        Celery("shop").task(name="shop.add", **option)(lambda: None)


def test_a_part_of_celery_that_is_not_there_cannot_be_replaced() -> None:
    with pytest.raises(ImproperlyConfigured, match="amqp="):
        Celery("shop", amqp="shop.amqp:AMQP")
