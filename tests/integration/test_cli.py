"""The commands for pictures and tokens, run as processes on real servers, with a real worker."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jwt
import pytest

from dream.db import Database, images, migrate
from dream.db.dreams import Owner, owner_of
from dream.messages.registry import IMAGES_QUEUE
from dream.messages.states import ImageState
from dream.settings import Settings
from dream.storage import Storage
from tests.commands import command, dream, on_a_terminal, only_line
from tests.conftest import wait_for
from tests.old_system import waiting
from tests.pictures import noise
from tests.processes import Parts

Environment = dict[str, str]


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings)
    yield database
    database.dispose()


@pytest.fixture
def parts(environment: Environment, settings: Settings, tmp_path: Path) -> Iterator[Parts]:
    folder = tmp_path / "parts"
    folder.mkdir()
    parts = Parts(environment, folder)
    yield parts
    parts.end()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(noise())
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"no picture")
    return path


def uploaded(environment: Environment, photo: Path, count: int = 1) -> None:
    """Pictures of dream 7 that no worker has seen yet."""
    assert dream(environment, "upload", *[photo] * count, "--dream-id", 7).returncode == 0


def listed(environment: Environment, dream_id: int = 7) -> list[dict[str, Any]]:
    run = dream(environment, "images", "--dream-id", dream_id, "--json")
    assert run.returncode == 0, run.stderr
    found: list[dict[str, Any]] = json.loads(run.stdout)
    return found


# --- upload


def test_upload_says_the_same_in_json(environment: Environment, settings: Settings, parts: Parts, photo: Path) -> None:
    sent = json.loads(dream(environment, "upload", photo, "--dream-id", 7, "--json").stdout)
    assert sent.keys() == {"task_id"}
    parts.start("worker")

    done = dream(environment, "upload", photo, "--dream-id", 7, "--wait", "--json")

    assert done.returncode == 0
    [picture] = json.loads(done.stdout)["images"]
    assert picture in listed(environment)


def test_upload_prints_the_tasks_id_and_does_not_wait(
    environment: Environment, settings: Settings, database: Database, photo: Path
) -> None:
    """Without --wait the id is all that is on standard output, and the rows are there."""
    which = ("--dream-id", 7, "--position", 4, "--position", -2, "--priority", 9)
    run = dream(environment, "upload", photo, photo, *which)

    assert (run.returncode, run.stderr) == (0, "")
    assert [each["options"]["turn"]["priority"] for each in waiting(settings, IMAGES_QUEUE)] == [9]
    with database.read() as session:
        rows = images.of_task(session, only_line(run.stdout))
    assert [(row.dream_id, row.filename, row.position, row.state) for row in rows] == [
        (7, "photo.jpg", 4, ImageState.PENDING),
        (7, "photo.jpg", -2, ImageState.PENDING),
    ]


def test_upload_waits_and_tells_each_files_outcome_to_scripts_and_to_people(
    environment: Environment, parts: Parts, photo: Path, broken: Path
) -> None:
    """Piped: a line of tabs for each file, in order. On a narrow terminal: bars, and the URL in one piece."""
    parts.start("worker")

    run = dream(environment, "upload", broken, photo, "--dream-id", 7, "--wait")

    assert run.returncode == 1
    failed, completed = [line.split("\t") for line in run.stdout.splitlines()[1:]]
    assert failed[1:6] == ["failed", "0", "broken.jpg", "-", "-"]
    assert "not a picture" in failed[6]
    row = listed(environment)[1]
    assert completed == [
        *(str(row["id"]), "completed", "0", "photo.jpg", "160x120", str(row["size_bytes"]), row["url"])
    ]
    assert dream(environment, "images", "--dream-id", 7).stdout.splitlines() == run.stdout.splitlines()[1:]
    assert "photo.jpg: completed" in run.stderr.splitlines()

    code, shown = on_a_terminal(environment, "", "upload", photo, "--dream-id", 7, "--wait", columns=40)

    assert code == 0, shown
    assert "━" in shown
    newest = max(listed(environment), key=lambda image: image["id"])
    assert newest["url"] in shown
    assert len(newest["url"]) > 40


@pytest.mark.parametrize("wrong", ["missing", "folder", "empty", "too large"])
def test_a_file_that_cannot_be_sent_is_one_line_and_nothing_is_sent(
    environment: Environment, settings: Settings, photo: Path, tmp_path: Path, wrong: str
) -> None:
    """The good file before it is not sent either: no row, no staged bytes."""
    (tmp_path / "empty.jpg").touch()
    arguments: list[object] = {
        "missing": [tmp_path / "missing.jpg"],
        "folder": [tmp_path],
        "empty": [tmp_path / "empty.jpg"],
        "too large": [photo],
    }[wrong]
    limit = {"DREAM_MAX_UPLOAD_BYTES": "100"} if wrong == "too large" else {}

    run = dream(environment, "upload", photo, *arguments, "--dream-id", 7, **limit)

    assert (run.returncode, run.stdout) == (1, "")
    assert only_line(run.stderr).startswith("dream: ")
    assert listed(environment) == []
    assert list(Storage(settings).list_keys(settings.s3_bucket, "")) == []


def test_a_file_that_we_may_not_read_is_one_line(environment: Environment, settings: Settings, photo: Path) -> None:
    photo.chmod(0)
    if os.access(photo, os.R_OK):
        pytest.skip("this user may read everything")
    assert "cannot be read" in only_line(dream(environment, "upload", photo, "--dream-id", 7).stderr)


def test_the_waiting_ends_at_its_time_limit(environment: Environment, settings: Settings, photo: Path) -> None:
    """No worker runs: exit 1, the state so far, and a line that says that the work goes on."""
    run = dream(environment, "upload", photo, "--dream-id", 7, "--wait", "--timeout", 0.3)

    assert run.returncode == 1
    assert run.stdout.splitlines()[1].split("\t")[1:] == ["pending", "0", "photo.jpg", "-", "-", "-"]
    assert run.stderr.splitlines()[-1] == "dream: not finished within 0.3 s; the work goes on"


@pytest.mark.slow
def test_who_waits_without_a_worker_is_told_so(environment: Environment, settings: Settings, photo: Path) -> None:
    """It would wait in silence for ever. Said once, a few seconds on."""
    with subprocess.Popen(
        command("upload", photo, "--dream-id", 7, "--wait"),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "photo.jpg: pending\n"
        said = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=20)

    assert said.startswith("dream: no worker has begun after 5 s; the task is accepted")
    assert "`dream doctor`" in said
    assert "no worker has begun" not in rest


@pytest.mark.slow
def test_ctrl_c_ends_the_waiting_and_not_the_work(environment: Environment, settings: Settings, photo: Path) -> None:
    with subprocess.Popen(
        command("upload", photo, "--dream-id", 7, "--wait"),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "photo.jpg: pending\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)

    assert process.returncode == 130
    assert "the work goes on" in only_line(said.strip())
    assert len(listed(environment)) == 1


# --- images


def test_images_lists_what_is_there_in_the_order_of_the_text(
    environment: Environment, settings: Settings, photo: Path
) -> None:
    """A line of tabs for each picture, or one JSON array and nothing else; only of that dream."""
    assert dream(environment, "upload", photo, photo, "--dream-id", 7, "--position", 9, "--position", 3).returncode == 0

    lines = dream(environment, "images", "--dream-id", 7).stdout.splitlines()
    assert [line.split("\t")[1:] for line in lines] == [
        ["pending", position, "photo.jpg", "-", "-", "-"] for position in ("3", "9")
    ]
    assert [(row["position"], row["state"], row["url"]) for row in listed(environment)] == [
        (3, "pending", None),
        (9, "pending", None),
    ]
    assert [str(row["id"]) for row in listed(environment)] == [line.split("\t")[0] for line in lines]
    assert listed(environment, dream_id=8) == []


def test_a_files_name_cannot_break_the_output(environment: Environment, settings: Settings, photo: Path) -> None:
    """Tabs, line ends and escapes in a name are shown as marks: one line with seven columns, in both outputs."""
    odd = photo.with_name("a\tb\n\x1b[31m[red].jpg")
    photo.rename(odd)
    uploaded(environment, odd)

    line = only_line(dream(environment, "images", "--dream-id", 7).stdout)
    assert line.split("\t")[3] == "a?b??[31m[red].jpg"
    _, shown = on_a_terminal(environment, "", "images", "--dream-id", 7)
    assert "a?b??[31m[red].jpg" in shown


def test_a_url_begins_a_line_where_the_table_is_wider_than_the_terminal(
    environment: Environment, settings: Settings, database: Database, photo: Path
) -> None:
    """Each URL is in one piece, and fits into 80 columns where the gateway is on this machine."""
    uploaded(environment, photo, 2)
    url = "http://127.0.0.1:8000/media/dreams/20261129/" + "0" * 32 + ".jpg"
    with database.begin() as session:
        for row in images.list_images(session, 7):
            row.state = ImageState.PROCESSING
            row.state, row.url = ImageState.COMPLETED, url

    _, shown = on_a_terminal(environment, "", "images", "--dream-id", 7, columns=80)
    lines = re.sub(r"\x1b\[[0-9;]*m|\r", "", shown).splitlines()
    assert [line for line in lines if "http" in line] == [url, url]
    assert max(map(len, lines)) <= 80
    assert [line.split()[3] for line in lines if "completed" in line] == ["photo.jpg", "photo.jpg"]

    _, shown = on_a_terminal(environment, "", "images", "--dream-id", 7, columns=200)
    assert len([line for line in shown.splitlines() if "completed" in line and url in line]) == 2


# --- delete


def test_delete_takes_away_what_is_named_and_waits_until_it_is_gone(
    environment: Environment, settings: Settings, parts: Parts, photo: Path
) -> None:
    parts.start("worker")
    uploaded(environment, photo, 2)
    wait_for(lambda: {row["state"] for row in listed(environment)} == {"completed"}, what="both pictures")
    first, second = listed(environment)

    run = dream(environment, "delete", "--dream-id", 7, first["id"], "--wait")

    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[1:] == [f"{first['id']}\tdeleted\tphoto.jpg"]
    assert listed(environment) == [second]
    assert [key for key, _ in Storage(settings).list_keys(settings.s3_bucket, "")] == [
        second["url"][second["url"].index("dreams/") :]
    ]


def test_unknown_ids_are_named_and_nothing_is_deleted(
    environment: Environment, settings: Settings, photo: Path
) -> None:
    uploaded(environment, photo)
    mine = listed(environment)[0]["id"]

    run = dream(environment, "delete", "--dream-id", 7, mine, 4711, 42)
    assert (run.returncode, run.stdout) == (1, "")
    assert only_line(run.stderr) == "dream: dream 7 has no picture 42, 4711; nothing was deleted"
    assert len(listed(environment)) == 1

    other_dream = dream(environment, "delete", "--dream-id", 8, mine)
    assert (other_dream.returncode, len(listed(environment))) == (1, 1)


def test_to_delete_all_takes_a_yes(environment: Environment, settings: Settings, photo: Path) -> None:
    """Asked on a terminal; elsewhere only with --yes."""
    uploaded(environment, photo)
    run = dream(environment, "delete", "--dream-id", 7)
    assert (run.returncode, len(listed(environment))) == (1, 1)
    assert "--yes" in only_line(run.stderr)

    code, shown = on_a_terminal(environment, "n\n", "delete", "--dream-id", 7)
    assert (code, len(listed(environment))) == (1, 1)
    assert "Delete 1 picture, all of dream 7?" in shown

    code, _ = on_a_terminal(environment, "y\n", "delete", "--dream-id", 7)
    assert (code, listed(environment)) == (0, [])

    uploaded(environment, photo)
    assert dream(environment, "delete", "--dream-id", 7, "--yes").returncode == 0
    assert listed(environment) == []


def test_ctrl_c_at_the_question_deletes_nothing_and_ends_with_130(
    environment: Environment, settings: Settings, photo: Path
) -> None:
    uploaded(environment, photo)

    code, shown = on_a_terminal(environment, "\x03", "delete", "--dream-id", 7, after="[y/N]")

    assert (code, len(listed(environment))) == (130, 1)
    assert "nothing was done" in shown
    code, _ = on_a_terminal(environment, "\x04", "delete", "--dream-id", 7, after="[y/N]")  # Ctrl-D is no answer
    assert (code, len(listed(environment))) == (1, 1)


def test_a_deletion_that_does_not_come_about_is_a_failure(
    environment: Environment, settings: Settings, photo: Path
) -> None:
    """No worker runs: the picture is still being deleted when the time is over."""
    uploaded(environment, photo)
    run = dream(environment, "delete", "--dream-id", 7, "--yes", "--wait", "--timeout", 0.3)
    assert run.returncode == 1
    assert run.stdout.splitlines()[1].endswith("\tdeleting\tphoto.jpg")


# --- token


def test_token_prints_a_signed_token_and_gives_the_dream_away(
    environment: Environment, settings: Settings, database: Database
) -> None:
    """Only the token is on standard output; the dream is that user's, and then the next one's."""
    run = dream(environment, "token", "--user-id", 3, "--dream-id", 9, "--ttl", 100)

    assert (run.returncode, run.stderr) == (0, "")
    claims = jwt.decode(only_line(run.stdout), environment["DREAM_JWT_SECRET"], ["HS256"])
    assert (claims["user_id"], claims["exp"] - claims["iat"]) == (3, 100)
    assert re.fullmatch("[0-9a-f]{32}", claims["jti"])

    def owner() -> Owner | None:
        with database.read() as session:
            return owner_of(session, 9)

    assert owner() == Owner(3, "user3")
    again = dream(environment, "token", "--user-id", 4, "--dream-id", 9, "--username", "ann")
    assert again.returncode == 0
    assert owner() == Owner(4, "ann")
    assert jwt.decode(again.stdout.strip(), environment["DREAM_JWT_SECRET"], ["HS256"])["jti"] != claims["jti"]


def test_token_without_a_key_is_one_line(environment: Environment) -> None:
    run = dream(environment, "token", "--user-id", 3, DREAM_JWT_SECRET="")
    assert (run.returncode, run.stdout) == (2, "")
    assert only_line(run.stderr).startswith("dream: DREAM_JWT_SECRET is missing")


# --- errors and cost


@pytest.mark.parametrize("arguments", [["images"], ["upload", "photo.jpg"], ["delete", "--yes"]])
def test_a_database_without_tables_says_what_to_run(
    environment: Environment, photo: Path, arguments: list[str]
) -> None:
    """And what could not be recorded has left nothing behind that counts."""
    named = [str(photo) if each == "photo.jpg" else each for each in arguments]
    settings = Settings(**{name.removeprefix("DREAM_").lower(): value for name, value in environment.items()})
    Storage(settings).ensure_bucket(settings.s3_bucket)
    run = dream(environment, *named, "--dream-id", 7)
    assert (run.returncode, run.stdout) == (1, "")
    assert only_line(run.stderr).endswith("run `dream migrate`")
    assert list(Storage(settings).list_keys(settings.s3_bucket, "")) == []


def test_migrate_says_what_it_did(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new.db"
    said = [only_line(dream({"DREAM_DATABASE_URL": url}, "migrate").stdout) for _ in range(2)]
    migrate.upgrade(older := f"sqlite:///{tmp_path}/older.db", "0004")
    said.append(only_line(dream({"DREAM_DATABASE_URL": older}, "migrate").stdout))

    assert said == [
        f"the tables are created, at revision {migrate.head()}",
        f"nothing to do: the tables are at revision {migrate.head()}, the newest",
        f"the tables are upgraded from revision 0004 to {migrate.head()}",
    ]


@pytest.mark.parametrize("arguments", [["images", "--dream-id", 7], ["migrate"]])
def test_a_database_that_is_away_is_one_line_without_its_password(
    environment: Environment, arguments: list[object]
) -> None:
    away = "postgresql://somebody:hunter2hunter2@127.0.0.1:9/dream"
    run = dream(environment, *arguments, DREAM_DATABASE_URL=away)
    assert (run.returncode, run.stdout) == (1, "")
    assert only_line(run.stderr).startswith("dream: the database did not answer: ")
    assert "hunter2" not in run.stderr


def test_a_worker_for_an_app_that_is_not_there_ends_with_one_line(environment: Environment) -> None:
    """It was started again every five seconds, for ever."""
    run = dream(environment, "worker", "-A", "nope")
    assert run.returncode == 2
    assert only_line(run.stderr) == "dream: 'nope': there is no such module"


def test_a_worker_for_an_app_that_cannot_be_imported_ends_with_one_line(
    environment: Environment, tmp_path: Path
) -> None:
    """It was started again and again, each time with a traceback."""
    (tmp_path / "shop.py").write_text("import not_installed_at_all")
    run = dream(environment, "worker", "-A", "shop", PYTHONPATH=str(tmp_path))
    assert run.returncode == 2
    assert only_line(run.stderr).startswith("dream: shop cannot be loaded: ModuleNotFoundError in ")


@pytest.mark.parametrize("queues", ["nope", "default,dream_images", ","])
def test_a_worker_of_a_queue_that_is_not_there_is_refused(environment: Environment, queues: str) -> None:
    """It would wait for ever and say nothing."""
    run = dream(environment, "worker", "--queues", queues, timeout_s=20)
    assert run.returncode == 2
    assert "use default or dream_image_processing" in " ".join(run.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["images", "--dream-id", "7"], "dream 7 has no pictures"),
        (["dlq", "list"], "none of dream's own tasks has failed for good"),
        (["dlq", "replay", "--all"], "none of dream's own tasks has failed for good"),
        (["dlq", "purge", "--all", "--older-than-days", "1"], "no task failed that long ago"),
        (["bridge", "parked"], "no message is parked"),
    ],
)
def test_that_there_is_nothing_is_said(
    environment: Environment, settings: Settings, arguments: list[str], said: str
) -> None:
    """On standard error: a script reads no rows."""
    run = dream(environment, *arguments)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", f"{said}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("dlq replay", "name the tasks by their IDs, or use --all"),
        ("dlq replay some --all", "name the tasks by their IDs, or use --all"),
        ("dlq purge", "name the tasks by their IDs, or use --all"),
        ("dlq purge some --older-than-days 1", "--older-than-days works with --all, not with IDs"),
        ("upload photo.jpg --dream-id 7 --timeout 1", "--timeout works only with --wait; nothing was done"),
        ("upload photo.jpg --dream-id 7 --position 1 --position 2", "1 file but 2 positions: each file needs one"),
        ("delete --dream-id 7 --yes --timeout 1", "--timeout works only with --wait; nothing was done"),
        ("reprocess", "use one of --dream-id, --all and --older-than; nothing was done"),
        ("token --user-id 12345678901234567890x" + 255 * "x", "user_id must be a whole number or a text of"),
        ("bridge replay", "name the messages by their IDs, or use --all"),
        ("bridge --from reddis://h/0", "--from must be redis://"),
        ("worker --queues nope", "--queues 'nope': use default or dream_image_processing"),
    ],
)
def test_a_command_line_that_does_not_fit_the_usage_ends_with_2(arguments: str, said: str) -> None:
    """No server is asked: none is there."""
    run = dream({}, *arguments.split(), DREAM_BROKER_URL="redis://127.0.0.1:9/0")
    assert (run.returncode, run.stdout) == (2, "")
    usage, *_, error = run.stderr.splitlines()
    assert usage.startswith("Usage: ")
    assert error.startswith(f"Error: {said}")


def test_a_warning_is_a_line_of_text_that_says_what_to_do(
    environment: Environment, settings: Settings, photo: Path
) -> None:
    """The broker is away: the upload is accepted all the same. Who wants JSON gets it."""
    away = {"DREAM_BROKER_URL": "redis://127.0.0.1:9/0"}
    run = dream(environment, "upload", photo, "--dream-id", 7, **away)
    assert (run.returncode, len(listed(environment))) == (0, 1)
    line = only_line(run.stderr)
    assert "message_deferred" in line
    assert "do='nothing for this task: it is accepted" in line
    assert "\x1b" not in line

    run = dream(environment, "upload", photo, "--dream-id", 7, **away, DREAM_LOG_FORMAT="json")
    assert json.loads(only_line(run.stderr))["event"] == "message_deferred"


def test_the_command_says_its_version() -> None:
    assert only_line(dream({}, "--version").stdout) == version("dream-pictures")


def test_the_command_line_is_light_to_import() -> None:
    """Each command imports what it needs when it runs: a worker's start pays for nothing else."""
    heavy = "{'sqlalchemy', 'redis', 'boto3', 'dramatiq', 'PIL', 'rich', 'jwt', 'pydantic', 'structlog', 'starlette'}"
    code = f"import sys, dream.cli; print(sorted({heavy} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert run.stdout.strip() == "[]", run.stderr
