"""Embedded servers and the caller's own servers under `dream up`."""

from __future__ import annotations

from pathlib import Path

import pytest

from dream.errors import SettingsError
from dream.stack.environment import (
    complete,
    described,
    for_process,
    own_values,
    printed,
    uses_seaweedfs,
    uses_valkey,
    without_own,
)

EMBEDDED = {
    "DREAM_BROKER_URL": "redis://:a@127.0.0.1:1/0",
    "DREAM_REDIS_URL": "redis://:a@127.0.0.1:1/0",
    "DREAM_DATABASE_URL": "sqlite:////data/dream.db",
    "DREAM_S3_ENDPOINT_URL": "http://127.0.0.1:2",
    "DREAM_S3_REGION": "us-east-1",
    "DREAM_S3_ACCESS_KEY": "embedded",
    "DREAM_S3_SECRET_KEY": "embedded too",
    "DREAM_S3_BUCKET": "dream",
    "DREAM_S3_ADDRESSING_STYLE": "path",
    "DREAM_STAGING_DIR": "/data/staging",
    "DREAM_PORT": "8000",
}
KEYS = {"DREAM_S3_ACCESS_KEY": "own", "DREAM_S3_SECRET_KEY": "own too"}


@pytest.mark.parametrize(
    ("given", "valkey", "seaweedfs"),
    [
        ({}, True, True),
        ({"DREAM_DATABASE_URL": "postgresql://h/d"}, True, True),
        ({"DREAM_BROKER_URL": "redis://h"}, False, True),
        ({"DREAM_BROKER_URL": "amqp://h"}, True, True),
        ({"DREAM_BROKER_URL": "amqp://h", "DREAM_REDIS_URL": "rediss://h"}, False, True),
        ({"DREAM_REDIS_URL": "redis://h"}, True, True),
        ({"DREAM_S3_ENDPOINT_URL": "https://h"}, True, False),
        (KEYS, True, False),
        ({"DREAM_S3_BUCKET": "mine"}, True, True),
    ],
)
def test_only_what_is_not_given_is_embedded(given: dict[str, str], valkey: bool, seaweedfs: bool) -> None:
    own = own_values(given, EMBEDDED)
    assert own == given
    assert (uses_valkey(own), uses_seaweedfs(own)) == (valkey, seaweedfs)
    variables = complete(own, EMBEDDED)
    assert variables.items() >= given.items()
    if not seaweedfs:
        assert {name for name in variables if name.startswith("DREAM_S3_")} == {
            name for name in given if name.startswith("DREAM_S3_")
        }
    if not valkey:
        assert EMBEDDED["DREAM_BROKER_URL"] not in variables.values()
    embedded, yours = described(own)
    assert ("Valkey" in embedded, "SeaweedFS" in embedded) == (valkey, seaweedfs)
    assert "own too" not in yours


def test_events_go_to_the_callers_broker_where_that_is_a_redis() -> None:
    assert "DREAM_REDIS_URL" not in complete({"DREAM_BROKER_URL": "redis://h"}, EMBEDDED)
    assert complete({"DREAM_BROKER_URL": "amqp://h"}, EMBEDDED)["DREAM_REDIS_URL"] == EMBEDDED["DREAM_REDIS_URL"]


def test_a_shell_that_was_pointed_at_the_last_run_names_no_server_of_its_own() -> None:
    """`eval "$(dream env)"`, Ctrl-C, `dream up` again, perhaps on another port; and nothing of it is left in a part."""
    assert own_values(EMBEDDED, EMBEDDED) == {}
    moved = EMBEDDED | {"DREAM_BROKER_URL": "redis://:a@127.0.0.1:9/0"}
    own = {"DREAM_S3_ENDPOINT_URL": "https://h"}
    part = for_process(EMBEDDED | own, complete(own, moved))
    assert part["DREAM_BROKER_URL"] == moved["DREAM_BROKER_URL"]
    assert "DREAM_S3_ACCESS_KEY" not in part


def test_another_shell_has_the_settings_of_pictures_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dream.media.sign` and `dream reprocess --variants` need the settings that `dream up` was started with."""
    monkeypatch.chdir(tmp_path)
    caller = {"PATH": "/bin", "dream_variants": "thumb:320", "DREAM_WIDTHS": "", "DREAM_SECRETS_DIR": "secrets"}
    old = {"DREAM_BROKER_URL": "redis://old", "DREAM_READY_FILE": "/r", "DREAM_PORT": "1"}
    shell = printed(caller | old, EMBEDDED)
    assert shell == EMBEDDED | {"DREAM_VARIANTS": "thumb:320", "DREAM_SECRETS_DIR": f"{tmp_path}/secrets"}
    assert "DREAM_PUBLIC_URL" not in printed({"DREAM_PUBLIC_URL": "https://left-out"}, EMBEDDED)


def test_secrets_files_and_other_spellings_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dream_database_url").write_text("postgresql://from-a-file/d\n")
    own = own_values({"DREAM_SECRETS_DIR": str(tmp_path), "dream_broker_url": "redis://h", "DREAM_REDIS_URL": ""}, {})
    assert own == {"DREAM_DATABASE_URL": "postgresql://from-a-file/d", "DREAM_BROKER_URL": "redis://h"}
    assert "dream_broker_url" not in for_process({"dream_broker_url": "redis://old"}, EMBEDDED)
    monkeypatch.chdir(tmp_path)
    relative = own_values({"DREAM_DATABASE_URL": "sqlite:///mine.db"}, {})
    assert relative == {"DREAM_DATABASE_URL": f"sqlite:///{tmp_path}/mine.db"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"DREAM_S3_ACCESS_KEY": "a"}, "DREAM_S3_SECRET_KEY is not"),
        ({"DREAM_S3_SECRET_KEY": "a", "DREAM_S3_ENDPOINT_URL": "http://h"}, "DREAM_S3_ACCESS_KEY is not"),
        ({"DREAM_PUBLIC_URL": "https://cdn"}, "DREAM_PUBLIC_URL is set, but"),
        ({"DREAM_S3_ADDRESSING_STYLE": "virtual"}, "DREAM_S3_ADDRESSING_STYLE is set, but"),
    ],
)
def test_what_cannot_be_honoured_is_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        own_values(given, EMBEDDED)


def test_the_demo_leaves_the_callers_servers_alone() -> None:
    caller = {
        "PATH": "/bin",
        "DREAM_DATABASE_URL": "postgresql://h/d",
        "dream_s3_bucket": "b",
        "DREAM_LOG_LEVEL": "info",
    }
    left, names = without_own(caller)
    assert left == {"PATH": "/bin", "DREAM_LOG_LEVEL": "info"}
    assert sorted(names) == ["DREAM_DATABASE_URL", "dream_s3_bucket"]


@pytest.mark.parametrize("password", ["secret", "se/cret", "s@se/cret", "s cret", "'secret'"])
def test_what_is_told_of_the_callers_servers_has_no_password(password: str) -> None:
    """SQLAlchemy takes a password with a slash."""
    own = own_values({"DREAM_DATABASE_URL": f"postgresql://u:{password}@h/d", "DREAM_BROKER_URL": "redis://h"}, {})
    _, yours = described(own)
    assert "cret" not in yours
    assert set(yours.split(", ")) >= {"DREAM_DATABASE_URL=postgresql://***@h/d", "DREAM_BROKER_URL=redis://h"}
