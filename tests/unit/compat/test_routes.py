"""Routes of tasks by `task_routes`, and the queues that an app names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dream.compat import Celery
from dream.compat.exceptions import ImproperlyConfigured
from dream.compat.queues import Queue, queue_names, queues_of, routed


def by_function(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_: Any) -> Any:
    return {"queue": kwargs["to"], "priority": 3} if name == "shop.move" else None


ROUTES = (
    [(re.compile(r"shop\.(video|image)\."), {"queue": "media"}), ("feed.*", "feeds")],
    {"shop.pay": {"queue": "money"}, "shop.p*": "other"},
    by_function,
)


@pytest.mark.parametrize(
    ("name", "options", "destination"),
    [
        ("shop.video.cut", {}, {"queue": "media"}),
        ("feed.read", {}, {"queue": "feeds"}),
        ("shop.pay", {}, {"queue": "money"}),
        ("shop.print", {}, {"queue": "other"}),
        ("shop.print", {"queue": "mine"}, {"queue": "mine"}),
        ("shop.print", {"queue": None}, {"queue": "other"}),
        ("shop.move", {}, {"queue": "there", "priority": 3}),
        ("shop.move", {"routing_key": "mine"}, {"routing_key": "mine", "priority": 3}),
        ("shop.move", {"priority": 9}, {"queue": "there", "priority": 9}),
        ("nowhere", {"countdown": 1}, {"countdown": 1}),
    ],
)
def test_a_route_gives_what_the_caller_does_not(name: str, options: Any, destination: Any) -> None:
    assert routed(ROUTES, name, [], {"to": "there"}, options) == destination


def test_a_route_may_be_one_mapping_one_list_of_pairs_one_function_or_a_name(shop: Path) -> None:
    (shop / "routers.py").write_text("def route(name, args, kwargs, options, task=None):\n    return 'named'\n")
    assert routed({"a.*": "q"}, "a.b") == {"queue": "q"}
    assert routed([["a.*", "q"], ["b", "r"]], "b") == {"queue": "r"}
    assert routed(by_function, "shop.move", kwargs={"to": "x"})["queue"] == "x"
    assert routed("shop.routers.route", "a") == routed(["shop.routers:route"], "a") == {"queue": "named"}
    assert routed(None, "a", options={"queue": "q"}) == {"queue": "q"}
    with pytest.raises(ImproperlyConfigured, match="3 is neither"):
        routed([3], "a")


def test_queues_are_known_by_their_names() -> None:
    assert queue_names(["a", Queue("b")]) == queue_names({"a": {}, "b": {}}) == ("a", "b")
    assert queue_names(None) == ()


def test_an_app_has_the_queues_that_its_settings_and_its_tasks_name() -> None:
    routes = {"shop.pay": "money", "shop.print": {"queue": Queue("paper")}, "shop.*": {"priority": 3}}
    app = Celery("shop", set_as_current=False, task_queues=["a", Queue("b")], task_routes=routes)
    app.task(name="shop.mail", queue="mail")(print)
    app.task(name="shop.plain")(print)
    assert queues_of(app) == {"default", "a", "b", "money", "paper", "mail"}
