"""Without the packages of extras: SQLite and Redis suffice for pictures, and PostgreSQL and RabbitMQ ask for theirs."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from dream.settings import Settings
from tests.commands import only_line
from tests.pictures import noise
from tests.processes import Parts

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
OF_EXTRAS = ("cryptography", "pika", "psycopg", "opentelemetry", "sentry_sdk", "django")


@pytest.fixture
def bare(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """An environment in which Python finds every installed package but these."""
    site = tmp_path / "site"
    site.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.lower().startswith(OF_EXTRAS) and entry.suffix != ".pth":
            (site / entry.name).symlink_to(entry)
    (site / "dream").unlink(missing_ok=True)
    (site / "dream").symlink_to(ROOT / "dream")
    return {**environment, "PYTHONPATH": str(site)}


def dream(environment: dict[str, str], *arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, **environment, **changes}
    command = [sys.executable, "-S", "-m", "dream", *map(str, arguments)]
    return subprocess.run(command, env=own, cwd="/", capture_output=True, text=True, timeout=60, check=False)


def test_pictures_are_uploaded_without_them(bare: dict[str, str], settings: Settings, tmp_path: Path) -> None:
    find = f"from importlib.util import find_spec; print([name for name in {OF_EXTRAS} if find_spec(name)])"
    found = subprocess.run(
        [sys.executable, "-S", "-c", find], env={**os.environ, **bare}, cwd="/", capture_output=True, text=True
    )
    assert found.stdout.strip() == "[]"
    (tmp_path / "a.jpg").write_bytes(noise())
    folder = tmp_path / "parts"
    folder.mkdir()
    parts = Parts(bare, folder)
    try:
        parts.start("worker", program=("-S", "-m", "dream"))
        uploaded = dream(bare, "upload", tmp_path / "a.jpg", "--dream-id", 1, "--wait")
        assert uploaded.returncode == 0, uploaded.stderr
        assert settings.media_url in uploaded.stdout
    finally:
        parts.end()


@pytest.mark.parametrize(
    ("arguments", "changes", "told"),
    [
        (
            ["migrate"],
            {"DREAM_DATABASE_URL": "postgresql://ann:s3cret@h/d"},
            "postgresql:// needs the package psycopg: pip install 'dream-pictures[postgres]'",
        ),
        (
            ["worker"],
            {"DREAM_BROKER_URL": "amqp://ann:s3cret@h//", "DREAM_REDIS_URL": "redis://h/0"},
            "amqp:// needs the package pika: pip install 'dream-pictures[rabbitmq]'",
        ),
        (
            ["bridge", "--from", "amqp://ann:s3cret@h//"],
            {},
            "--from amqp:// needs the package pika: pip install 'dream-pictures[rabbitmq]'",
        ),
        (
            ["worker"],
            {"DREAM_TRACING": "otlp"},
            "it needs the package opentelemetry.exporter.otlp.proto.http: pip install 'dream-pictures[otel]'",
        ),
        (
            ["worker"],
            {"DREAM_SENTRY_DSN": "http://s3cret@127.0.0.1:1/1"},
            "DREAM_SENTRY_DSN needs Sentry's SDK: pip install 'dream-pictures[sentry]'",
        ),
        (
            ["gateway"],
            {"DREAM_JWT_JWKS": "https://id.example.org/keys"},
            "DREAM_JWT_JWKS needs the package cryptography: pip install 'dream-pictures[jwt]'",
        ),
    ],
    ids=["psycopg", "pika", "pika of the bridge", "opentelemetry", "sentry_sdk", "cryptography"],
)
def test_the_package_that_is_missing_is_named_in_a_line(
    bare: dict[str, str], arguments: list[str], changes: dict[str, str], told: str
) -> None:
    outcome = dream(bare, *arguments, **changes)
    assert outcome.returncode == 2, outcome.stderr
    assert only_line(outcome.stderr).endswith(told)
    assert "s3cret" not in outcome.stderr


def test_the_doctor_names_the_missing_package_for_traces_and_reports(bare: dict[str, str], settings: Settings) -> None:
    traced = dream(bare, "doctor", DREAM_TRACING="otlp")
    assert traced.returncode == 2
    assert "dream-pictures[otel]" in traced.stdout
    reported = dream(bare, "doctor", DREAM_SENTRY_DSN="http://s3cret@127.0.0.1:1/1")
    assert reported.returncode == 1
    assert "dream-pictures[sentry]" in reported.stdout
    assert "s3cret" not in reported.stdout
