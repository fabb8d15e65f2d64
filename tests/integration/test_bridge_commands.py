"""`dream bridge` as an operator meets it: its commands in processes of their own."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from dream.bridge import Moved
from dream.cli.running import look_for_processes
from dream.settings import Settings
from tests.commands import dream, only_line
from tests.conftest import wait_for
from tests.old_system import Old, waiting
from tests.processes import Parts

SHOP = """
from dream.compat import Celery
app = Celery("shop")
app.task(name="shop.add")(lambda x, y: x + y)
"""


@pytest.fixture
def variables(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """An operator's environment, in which the app `shop` is found."""
    (tmp_path / "shop.py").write_text(SHOP)
    return {**environment, "PYTHONPATH": str(tmp_path)}


def test_parked_messages_are_listed_and_replayed_when_their_app_is_there(
    old_redis: Old, variables: dict[str, str], settings: Settings
) -> None:
    old_redis.send('for each in "abc":\n    send("shop.add", [1, 2], task_id=each)\nsend("nobody.knows", task_id="d")')
    moved = dream(variables, "bridge", "--from", old_redis.url, "--queues", old_redis.queue, "--drain")
    assert moved.stdout.startswith("handed over 0, duplicates 0, parked 4; in ")
    listed = [line.split("\t") for line in dream(variables, "bridge", "parked").stdout.splitlines()]
    assert sorted(task for _, _, task, _, _ in listed) == ["nobody.knows", *["shop.add"] * 3]
    assert {queue for _, queue, *_ in listed} == {old_redis.queue}
    one = next(tag for tag, _, task, *_ in listed if task == "shop.add")
    replayed = dream(variables, "bridge", "replay", one, "-A", "shop")
    assert (replayed.returncode, replayed.stdout) == (0, "handed over 1, duplicates 0, still parked 0\n")
    everything = dream(variables, "bridge", "replay", "--all", DREAM_APP="shop")
    assert (everything.returncode, everything.stdout) == (0, "handed over 2, duplicates 0, still parked 1\n")
    assert sorted(each["message_id"] for each in waiting(settings)) == ["a", "b", "c"]
    gone = dream(variables, "bridge", "replay", one, "-A", "shop")
    assert (gone.returncode, only_line(gone.stderr)) == (
        1,
        f"dream: nothing is parked as {one}: `dream bridge parked` shows what is",
    )


def test_check_changes_nothing(old: Old, variables: dict[str, str], settings: Settings) -> None:
    """Waiting messages are there afterwards in their order; RabbitMQ marks them as redelivered."""
    old.send('for each in range(30):\n    send("shop.add", [each, 2], task_id=str(each))\nsend("nobody.knows")')
    common = ("bridge", "--from", old.url, "--queues", old.queue, "-A", "shop", "--check")
    said = dream(variables, *common)
    assert said.returncode == 0
    reason = "parked: no worker knows a task 'nobody.knows': name its app with --app"
    assert said.stdout == f"{old.queue}\tnobody.knows\t1\t{reason}\n{old.queue}\tshop.add\t30\tmoved\n"
    assert dream(variables, *common).stdout == said.stdout
    assert (waiting(settings), old.reasons()) == ([], {})
    assert old.move() == Moved(handed_over=30, parked=1)
    assert [each["message_id"] for each in waiting(settings)] == [str(each) for each in range(30)]


@pytest.mark.slow
@pytest.mark.parametrize("named_by", ["task_routes", "task_queues", "task_default_queue", "queue"])
def test_the_apps_own_queues_are_looked_into(
    old: Old, variables: dict[str, str], settings: Settings, tmp_path: Path, named_by: str
) -> None:
    """Without --queues. In RabbitMQ nobody can ask what is bound: what lay there was never moved, nor counted."""
    value = {"task_routes": {"shop.*": {"queue": old.queue}}, "task_queues": [old.queue]}.get(named_by, old.queue)
    shop = f"{SHOP}app.conf.{named_by} = {value!r}\n"
    if named_by == "queue":
        shop = SHOP.replace('name="shop.add"', f'name="shop.add", queue="{old.queue}"')
    (tmp_path / "shop.py").write_text(shop)
    old.send('send("shop.add", [1, 2])')
    said = dream(variables, "bridge", "--from", old.url, "-A", "shop", "--check")
    assert f"{old.queue}\tshop.add\t1\tmoved" in said.stdout.splitlines(), said.stderr


def test_check_tells_what_workers_hold_from_what_they_have_given_up(
    old_redis: Old, variables: dict[str, str], made: list[dict[str, Any]]
) -> None:
    with redis.Redis.from_url(old_redis.url) as client:
        for tag, message, at in (("held", made[0], 9999999999), ("given up", made[1], 1)):
            client.hset("unacked", tag, json.dumps([message, "", old_redis.queue]))
            client.zadd("unacked_index", {tag: at})
    common = ("bridge", "--from", old_redis.url, "--queues", old_redis.queue, "-A", "shop", "--check")
    name = f"{old_redis.queue}\tshop.add"
    assert dream(variables, *common).stdout == f"{name}\t1\theld by a Celery worker\n{name}\t1\tmoved\n"
    assert dream(variables, *common, "--take-unacked").stdout == f"{name}\t2\tmoved\n"


def _bridges(settings: Settings) -> list[str]:
    return [each.said for each in look_for_processes(settings) if each.said.startswith("bridge: ")]


@pytest.mark.slow
def test_it_says_how_far_it_is_and_ends_well_at_sigterm(
    old_redis: Old, variables: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """`dream doctor` names it while it runs."""
    parts = Parts(variables, tmp_path)
    try:
        bridge = parts.start(
            *("bridge", "--from", old_redis.url, "--queues", old_redis.queue, "-A", "shop"), ready=False
        )
        for count in (1, 2):
            old_redis.send('send("shop.add", [1, 2])')
            line = f"handed over {count}, duplicates 0, parked 0; "
            wait_for(lambda line=line: line in parts.log_of(bridge), what="a line of progress")  # type: ignore[misc]
        bridges = partial(_bridges, settings)
        wait_for(bridges, what="the bridge in the list")
        assert parts.stop(bridge) == 0
        assert not bridges()
        *progress, last = parts.log_of(bridge).splitlines()
    finally:
        parts.end()
    assert all(
        re.fullmatch(r"handed over \d+, duplicates 0, parked 0; \d+ a second, 0 wait", each) for each in progress
    )
    assert re.fullmatch(r"handed over 2, duplicates 0, parked 0; in \d+\.\d s", last)


USAGE = {
    "no-source": ((), "--from must name Celery's broker"),
    "typo": (("--from", "reddis://h/0"), "--from must be redis://"),
    "database": (("--from", "redis://127.0.0.1/abc"), "--from: a Redis database is a number"),
}


@pytest.mark.parametrize(("arguments", "said"), USAGE.values(), ids=USAGE)
def test_a_source_that_cannot_be_is_wrong_usage(
    variables: dict[str, str], arguments: tuple[str, ...], said: str
) -> None:
    """systemd does not start such a bridge again."""
    for more in ((), ("--check",)):
        answer = dream(variables, "bridge", *arguments, *more)
        assert (answer.returncode, answer.stdout) == (2, "")
        assert answer.stderr.splitlines()[-1].startswith(f"Error: {said}")


BAD = {
    "nothing-answers": (("--from", "redis://127.0.0.1:9/0"), "--from redis://127.0.0.1:9/0: Error 111 connecting"),
    "nothing-answers-amqp": (("--from", "amqp://127.0.0.1:9//"), "--from amqp://127.0.0.1:9//: no answer"),
    "no-app": (("--from", "redis://127.0.0.1:9/0", "-A", "nowhere"), "there is no such module"),
}


@pytest.mark.parametrize(("arguments", "said"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_one_line(variables: dict[str, str], arguments: tuple[str, ...], said: str) -> None:
    for more in ((), ("--check",)):
        answer = dream(variables, "bridge", *arguments, *more)
        assert answer.returncode in (1, 2)
        assert said in only_line(answer.stderr)
        assert answer.stdout == ""


def test_an_app_that_does_not_find_its_own_files_is_not_the_source_that_does_not_answer(
    variables: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text("open('/nowhere/conf')")
    answer = dream(variables, "bridge", "--from", "redis://127.0.0.1:9/0", "-A", "shop")
    assert (answer.returncode, "--from redis" in answer.stderr) == (1, False)
    assert "No such file or directory: '/nowhere/conf'" in answer.stderr


def test_a_server_that_refuses_us_is_one_line(
    variables: dict[str, str], servers: dict[str, str], local_rabbitmq_url: str
) -> None:
    password = re.search(":([^:@]+)@", servers["DREAM_BROKER_URL"])
    assert password is not None
    refused = {
        servers["DREAM_BROKER_URL"].replace(password[1], "wrong"): "invalid username-password pair",
        servers["DREAM_BROKER_URL"].rpartition("/")[0] + "/9999": "DB index is out of range",
        local_rabbitmq_url.partition("//")[0] + "//guest:wrong@127.0.0.1//": "ACCESS_REFUSED",
        local_rabbitmq_url.rpartition("/")[0] + "/no-such-host": "vhost no-such-host not found",
    }
    for url, said in refused.items():
        answer = dream(variables, "bridge", "--from", url)
        assert (answer.returncode, said in only_line(answer.stderr)) == (1, True)
        assert "wrong" not in answer.stderr


def test_parked_messages_cannot_be_shown_without_redis(variables: dict[str, str]) -> None:
    for command in (("parked",), ("replay", "--all")):
        answer = dream(variables, "bridge", *command, DREAM_REDIS_URL="redis://127.0.0.1:9/0")
        assert (answer.returncode, only_line(answer.stderr).startswith("dream: DREAM_REDIS_URL: ")) == (1, True)
