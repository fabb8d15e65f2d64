"""`dream doctor` against servers that are well, wrong, reticent and away."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pika
import pytest
import redis

from dream.cli.broker_checks import is_too_old
from dream.cli.checks import judge_clock
from dream.cli.findings import Outcome
from dream.db.migrate import head
from dream.settings import Settings
from dream.storage import Storage
from tests.commands import dream, only_line
from tests.processes import Parts

Environment = dict[str, str]


def lines_of(run: subprocess.CompletedProcess[str], word: str, name: str) -> list[str]:
    """What the report says with that word ("right", "wrong", …) of that check."""
    marks = {"right": "✓", "warn": "!", "wrong": "✗", "skip": "-"}
    start = f"{marks[word]} {word:5}  {name}: "
    return [line.removeprefix(start) for line in run.stdout.splitlines() if line.startswith(start)]


def assert_no_secrets(run: subprocess.CompletedProcess[str], environment: Environment) -> None:
    password = urlsplit(environment["DREAM_BROKER_URL"]).password or ""
    secrets = (password, environment["DREAM_S3_SECRET_KEY"], environment["DREAM_JWT_SECRET"])
    assert not [secret for secret in secrets if secret in run.stdout + run.stderr]


def test_all_is_well(environment: Environment, settings: Settings, tmp_path: Path) -> None:
    """Every line is right, exit 0, no secret is shown, and nothing of it stays in the bucket."""
    folder = tmp_path / "parts"
    folder.mkdir()
    parts = Parts(environment, folder)
    try:
        parts.start("worker", DREAM_WORKER_NAME="one")
        run = dream(environment, "doctor")
    finally:
        parts.end()

    assert run.returncode == 0, run.stdout
    assert {line[:7] for line in run.stdout.splitlines()} == {"✓ right"}
    assert lines_of(run, "right", "workers") == ["one takes default, dream_image_processing"]
    assert lines_of(run, "right", "broker's settings") == ["appendonly yes", "maxmemory-policy noeviction"]
    assert lines_of(run, "right", "migrations") == [f"at head ({head()})"]
    assert "in WAL mode" in lines_of(run, "right", "database")[0]
    assert list(Storage(settings).list_keys(settings.s3_bucket, "")) == []
    assert_no_secrets(run, environment)


def test_that_no_worker_answers_is_worth_a_look(environment: Environment, settings: Settings) -> None:
    """No failure: one may be about to start."""
    run = dream(environment, "doctor")
    assert run.returncode == 0
    assert lines_of(run, "warn", "workers") == ["none answers: what is sent there waits"]
    assert "dream worker" in run.stdout


def test_what_is_away_is_wrong_and_what_depends_on_it_is_left_open(environment: Environment) -> None:
    """Nothing answers: each thing has a line and advice, exit 1, no traceback, no secret."""
    away = {
        "DREAM_BROKER_URL": "redis://:hunter2hunter2@127.0.0.1:9/0",
        "DREAM_REDIS_URL": "",
        "DREAM_DATABASE_URL": "postgresql://somebody:hunter2hunter2@127.0.0.1:9/dream",
        "DREAM_S3_ENDPOINT_URL": "http://127.0.0.1:9",
    }
    run = dream(environment, "doctor", **away)

    assert (run.returncode, run.stderr) == (1, "")
    for name in ("broker", "database", "bucket"):
        assert lines_of(run, "wrong", name), run.stdout
    for name in ("broker's settings", "events", "workers", "migrations", "clock of the database", "clock of Redis"):
        assert "not checked" in lines_of(run, "skip", name)[0]
    assert lines_of(run, "right", "tokens")
    assert "hunter2" not in run.stdout
    assert_no_secrets(run, environment)


def test_a_wrong_setting_is_the_first_and_only_line(environment: Environment) -> None:
    run = dream(environment, "doctor", DREAM_BROKER_URL="http://user:hunter2hunter2@host/")
    assert run.returncode == 1
    assert "DREAM_BROKER_URL" in lines_of(run, "wrong", "settings")[0]
    assert "hunter2" not in run.stdout


def test_a_variable_that_is_nearly_a_setting_is_told(environment: Environment, settings: Settings) -> None:
    """A project's own, or another's, is not."""
    run = dream(environment, "doctor", DREAM_BROKR_URL="redis://h", DREAM_HOME="/srv", BROKER_URL="redis://h")
    assert run.returncode == 0
    assert lines_of(run, "warn", "settings") == ["DREAM_BROKR_URL is no setting, and nothing reads it"]
    assert "DREAM_BROKER_URL is one" in run.stdout


def test_a_database_without_tables_and_one_that_is_not_there(environment: Environment, settings: Settings) -> None:
    """Both say `dream migrate`; to look at a file that is not there does not make it."""
    path = settings.database_url.removeprefix("sqlite:///") + ".other"
    other = {"DREAM_DATABASE_URL": f"sqlite:///{path}"}
    missing = dream(environment, "doctor", **other)
    assert lines_of(missing, "wrong", "database") == [f"there is no database at {path}"]
    assert "dream migrate" in missing.stdout
    assert lines_of(dream(environment, "doctor", **other), "wrong", "database")

    assert dream(environment, "images", "--dream-id", 1, **other).returncode == 1  # this makes an empty file
    empty = dream(environment, "doctor", **other)
    assert empty.returncode == 1
    assert lines_of(empty, "wrong", "migrations") == ["the database has no tables of ours yet"]


def test_a_bucket_that_is_missing_and_a_key_that_is_refused(environment: Environment, settings: Settings) -> None:
    missing = dream(environment, "doctor", DREAM_S3_BUCKET="not-there")
    assert missing.returncode == 1
    assert lines_of(missing, "wrong", "bucket") == ["the bucket not-there does not exist"]

    staging = dream(environment, "doctor", DREAM_S3_STAGING_BUCKET="not-there-either")
    assert staging.returncode == 1
    assert lines_of(staging, "wrong", "staging bucket") == ["the bucket not-there-either does not exist"]

    refused = dream(environment, "doctor", DREAM_S3_SECRET_KEY="another")
    assert refused.returncode == 1
    assert "refused" in lines_of(refused, "wrong", "bucket")[0]


def test_a_staging_folder_is_tried_out(environment: Environment, settings: Settings, tmp_path: Path) -> None:
    right = dream(environment, "doctor", DREAM_STAGING_DIR=str(tmp_path / "staging"))
    assert right.returncode == 0
    assert "written, read and deleted" in lines_of(right, "right", "staging folder")[0]
    assert {path.name for path in (tmp_path / "staging").iterdir()} == {"id", ".id"}

    (tmp_path / "file").touch()
    wrong = dream(environment, "doctor", DREAM_STAGING_DIR=str(tmp_path / "file" / "staging"))
    assert wrong.returncode == 1
    assert "Not a directory" in lines_of(wrong, "wrong", "staging folder")[0]
    assert "DREAM_STAGING_DIR" in wrong.stdout


def test_a_key_for_tokens_that_is_missing_or_short(environment: Environment, settings: Settings) -> None:
    for value, said in (("", "missing"), ("short", "too short")):
        run = dream(environment, "doctor", DREAM_JWT_SECRET=value)
        assert run.returncode == 1
        assert said in lines_of(run, "wrong", "tokens")[0]


def test_addresses_that_do_not_go_together_are_worth_a_look(environment: Environment, settings: Settings) -> None:
    """No failure: a proxy may stand between."""
    run = dream(environment, "doctor", DREAM_HOST="0.0.0.0")  # noqa: S104 (only named)
    assert run.returncode == 0
    assert lines_of(run, "warn", "addresses")


@pytest.fixture
def reticent_url(environment: Environment) -> Iterator[str]:
    """The broker, for a user who may not read its settings, as managed servers have it."""
    name = f"u{uuid4().hex[:8]}"
    parts = urlsplit(environment["DREAM_BROKER_URL"])
    with redis.Redis.from_url(environment["DREAM_BROKER_URL"]) as admin:
        admin.acl_setuser(
            name, enabled=True, passwords=["+managed"], keys=["*"], channels=["*"], commands=["+@all", "-config"]
        )
        yield f"redis://{name}:managed@{parts.hostname}:{parts.port}/0"
        admin.acl_deluser(name)


def test_a_managed_redis_that_hides_its_settings_is_no_failure(
    environment: Environment, settings: Settings, reticent_url: str
) -> None:
    run = dream(environment, "doctor", DREAM_BROKER_URL=reticent_url)
    assert run.returncode == 0, run.stdout
    assert "does not show its settings" in only_line("\n".join(lines_of(run, "warn", "broker's settings")))


@pytest.fixture
def evicting(environment: Environment) -> Iterator[None]:
    with redis.Redis.from_url(environment["DREAM_BROKER_URL"]) as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
        yield
        admin.config_set("maxmemory-policy", "noeviction")


def test_a_broker_that_may_drop_messages_is_wrong(environment: Environment, settings: Settings, evicting: None) -> None:
    run = dream(environment, "doctor")
    assert run.returncode == 1
    assert "allkeys-lru, not noeviction" in lines_of(run, "wrong", "broker's settings")[0]
    assert "CONFIG SET maxmemory-policy noeviction" in run.stdout


def test_postgresql_and_rabbitmq(
    environment: Environment, settings: Settings, postgres_url: str, local_rabbitmq_url: str
) -> None:
    """Both answer; a queue of another kind under our name is told with the way out."""
    prefix = f"t{uuid4().hex[:8]}_"
    there = {
        "DREAM_DATABASE_URL": postgres_url,
        "DREAM_BROKER_URL": local_rabbitmq_url,
        "DREAM_REDIS_URL": environment["DREAM_REDIS_URL"],
        "DREAM_QUEUE_PREFIX": prefix,
    }
    queues = [f"{prefix}{name}{end}" for name in ("default", "dream_image_processing") for end in ("", ".DQ", ".XQ")]
    connection = pika.BlockingConnection(pika.URLParameters(local_rabbitmq_url))
    try:
        well = dream(environment, "doctor", **there)
        assert well.returncode == 0, well.stdout
        assert "PostgreSQL" in lines_of(well, "right", "database")[0]
        assert lines_of(well, "right", "broker's queues")
        assert "the database's clock" in lines_of(well, "right", "clock of the database")[0]

        channel = connection.channel()
        channel.queue_delete(f"{prefix}default")
        channel.queue_declare(f"{prefix}default", durable=True)
        taken = dream(environment, "doctor", **there)
        assert taken.returncode == 1
        assert "DREAM_QUEUE_PREFIX" in lines_of(taken, "wrong", "broker's queues")[0]
    finally:
        cleaner = connection.channel()
        for queue in queues:
            cleaner.queue_delete(queue)
        connection.close()


@pytest.mark.parametrize(
    ("ahead_s", "outcome"),
    [(0, Outcome.RIGHT), (-1.9, Outcome.RIGHT), (2.5, Outcome.WARNING), (-59, Outcome.WARNING), (61, Outcome.WRONG)],
)
def test_clocks_may_differ_by_two_seconds_and_must_not_by_sixty(ahead_s: float, outcome: Outcome) -> None:
    finding = judge_clock(ahead_s, "the clock")
    assert finding.outcome is outcome
    assert ("behind" in finding.said) == (outcome is not Outcome.RIGHT and ahead_s < 0)


@pytest.mark.parametrize(("version", "too_old"), [("5.0.14", True), ("6.0.20", True), ("6.2.0", False), ("8.1", False)])
def test_a_redis_that_lacks_a_command_is_told(version: str, too_old: bool) -> None:
    """BLMOVE came with 6.2; a worker on an older one would take nothing."""
    assert is_too_old(version) is too_old
    assert not is_too_old("of unknown version")
