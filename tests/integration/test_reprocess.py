"""`dream reprocess`: it walks over stored pictures, is interrupted, goes on, and keeps few rows open."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from sqlalchemy import func, insert, select

from dream.actors.inline import run_recorded
from dream.db import DreamImage, DreamMark, DreamTask, images
from dream.db.clock import now
from dream.errors import ObjectMissing
from dream.messages.states import ImageState, TaskState
from dream.producer import NOT_SENT, Producer
from dream.storage import Storage, new_key_stem
from dream.storage.keys import object_key
from tests.commands import command, dream, on_a_terminal
from tests.conftest import wait_for
from tests.pictures import noise

REMAKES = DreamTask.id.startswith("remake-")


def upload(producer: Producer, count: int, dream_id: int = 7) -> list[int]:
    """The ids of pictures that were uploaded and processed here."""
    files = [{"name": "a.jpg", "data": noise(40, 30)}] * count
    order = producer.order_upload(dream_id, files, delivery=NOT_SENT)
    assert producer.accept(order)
    run_recorded(producer.settings, producer, order.task_id)
    with producer.database.read() as session:
        return [row.id for row in images.of_task(session, order.task_id)]


@contextmanager
def working(producer: Producer, most: int = 1000) -> Iterator[None]:
    """Run remakes in this process, as a worker would, but at most so many."""
    stopping = threading.Event()

    def work() -> None:
        left = most
        while left and not stopping.wait(0.02):
            with producer.database.read() as session:
                queued = session.scalars(select(DreamTask.id).where(REMAKES, DreamTask.state == TaskState.QUEUED)).all()
            for task_id in queued[:left]:
                left -= 1
                with suppress(ObjectMissing):  # the row has it, as with a worker
                    run_recorded(producer.settings, producer, task_id)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def remakes_of(producer: Producer) -> dict[int, int]:
    with producer.database.read() as session:
        return {row.id: row.remakes for row in session.scalars(select(DreamImage))}


def count(producer: Producer, table: type[DreamTask] | type[DreamMark]) -> int:
    """The rows that a pass has left."""
    mine = REMAKES if table is DreamTask else DreamMark.name.startswith("remake:")
    with producer.database.read() as session:
        return session.scalar(select(func.count()).select_from(table).where(mine)) or 0


def test_a_pass_makes_each_picture_anew_once_and_leaves_no_rows(
    environment: dict[str, str], producer: Producer
) -> None:
    """A dry run changes nothing; a second pass makes all of them anew again."""
    mine, others = upload(producer, 3), upload(producer, 2, dream_id=8)
    told = dream(environment, "reprocess", "--dream-id", 7, "--dry-run")
    assert told.stdout == "3 pictures would be made anew; nothing was done\n"
    assert (count(producer, DreamTask), count(producer, DreamMark)) == (0, 0)
    with working(producer):
        done = dream(environment, "reprocess", "--dream-id", 7)
    assert (done.returncode, done.stdout) == (0, "3 pictures made anew\n"), done.stderr
    assert remakes_of(producer) == {**dict.fromkeys(mine, 1), **dict.fromkeys(others, 0)}
    assert (count(producer, DreamTask), count(producer, DreamMark)) == (0, 0)
    with working(producer):
        assert dream(environment, "reprocess", "--all").stdout == "5 pictures made anew\n"
    assert remakes_of(producer) == {**dict.fromkeys(mine, 2), **dict.fromkeys(others, 1)}


@pytest.mark.slow
def test_a_command_that_was_killed_goes_on_where_it_stopped(environment: dict[str, str], producer: Producer) -> None:
    """Each picture is made anew once; tasks that the killed one has accepted are not doubled."""
    ids = upload(producer, 6)
    process = subprocess.Popen(command("reprocess", "--all"), env={**os.environ, **environment})
    try:
        with working(producer, most=2):
            wait_for(lambda: sum(remakes_of(producer).values()) == 2, what="two remakes")
    finally:
        process.kill()
        process.wait()
    assert count(producer, DreamMark) == 1
    with subprocess.Popen(
        command("reprocess", "--all"),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as again:
        assert again.stderr is not None
        told = again.stderr.readline()
        assert "going on with the pass of" in told
        assert "4 left" in told
        with working(producer):
            assert again.communicate(timeout=60)[0] == "4 pictures made anew\n"
    assert remakes_of(producer) == dict.fromkeys(ids, 1)
    assert count(producer, DreamMark) == 0


@pytest.mark.slow
def test_a_pass_whose_rest_was_done_after_the_kill_ends_and_is_not_repeated(
    environment: dict[str, str], producer: Producer
) -> None:
    ids = upload(producer, 2)
    process = subprocess.Popen(command("reprocess", "--all"), env={**os.environ, **environment})
    try:
        wait_for(lambda: count(producer, DreamTask) == 2, what="both tasks")
    finally:
        process.kill()
        process.wait()
    with working(producer):
        wait_for(lambda: sum(remakes_of(producer).values()) == 2, what="both remakes")
    again = dream(environment, "reprocess", "--all")
    assert (again.returncode, again.stdout) == (0, "0 pictures made anew\n")
    assert "is done by now" in again.stderr
    assert remakes_of(producer) == dict.fromkeys(ids, 1)
    assert count(producer, DreamMark) == 0


def test_it_begins_anew_if_asked_to(environment: dict[str, str], producer: Producer) -> None:
    ids = upload(producer, 2)
    process = subprocess.Popen(command("reprocess", "--all"), env={**os.environ, **environment})
    try:
        with working(producer, most=1):
            wait_for(lambda: sum(remakes_of(producer).values()) == 1, what="a remake")
    finally:
        process.kill()
        process.wait()
    with working(producer):
        again = dream(environment, "reprocess", "--all", "--anew")
    assert again.stdout == "2 pictures made anew\n"
    assert "going on" not in again.stderr
    assert sorted(remakes_of(producer).values()) in ([1, 2], [2, 2])
    assert set(remakes_of(producer)) == set(ids)


def test_a_picture_that_fails_stays_as_it_was_and_is_named(environment: dict[str, str], producer: Producer) -> None:
    lost, good = upload(producer, 2)
    with producer.database.read() as session:
        row = session.get_one(DreamImage, lost)
    Storage(producer.settings).delete(row.bucket or "", [object_key(row)])
    with working(producer):
        done = dream(environment, "reprocess", "--all")
    assert done.returncode == 1
    assert done.stdout == "1 picture made anew, 1 failed and stay as they were: `dream dlq list` says why\n"
    assert remakes_of(producer) == {lost: 0, good: 1}
    assert f"remake-{lost}-" in dream(environment, "dlq", "list").stdout


@pytest.mark.slow
def test_of_many_pictures_few_have_a_task_at_a_time(environment: dict[str, str], producer: Producer) -> None:
    """No worker is there: the tasks that are open stay few, and the command says that it waits."""
    with producer.database.begin() as session:
        row = {"dream_id": 7, "task_id": "old", "index": 0, "filename": "a.jpg", "state": ImageState.COMPLETED}
        rows = [{**row, "storage_key": f"{new_key_stem()}.jpg", "created_at": now()} for _ in range(1000)]
        for each in rows:
            session.execute(insert(DreamImage).values(**each))
    environment = {**os.environ, **environment}
    with subprocess.Popen(command("reprocess", "--all"), env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "no worker has finished a picture yet" in process.stderr.readline()
        assert count(producer, DreamTask) == 400
        process.kill()


def test_pictures_are_chosen_by_their_age(environment: dict[str, str], producer: Producer) -> None:
    old, _ = upload(producer, 2)
    with producer.database.begin() as session:
        session.get_one(DreamImage, old).made_at = now(-40 * 86400)  # type: ignore[assignment]
    for when in ("30d", "960h", "2999-01-01"):
        told = dream(environment, "reprocess", "--older-than", when, "--dry-run").stdout
        expected = 2 if when.startswith("2999") else 1
        assert told.startswith(f"{expected} picture"), when
    assert dream(environment, "reprocess", "--older-than", "41d", "--dry-run").stdout.startswith("0 pictures")


def test_a_terminal_shows_a_bar(environment: dict[str, str], producer: Producer) -> None:
    upload(producer, 2)
    with working(producer):
        code, shown = on_a_terminal(environment, "", "reprocess", "--all", asks=False)
    assert code == 0
    assert "2/2" in shown
    assert "2 pictures made anew" in shown


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "use one of --dream-id, --all and --older-than"),
        (["--all", "--dream-id", "1"], "use one of --dream-id, --all and --older-than"),
        (["--older-than", "yesterday"], "--older-than must be a day as 2026-01-31, days as 30d or hours as 12h"),
        (["--older-than", "-3d"], "--older-than must be a day"),
        (["--older-than", "999999999d"], "--older-than must be a day"),
        (["--all", "--variants", "hero"], "there is no variant 'hero'; the settings make: thumb"),
        (["--all", "--variants", ","], "--variants names no variant"),
    ],
)
def test_wrong_options_are_wrong_usage(environment: dict[str, str], options: list[str], reason: str) -> None:
    told = dream(environment, "reprocess", *options, DREAM_VARIANTS="thumb:64")
    assert told.returncode == 2
    assert told.stderr.splitlines()[-1].startswith(f"Error: {reason}")


def test_it_says_how_to_go_on_after_an_interruption(environment: dict[str, str], producer: Producer) -> None:
    upload(producer, 1)
    code, shown = on_a_terminal(environment, "\x03", "reprocess", "--all", asks=False, after="0/1")
    assert code == 130
    assert "the same command does the rest" in " ".join(shown.split())
