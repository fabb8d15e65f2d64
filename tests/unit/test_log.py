"""Logs: one line an event, JSON where nobody watches, no secrets; inside another application, its own plain lines."""

from __future__ import annotations

import io
import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream.log import bind, configure, get_logger, redact
from dream.settings import Settings

SECRET = "abracadabra"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyX2lkIjo3fQ.c2lnbmF0dXJl"


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, given back as it was."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("botocore", "dramatiq", "pika")}
    yield root
    root.handlers[:], root.level = before[0], before[1]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def lines(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard error of a process of ours that logs JSON."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure(Settings(log_format="json"))
    return stream


def only(lines: io.StringIO) -> dict[str, Any]:
    [line] = lines.getvalue().splitlines()
    parsed: dict[str, Any] = json.loads(line)
    return parsed


# --- redaction


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    [
        *("x", "eyJaaaaa-", "eyJaaaaa.", "a://", "a://b:c", "redis://", "Bearer ", "token=", "@"),
        *("token='", "authorization:", "secret_"),
    ],
)
def test_a_long_text_is_redacted_in_no_time(piece: str) -> None:
    """A task that fails is logged with its arguments; a worker that searches them for minutes counts as dead."""
    text = piece * (1_000_000 // len(piece))
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"redis://:{SECRET}@host:6379/0", "redis://***@host:6379/0"),
        (f'{{"password": "{SECRET} 2", "id": "7"}}', '{"password": "***", "id": "7"}'),
        (f"{{'s3_secret_key': '{SECRET}', 'id': '7'}}", "{'s3_secret_key': '***', 'id': '7'}"),
        (f'sent {{\\"token\\": \\"{SECRET}\\"}}', 'sent {\\"token\\": \\"***\\"}'),
        (f"host=h password='{SECRET} 2' dbname=d", "host=h password='***' dbname=d"),
        (f"DREAM_S3_SECRET_KEY={SECRET}", "DREAM_S3_SECRET_KEY=***"),
        (f"{{'Authorization': 'Basic {SECRET}=='}}", "{'Authorization': 'Basic ***'}"),
        (f"authorization=Basic%20{SECRET}", "authorization=Basic%20***"),
        (f"amqps://user:{SECRET}@host/%2F", "amqps://***@host/%2F"),
        (f"postgresql+psycopg://user:{SECRET}@host/db", "postgresql+psycopg://***@host/db"),
        (f"redis://:p@{SECRET}@host/0", "redis://***@host/0"),
        (f"redis://:p/{SECRET}@host/0", "redis://***@host/0"),
        (
            f"cannot use postgresql+psycopg://ann:p/{SECRET}@host/db now",
            "cannot use postgresql+psycopg://***@host/db now",
        ),
        (
            f"sentinel://ann:{SECRET}@one:1,two:2/pictures/0?sentinel_password={SECRET}&db=1",
            "sentinel://***@one:1,two:2/pictures/0?sentinel_password=***&db=1",
        ),
        (f"GET /ws/dream-images/7/?token={SECRET}&since=1-0", "GET /ws/dream-images/7/?token=***&since=1-0"),
        (f'"GET /?access_token={SECRET} HTTP/1.1"', '"GET /?access_token=*** HTTP/1.1"'),
        (
            f"https://h/k?X-Amz-Credential={SECRET}%2F20260101&X-Amz-Expires=300&X-Amz-Signature={SECRET}",
            "https://h/k?X-Amz-Credential=***&X-Amz-Expires=300&X-Amz-Signature=***",
        ),
        (f"https://h/k?X-Amz-Security-Token={SECRET}", "https://h/k?X-Amz-Security-Token=***"),
        (f"https://h/k?OSSAccessKeyId={SECRET}&Signature={SECRET}", "https://h/k?OSSAccessKeyId=***&Signature=***"),
        (f"https://h/k?AWSAccessKeyId={SECRET}&Expires=1", "https://h/k?AWSAccessKeyId=***&Expires=1"),
        (f"https://h/k?x-oss-signature={SECRET}", "https://h/k?x-oss-signature=***"),
        (f"https://h/k?x-oss-credential={SECRET}", "https://h/k?x-oss-credential=***"),
        (f"Authorization: Bearer {SECRET}", "Authorization: Bearer ***"),
        (f"password={SECRET} user=bob", "password=*** user=bob"),
        (f"the token {JWT} has expired", "the token *** has expired"),
    ],
)
def test_secrets_are_taken_out_of_a_text(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3 pictures ready",
        "tokens: DREAM_JWT_SECRET is set",
        "{'token': None, 'task_name': 'cleanup_expired_tokens'}",
        "https://dream.example/media/dreams/20260101/0123456789abcdef0123456789abcdef.jpg",
        "redis://host:6379/0",
        "mail bob@example.com about https://h/a",
        "task 6f0c2f9e-5f0e-4a8e-9d6e-0d7f3a1b2c3d",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@given(
    password=st.text(
        st.characters(codec="ascii", exclude_characters="/\"' ", exclude_categories=["C", "Z"]), min_size=6
    ),
    host=st.sampled_from(["host", "host:6379", "127.0.0.1"]),
)
def test_no_password_of_a_url_survives(password: str, host: str) -> None:
    assert redact(f"redis://user:{password}@{host}/0") == f"redis://***@{host}/0"


# --- our own processes


def test_a_line_is_one_json_object_with_its_fields(lines: io.StringIO) -> None:
    get_logger("dream.test").info("upload_accepted", task_id="t", files=3)
    line = only(lines)
    timestamp = line.pop("timestamp")
    assert timestamp.endswith("Z")
    assert line == {"event": "upload_accepted", "level": "info", "logger": "dream.test", "task_id": "t", "files": 3}


def test_a_text_of_several_lines_stays_on_one(lines: io.StringIO) -> None:
    get_logger("dream.test").info("said", text="one\ntwo")
    assert only(lines)["text"] == "one\ntwo"


def test_bound_fields_are_on_every_line_inside_and_none_outside(lines: io.StringIO) -> None:
    log = get_logger("dream.test")
    with bind(task_id="t"):
        log.info("inside")
    log.info("outside")
    inside, outside = (json.loads(line) for line in lines.getvalue().splitlines())
    assert inside["task_id"] == "t"
    assert "task_id" not in outside


def test_lines_of_libraries_have_the_same_form(lines: io.StringIO) -> None:
    with bind(task_id="t"):
        logging.getLogger("uvicorn.access").info('%s - "GET %s"', "127.0.0.1", f"/ws/?token={SECRET}")
    line = only(lines)
    assert line["event"] == '127.0.0.1 - "GET /ws/?token=***"'
    assert (line["logger"], line["level"], line["task_id"]) == ("uvicorn.access", "info", "t")


@pytest.mark.parametrize(
    "value",
    [
        f"https://h/?token={SECRET}",
        [f"redis://:{SECRET}@host/0"],
        {"url": f"redis://:{SECRET}@host/0"},
        {"headers": {"X-Api_Key": SECRET, "password": SECRET}},
        ({"deep": [f"Bearer {SECRET}"]},),
        OSError(f"no answer from redis://:{SECRET}@host/0"),
    ],
)
def test_a_field_shows_no_secret_however_deep_it_lies(lines: io.StringIO, value: object) -> None:
    get_logger("dream.test").warning("asked", value=value)
    assert SECRET not in lines.getvalue()
    assert "***" in json.dumps(only(lines)["value"])


def test_plain_values_stay_what_they_are(lines: io.StringIO) -> None:
    get_logger("dream.test").info("x", a=1, b=1.5, c=True, d=None, e=[1, "two"], f={"g": 2})
    line = only(lines)
    assert [line[name] for name in "abcdef"] == [1, 1.5, True, None, [1, "two"], {"g": 2}]


def fail() -> None:
    password = f"redis://:{SECRET}@host/0"
    raise OSError(f"no answer from {password}")


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("whose", ["ours", "library"])
def test_an_exception_is_told_with_its_stack_and_without_secrets(
    root: logging.Logger, monkeypatch: pytest.MonkeyPatch, log_format: Any, whose: str
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure(Settings(log_format=log_format))
    log: Any = get_logger("dream.test") if whose == "ours" else logging.getLogger("library")
    try:
        fail()
    except OSError:
        log.exception("failed")
    text = stream.getvalue()
    assert "Traceback" in text
    assert "in fail" in text
    assert "redis://***@host/0" in text
    assert SECRET not in text
    if log_format == "json":
        assert only(stream)["level"] == "error"


def test_lines_below_the_level_are_not_written(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure(Settings(log_format="json", log_level="warning"))
    get_logger("dream.test").info("quiet")
    get_logger("dream.test").warning("loud")
    assert only(stream)["event"] == "loud"


def test_without_a_terminal_the_format_is_json(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure(Settings(log_format="auto"))
    get_logger("dream.test").info("hello")
    assert only(stream)["event"] == "hello"


def test_on_a_terminal_the_format_is_for_people(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    configure(Settings(log_format="auto"))
    get_logger("dream.test").info("hello", files=3)
    assert "hello" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_configuring_twice_does_not_double_lines(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    for _ in range(2):
        configure(Settings(log_format="json"))
    get_logger("dream.test").info("once")
    assert only(stream)["event"] == "once"


# --- inside another application


def test_a_hosts_own_handler_sees_plain_text_without_secrets(root: logging.Logger) -> None:
    """A web project that never calls `configure` reads our lines as its own, with names and levels."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    with bind(dream_id=7):
        get_logger("dream.producer").info("upload_accepted", task_id="t", url=f"redis://:{SECRET}@host/0")
    get_logger("dream.producer").debug("not asked for")
    assert stream.getvalue().startswith("INFO dream.producer: upload_accepted ")
    assert sorted(stream.getvalue().split()[3:]) == ["dream_id=7", "task_id=t", "url=redis://***@host/0"]


def test_what_a_host_finds_in_the_record_has_no_secrets_either(
    root: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        get_logger("dream.producer").info("100% done", url=f"redis://:{SECRET}@host/0", count=2)
    [record] = caplog.records
    assert record.getMessage() == "100% done url=redis://***@host/0 count=2"
    assert SECRET not in repr(vars(record))


def test_a_hosts_handler_gets_the_exception(root: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise KeyError("x")
    except KeyError:
        get_logger("dream.producer").exception("failed")
    [record] = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError
