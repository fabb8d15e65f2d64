"""Settings: read once from the environment, checked, frozen; a wrong value is one line that names the variable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from dream.errors import SettingsError
from dream.settings import MAX_URL_LENGTH, Settings, load
from dream.storage.keys import canonical_url


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """`load` reads once a process; each test is a process of its own here."""
    load.cache_clear()
    yield
    load.cache_clear()


def test_defaults_are_those_of_the_contract() -> None:
    settings = Settings()
    policy = (settings.max_retries, settings.retry_first_s, settings.retry_factor, settings.retry_max_s)
    assert policy == (5, 60, 1.5, 600)
    assert settings.retry_jitter == 0
    assert settings.time_limit_s == 300
    assert settings.worker_threads == 4
    assert settings.ping_interval_s == 15
    assert settings.jwt_algorithms == ("HS256",)
    assert settings.max_image_bytes == 1048576


def test_a_setting_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_WORKER_THREADS", "9")
    monkeypatch.setenv("DREAM_JWT_ALGORITHMS", "HS256, RS256")
    assert load().worker_threads == 9
    assert load().jwt_algorithms == ("HS256", "RS256")


def test_the_environment_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = load()
    monkeypatch.setenv("DREAM_WORKER_THREADS", "9")
    assert load() is before


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_PUBLIC_URL", "")
    assert load().public_url is None


def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_OF_SOMEBODY_ELSE", "x")
    assert load() == Settings()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().worker_threads = 1  # type: ignore[misc]


def test_secrets_do_not_show_in_the_representation() -> None:
    shown = repr(Settings(jwt_secret="abracadabra", s3_secret_key="open-sesame"))
    assert "abracadabra" not in shown
    assert "open-sesame" not in shown


def test_a_secret_is_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dream_jwt_secret").write_text("from-a-file\n")
    monkeypatch.setenv("DREAM_SECRETS_DIR", str(tmp_path))
    secret = load().jwt_secret
    assert secret is not None
    assert secret.get_secret_value() == "from-a-file"


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dream_jwt_secret").write_text("from-a-file")
    monkeypatch.setenv("DREAM_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("DREAM_JWT_SECRET", "from-the-environment")
    secret = load().jwt_secret
    assert secret is not None
    assert secret.get_secret_value() == "from-the-environment"


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_secrets_folder_that_is_none_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = tmp_path / kind
    if kind == "file":
        path.write_text("")
    monkeypatch.setenv("DREAM_SECRETS_DIR", str(path))
    with pytest.raises(SettingsError, match=r"DREAM_SECRETS_DIR=.* must be a folder"):
        load()


WRONG = {
    "DREAM_BROKER_URL": ["kafka://host", "host:6379"],
    "DREAM_REDIS_URL": ["amqp://host"],
    "DREAM_DATABASE_URL": ["mysql://host/db", "dream.db"],
    "DREAM_DATABASE_SCHEMA": ["Dream", "1st", "pg_own", "information_schema", "a b", 'a"b', "a" * 64],
    "DREAM_OWNERS_SQL": [
        "SELECT 1, 2",
        "SELECT 1, 2 WHERE :dream = 1",
        "SELECT :dream_id, :user",
        "SELECT 1::dream_id",
    ],
    "DREAM_QUEUE_PREFIX": ["-x", "with space"],
    "DREAM_S3_ENDPOINT_URL": ["s3.example.com", "ftp://example.com"],
    "DREAM_S3_BUCKET": ["Upper", "with_underscore", "{user}", "a" * 64, "a{b"],
    "DREAM_S3_ADDRESSING_STYLE": ["sideways"],
    "DREAM_SIGN_WINDOW_S": ["-1", "604801", "1.5", "a day"],
    "DREAM_MEDIA_FORGET_S": ["-1", "604801", "soon"],
    "DREAM_PRESIGN_TTL_S": ["0", "604801", "soon"],
    "DREAM_PUBLIC_URL": ["cdn.example.com", "https://cdn.example.com/?a=b", "https://cdn.example.com/#a"],
    "DREAM_GATEWAY_URL": [f"https://example.com/{'a' * 200}"],
    "DREAM_MAX_UPLOAD_BYTES": ["0", "-1", "1.5"],
    "DREAM_MAX_EDGE_PX": ["15", "16384"],
    "DREAM_VARIANTS": [
        "thumb",
        "thumb:",
        "thumb:320px",
        "thumb:15",
        "thumb:16384",
        "Thumb:320",
        "a.b:320",
        "a/b:320",
        ":320",
        "thumb:320,",
        "thumb:320;medium:640",
        "thumb:320,thumb:640",
        f"{'a' * 33}:320",
        ",".join(f"v{number}:320" for number in range(11)),
    ],
    "DREAM_WORKER_THREADS": ["0"],
    "DREAM_MAX_RETRIES": ["-1"],
    "DREAM_RETRY_FACTOR": ["0.9"],
    "DREAM_RETRY_JITTER": ["1.1"],
    "DREAM_TIME_LIMIT_S": ["0", "inf", "nan"],
    "DREAM_PORT": ["65536"],
    "DREAM_JWT_ALGORITHMS": ["none", "HS256,None"],
    "DREAM_TIMEZONE": ["Middle/Earth", "/etc/passwd"],
    "DREAM_LOG_LEVEL": ["loud"],
    "DREAM_LOG_FORMAT": ["xml"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_one_line_with_name_value_and_reason(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    line = str(caught.value)
    assert line.startswith(f"{name}=")
    assert value in line
    assert " is wrong: " in line
    assert "\n" not in line


def test_a_wrong_value_does_not_show_the_password_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_BROKER_URL", "kafka://user:abracad@bra@host")
    with pytest.raises(SettingsError) as caught:
        load()
    assert "abracad" not in str(caught.value)
    assert "bra@" not in str(caught.value)
    assert "***@host" in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"DREAM_S3_BUCKET": "pictures-{username}"}, "DREAM_S3_STAGING_BUCKET must be set"),
        ({"DREAM_BROKER_URL": "amqp://guest:guest@host/"}, "DREAM_REDIS_URL must be set"),
        ({"DREAM_GATEWAY_URL": f"https://{'a' * 185}", "DREAM_VARIANTS": "thumb:320"}, "too long for the names"),
        (
            {"DREAM_SIGN_WINDOW_S": "604800"},
            r"DREAM_SIGN_WINDOW_S=604800 and DREAM_MEDIA_FORGET_S=300 add up to 605100 s: .* at most 604800 s",
        ),
        (
            {"DREAM_SIGN_WINDOW_S": "604800", "DREAM_MEDIA_FORGET_S": "0"},
            r"DREAM_SIGN_WINDOW_S=604800 and DREAM_PRESIGN_TTL_S=300 add up to 605100 s",
        ),
        ({"DREAM_MEDIA_FORGET_S": "604800"}, r"DREAM_SIGN_WINDOW_S=86400 and DREAM_MEDIA_FORGET_S=604800 add up"),
        ({"DREAM_LEASE_S": "10", "DREAM_LEASE_RENEW_S": "6"}, "DREAM_LEASE_RENEW_S may be at most half"),
    ],
)
def test_settings_that_do_not_go_together_are_one_line(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=reason) as caught:
        load()
    assert "\n" not in str(caught.value)


def test_events_go_through_the_broker_where_that_is_redis() -> None:
    assert Settings(broker_url="redis://a:1/0").events_url == "redis://a:1/0"
    assert Settings(broker_url="redis://a:1/0", redis_url="redis://b:2/0").events_url == "redis://b:2/0"
    assert Settings(broker_url="amqp://a/", redis_url="redis://b:2/0").events_url == "redis://b:2/0"


def test_a_bucket_per_user_stages_in_a_bucket_of_its_own() -> None:
    settings = Settings(s3_bucket="pictures-{username}", s3_staging_bucket="incoming")
    assert settings.is_bucket_per_user
    assert settings.staging_bucket == "incoming"
    assert Settings().staging_bucket == Settings().s3_bucket


@pytest.mark.parametrize("url", ["https://cdn.example.com", "https://cdn.example.com/", "https://cdn.example.com/p//"])
def test_base_urls_lose_their_last_slashes(url: str) -> None:
    assert Settings(public_url=url).media_url == url.rstrip("/")


def test_pictures_are_at_the_gateway_unless_they_are_public() -> None:
    assert Settings(gateway_url="https://a.example").media_url == "https://a.example/media"
    assert (
        Settings(public_url="https://cdn.example", gateway_url="https://a.example").media_url == "https://cdn.example"
    )


def test_the_longest_base_url_still_gives_urls_of_255_characters() -> None:
    key = f"dreams/20260101/{'0' * 32}.jpeg"
    longest = MAX_URL_LENGTH - len(f"/media/{key}")
    base = "https://" + "a" * (longest - len("https://"))
    assert len(canonical_url(Settings(gateway_url=base), key)) == MAX_URL_LENGTH
    with pytest.raises(ValidationError, match=f"at most {longest} characters"):
        Settings(gateway_url=base + "a")


def test_variants_are_names_and_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_VARIANTS", "thumb:320, medium_2-x:1280")
    assert load().variants == (("thumb", 320), ("medium_2-x", 1280))


@pytest.mark.parametrize("value", ["", None])
def test_there_are_no_variants_by_default(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is not None:
        monkeypatch.setenv("DREAM_VARIANTS", value)
    assert load().variants == ()


def test_a_pool_without_a_size_has_a_process_for_each_cpu() -> None:
    assert Settings(pool_size=0).pool_processes >= 1
    assert Settings(pool_size=3).pool_processes == 3


def test_every_setting_says_what_it_means() -> None:
    missing = [name for name, field in Settings.model_fields.items() if not field.description]
    assert missing == []
