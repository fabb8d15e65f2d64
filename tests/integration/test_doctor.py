"""`dream doctor` against servers that are well, wrong, reticent and away."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pika
import pytest
import redis
from sqlalchemy import make_url

from dream.cli.checks import is_too_old, judge_clock, judge_space
from dream.cli.findings import Outcome
from dream.db import Database, DreamImage, DreamTask
from dream.db.migrate import head
from dream.messages.registry import PROCESS_IMAGES
from dream.messages.states import ImageState
from dream.settings import Settings
from dream.storage import Storage
from dream.work.presence import services_there
from tests import sentinels
from tests.commands import dream, only_line
from tests.conftest import wait_for
from tests.processes import Parts
from tests.valkey import Valkey

Environment = dict[str, str]


def lines_of(run: subprocess.CompletedProcess[str], word: str, name: str) -> list[str]:
    """The report's lines with that word ("right", "wrong", …) about that check."""
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
        parts.start("scheduler")
        parts.start("gateway")
        wait_for(lambda: len(services_there(settings)) == 2, what="the scheduler and the gateway")
        run = dream(environment, "doctor")
    finally:
        parts.end()

    assert run.returncode == 0, run.stdout
    assert {line[:7] for line in run.stdout.splitlines()} == {"✓ right"}
    assert lines_of(run, "right", "workers") == ["one takes default, dream_image_processing"]
    assert [line.partition(":")[0] for line in lines_of(run, "right", "scheduler and gateway")] == [
        "scheduler",
        "gateway",
    ]
    assert services_there(settings) == {}  # those that were stopped have said so
    assert lines_of(run, "right", "broker's settings") == ["appendonly yes", "maxmemory-policy noeviction"]
    assert lines_of(run, "right", "migrations") == [f"at head ({head()})"]
    assert "in WAL mode" in lines_of(run, "right", "database")[0]
    assert list(Storage(settings).list_keys(settings.s3_bucket, "")) == []
    assert_no_secrets(run, environment)


def test_that_no_worker_answers_is_worth_a_look(environment: Environment, settings: Settings) -> None:
    """No failure: one may be about to start."""
    run = dream(environment, "doctor")
    assert run.returncode == 0
    assert lines_of(run, "warn", "workers") == ["none answers: tasks wait"]
    assert [line.partition(":")[0] for line in lines_of(run, "warn", "scheduler and gateway")] == [
        "no scheduler is running",
        "no gateway is running",
    ]
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


def test_all_wrong_settings_are_named_at_once_and_alone(environment: Environment) -> None:
    wrong = {"DREAM_BROKER_URL": "http://user:hunter2hunter2@host/", "DREAM_PORT": "65536", "DREAM_TIMEZONE": "Mars"}
    run = dream(environment, "doctor", **wrong)
    assert run.returncode == 2
    assert sorted(line.partition("=")[0] for line in lines_of(run, "wrong", "settings")) == sorted(wrong)
    assert {line[:7] for line in run.stdout.splitlines()} == {"✗ wrong", "       "}
    assert "hunter2" not in run.stdout


def test_a_variable_that_is_nearly_a_setting_is_told(environment: Environment, settings: Settings) -> None:
    """A project's own, or another's, is not."""
    run = dream(environment, "doctor", DREAM_BROKR_URL="redis://h", DREAM_HOME="/srv", BROKER_URL="redis://h")
    assert run.returncode == 0
    assert lines_of(run, "warn", "settings") == ["DREAM_BROKR_URL: unknown setting; it has no effect"]
    assert "did you mean DREAM_BROKER_URL?" in run.stdout


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
    assert lines_of(empty, "wrong", "migrations") == ["the database has no tables of dream yet"]


def test_a_bucket_that_is_missing_and_a_key_that_is_refused(environment: Environment, settings: Settings) -> None:
    missing = dream(environment, "doctor", DREAM_S3_BUCKET="not-there")
    assert missing.returncode == 1
    assert lines_of(missing, "wrong", "bucket") == ["the bucket not-there does not exist"]

    staging = dream(environment, "doctor", DREAM_S3_STAGING_BUCKET="not-there-either")
    assert staging.returncode == 1
    assert lines_of(staging, "wrong", "staging bucket") == ["the bucket not-there-either does not exist"]
    originals = dream(environment, "doctor", DREAM_KEEP_ORIGINALS="yes", DREAM_ORIGINALS_BUCKET="nor-there")
    assert lines_of(originals, "wrong", "originals bucket") == ["the bucket nor-there does not exist"]

    refused = dream(environment, "doctor", DREAM_S3_SECRET_KEY="another")
    assert refused.returncode == 1
    assert "refused" in lines_of(refused, "wrong", "bucket")[0]


def test_private_data_that_others_could_read_is_found(environment: Environment, settings: Settings) -> None:
    """Originals in a bucket of the public, and facts that were kept before the setting became `none`."""
    bucket = f"originals-{uuid4().hex}"
    store = Storage(settings)
    store.ensure_bucket(bucket)
    own = {"DREAM_KEEP_ORIGINALS": "yes", "DREAM_ORIGINALS_BUCKET": bucket}
    private = dream(environment, "doctor", **own)
    assert lines_of(private, "right", "privacy of originals")
    assert lines_of(private, "right", "privacy of facts") == ["no row has facts of a photo"]

    store._client.put_bucket_acl(Bucket=bucket, ACL="public-read")
    database = Database(settings)
    with database.begin() as session:
        session.add(DreamTask(id="t", name=PROCESS_IMAGES, args=[]))
        session.flush()
        about = {"storage_key": "dreams/20260101/1.jpg", "state": ImageState.COMPLETED, "facts": {"model": "Dreamer 9"}}
        session.add(DreamImage(dream_id=7, task_id="t", index=0, position=0, filename="a.jpg", **about))
    database.dispose()
    public = dream(environment, "doctor", **own)
    assert public.returncode == 1
    [line] = lines_of(public, "wrong", "privacy of originals")
    assert line == f"anybody can read the originals in {bucket} without credentials"
    assert "rows still have facts" in lines_of(public, "warn", "privacy of facts")[0]
    assert list(store.list_keys(bucket, "")) == []


def test_a_staging_folder_that_systemd_replaces_is_told(environment: Environment) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        run = dream(environment, "doctor", DREAM_STAGING_DIR=folder)
    assert "each systemd unit has a /var/tmp of its own" in lines_of(run, "warn", "staging folder")[0]


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
    front = {"DREAM_PUBLIC_URL": "https://cdn.example"}
    run = dream(environment, "doctor", **front, DREAM_MEDIA_MODE="proxy", DREAM_NEGOTIATE="yes")
    [line] = lines_of(run, "warn", "addresses")
    assert line.endswith("so these have no effect on them: DREAM_MEDIA_MODE=proxy and DREAM_NEGOTIATE")


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


@pytest.mark.parametrize(
    ("free_bytes", "outcome"),
    [(2**30, Outcome.RIGHT), (2**30 - 1, Outcome.WARNING), (100 * 2**20, Outcome.WARNING), (10**8, Outcome.WRONG)],
)
def test_a_disk_that_fills_is_worth_a_look_and_a_full_one_is_wrong(free_bytes: int, outcome: Outcome) -> None:
    finding = judge_space(free_bytes, "/data (staged uploads)")
    assert (finding.outcome, finding.said.endswith("free in /data (staged uploads)")) == (outcome, True)


def test_every_folder_that_dream_writes_to_is_looked_at(
    environment: Environment, settings: Settings, tmp_path: Path
) -> None:
    run = dream(environment, "doctor", DREAM_STAGING_DIR=str(tmp_path / "staging"))
    said = [line for word in ("right", "warn", "wrong") for line in lines_of(run, word, "disk space")]
    for folder in (
        f"{environment['DREAM_WORK_DIR']} (files",
        f"{tmp_path}/staging (staged",
        f"{tmp_path} (the database)",
    ):
        assert any(folder in line for line in said), run.stdout


def test_processes_of_other_versions_are_named(environment: Environment, settings: Settings) -> None:
    """No failure: an upgrade may be going on. A release that registers without a version is named, too."""
    with redis.Redis.from_url(settings.events_url) as client:
        clock = client.time()[0]
        key = f"{settings.redis_prefix}:parts"
        client.zadd(key, {"gateway@web1:7 0.0.9": clock, "scheduler@web2:8": clock})
        run = dream(environment, "doctor")
        client.delete(key)
    assert run.returncode == 0, run.stdout
    assert [line.partition(", this")[0] for line in lines_of(run, "warn", "versions")] == [
        "gateway web1:7 is of version 0.0.9",
        "scheduler web2:8 is of version unknown",
    ]
    assert lines_of(run, "right", "scheduler and gateway") == ["scheduler: web2:8", "gateway: web1:7"]


@pytest.mark.parametrize(("version", "too_old"), [("5.0.14", True), ("6.0.20", True), ("6.2.0", False), ("8.1", False)])
def test_a_redis_that_lacks_a_command_is_told(version: str, too_old: bool) -> None:
    """BLMOVE came with 6.2; a worker on an older one would take nothing."""
    assert is_too_old(version) is too_old
    assert not is_too_old("of unknown version")


# --- what keeps dream out, in one plain sentence each


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "check", "said"),
    [
        ({"DREAM_BROKER_URL": "redis://127.0.0.1:9/0"}, "broker", "nothing listens at this address"),
        ({"DREAM_BROKER_URL": "redis://nowhere.invalid/0"}, "broker", "the host's name is not known"),
        ({"DREAM_BROKER_URL": "{wrong}"}, "broker", "wrong password"),
        ({"DREAM_BROKER_URL": "{without}"}, "broker", "the server asks for a password, and none is given"),
        ({"DREAM_REDIS_URL": "{wrong}"}, "events", "wrong password"),
        ({"DREAM_DATABASE_URL": "postgresql://somebody@127.0.0.1:9/dream"}, "database", "nothing listens"),
        ({"DREAM_DATABASE_URL": "postgresql://somebody@nowhere.invalid/dream"}, "database", "name is not known"),
        ({"DREAM_S3_SECRET_KEY": "another"}, "bucket", "wrong S3 credentials"),
        ({"DREAM_S3_ENDPOINT_URL": "http://127.0.0.1:9"}, "bucket", "nothing answers at this address"),
    ],
)
def test_what_keeps_dream_out_is_said_plainly(
    environment: Environment, settings: Settings, variables: Environment, check: str, said: str
) -> None:
    at = urlsplit(environment["DREAM_BROKER_URL"])
    urls = {
        "wrong": f"redis://:hunter2hunter2@{at.hostname}:{at.port}/0",
        "without": f"redis://{at.hostname}:{at.port}/0",
    }
    run = dream(environment, "doctor", **{name: value.format(**urls) for name, value in variables.items()})
    assert run.returncode == 1
    assert said in lines_of(run, "wrong", check)[0]
    assert "hunter2" not in run.stdout


def test_a_wrong_password_of_postgresql_and_of_rabbitmq_is_called_that(
    environment: Environment, settings: Settings, postgres_server_url: str, local_rabbitmq_url: str
) -> None:
    """A server that trusts everybody asks for no password: there a role that is not there is refused."""
    rabbitmq = urlsplit(local_rabbitmq_url)
    wrong = {
        "DREAM_BROKER_URL": f"amqp://guest:hunter2hunter2@{rabbitmq.hostname}:{rabbitmq.port}/%2F",
        "DREAM_DATABASE_URL": make_url(postgres_server_url)
        .set(username="nobody_is_called_so", password="hunter2hunter2")
        .render_as_string(hide_password=False),
    }
    run = dream(environment, "doctor", **wrong)
    assert "wrong password" in lines_of(run, "wrong", "broker")[0]
    (database,) = lines_of(run, "wrong", "database")
    assert "wrong password" in database or 'role "nobody_is_called_so" does not exist' in database
    assert "did not answer" not in database
    assert "hunter2" not in run.stdout


def test_the_report_can_be_read_by_programs(environment: Environment, settings: Settings) -> None:
    run = dream(environment, "doctor", "--json", DREAM_BROKER_URL="redis://127.0.0.1:9/0", DREAM_REDIS_URL="")
    assert run.returncode == 1
    found = json.loads(run.stdout)
    assert {tuple(each) for each in found} == {("check", "outcome", "said", "advice")}
    outcomes = {each["check"]: each["outcome"] for each in found}
    assert (outcomes["broker"], outcomes["events"], outcomes["database"]) == ("wrong", "unchecked", "right")
    settings_alone = dream(environment, "doctor", "--json", DREAM_BROKER_URL="http://host")
    assert settings_alone.returncode == 2
    assert [each["check"] for each in json.loads(settings_alone.stdout)] == ["settings"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "word", "said"),
    [
        ("SELECT user_id, username FROM dreams WHERE id = :dream_id", "right", "runs; there is no picture yet"),
        ("SELECT 3, 'ann' WHERE :dream_id > 0", "right", "gives dream 1 to the user 3"),
        ("SELECT user_id, username FROM nowhere WHERE id = :dream_id", "wrong", "no such table: nowhere"),
        ("SELECT user_id FROM dreams WHERE id = :dream_id", "wrong", "gives 1 of the two columns"),
        ("SELECT username, user_id FROM dreams WHERE id = :dream_id OR 1", "right", "runs"),
        ("SELECT 'ann', 3 WHERE :dream_id > 0", "right", "gives dream 1 to the user ann, named '3'"),
        ("SELECT 1.5, 'ann' WHERE :dream_id > 0", "wrong", "gave the user_id 1.5"),
        ("SELEC user_id, username FROM dreams WHERE id = :dream_id", "wrong", "syntax error"),
    ],
)
def test_the_owners_query_is_tried(
    environment: Environment, settings: Settings, query: str, word: str, said: str
) -> None:
    run = dream(environment, "doctor", DREAM_OWNERS_SQL=query)
    assert run.returncode == (word == "wrong")
    assert said in lines_of(run, word, "owners")[0]


def test_each_sentinel_is_asked(environment: Environment, settings: Settings, tmp_path: Path) -> None:
    with sentinels.running(tmp_path) as there:
        gone, left = there.sentinel_ports[0], there.sentinel_ports[1:]
        there.kill(gone)
        run = dream(environment, "doctor", DREAM_BROKER_URL=there.url, DREAM_REDIS_URL="")
        master = there.redis_ports[0]
    assert lines_of(run, "right", "broker")[1:] == [  # after the line of Redis itself
        f"the sentinel 127.0.0.1:{port} knows {sentinels.SERVICE} at 127.0.0.1:{master}" for port in left
    ]
    assert lines_of(run, "warn", "broker")[0].startswith(f"the sentinel 127.0.0.1:{gone}: nothing listens")
    assert sentinels.PASSWORD not in run.stdout
    assert sentinels.SENTINELS_PASSWORD not in run.stdout


def test_redis_cluster_is_told_and_every_part_refuses_to_start_on_it(
    environment: Environment, settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        bus = free.getsockname()[1]
    node = Valkey(folder, "--cluster-enabled", "yes", "--cluster-port", str(bus))
    try:
        node.start()
        there = {"DREAM_BROKER_URL": node.url, "DREAM_REDIS_URL": ""}
        run = dream(environment, "doctor", **there)
        assert run.returncode == 1
        assert "Redis Cluster" in lines_of(run, "wrong", "broker")[0]
        for part in ("worker", "scheduler", "gateway"):
            refused = dream(environment, part, **there)
            assert refused.returncode == 2
            assert "names a node of a Redis Cluster" in only_line(refused.stderr)
    finally:
        node.kill()


def test_a_store_that_takes_no_files_from_pages_is_worth_a_look(environment: Environment, settings: Settings) -> None:
    """Only pages of other sites send files to the store, so a site without them is not asked to look."""
    pages = {"DREAM_ALLOWED_ORIGINS": "https://app.example.com,https://*.example.com"}
    found = []
    for origin in ("https://other.example.com", "https://app.example.com"):
        rule: Any = {"AllowedOrigins": [origin], "AllowedMethods": ["PUT"], "AllowedHeaders": ["content-type"]}
        rules: Any = {"CORSRules": [rule]}
        Storage(settings)._client.put_bucket_cors(Bucket=settings.staging_bucket, CORSConfiguration=rules)
        run = dream({**environment, **pages}, "doctor")
        found.append((lines_of(run, "warn", "direct uploads"), lines_of(run, "right", "direct uploads")))
    ([refused], none), (nothing, [taken]) = found
    assert none == nothing == []
    assert "takes no files from pages of https://app.example.com" in refused
    assert "takes files from pages of https://app.example.com" in taken
