"""Celery's smaller modules: what callers import from them is there."""

from __future__ import annotations

import logging
from importlib import import_module

from dream.compat import Celery, states
from dream.compat.utils.log import get_task_logger


def test_they_are_there() -> None:
    app = Celery("shop")
    state, django = import_module("dream.compat._state"), import_module("dream.compat.contrib.django.task")
    assert (state.get_current_task(), state.get_current_app()) == (None, state.current_app)
    assert hasattr(django.DjangoTask, "delay_on_commit")
    assert import_module("dream.compat.app").app_or_default(app) is app
    assert import_module("dream.compat.app.control").Control is type(app.control)


def test_a_tasks_logger_is_an_ordinary_one_of_its_name() -> None:
    assert get_task_logger("shop.tasks") is logging.getLogger("shop.tasks")


def test_states_are_compared_by_what_follows_what() -> None:
    state = states.state
    assert state("PENDING") < state("STARTED") < state("SUCCESS")
    assert state("STARTED") <= state("PROGRESS") < state("FAILURE")
    assert not state("SUCCESS") < state("RETRY")
