"""Settings: read once from the environment, checked, frozen; a wrong value is one line that names the variable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from dream.db.session import make_engine
from dream.errors import SettingsError
from dream.settings import MAX_URL_LENGTH, Settings, load
from dream.settings.sentinel import SentinelUrl
from dream.storage.keys import canonical_url
from dream.variants import VariantSpec
from dream.work.redis_client import connect


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
    shown = repr(Settings(jwt_secret="abracadabra", s3_secret_key="open-sesame", media_keys="open-sesame" * 3))
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
    "DREAM_BROKER_URL": ["kafka://host", "host:6379", "redis:/host", "amqp://host:port/"],
    "DREAM_REDIS_URL": ["amqp://host"],
    "DREAM_DATABASE_URL": ["mysql://host/db", "dream.db", "postgresql:/host/db"],
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
    "DREAM_MEDIA_MODE": ["stream"],
    "DREAM_MEDIA_CACHE": ["shared"],
    "DREAM_MEDIA_ACCESS": ["private"],
    "DREAM_MEDIA_TTL_S": ["0", "31622401", "1.5", "an hour"],
    "DREAM_PUBLIC_URL": [
        "cdn.example.com",
        "https://cdn.example.com/?a=b",
        "https://cdn.example.com/#a",
        "https://cdn.example.com/a b",
    ],
    "DREAM_GATEWAY_URL": [f"https://example.com/{'a' * 200}"],
    "DREAM_KEEP_FACTS": ["yes", "when"],
    "DREAM_KEEP_COPYRIGHT": ["all", "2"],
    "DREAM_MAX_UPLOAD_BYTES": ["0", "-1", "1.5"],
    "DREAM_MAX_EDGE_PX": ["15", "16384"],
    "DREAM_HDR": ["yes", "KEEP"],
    "DREAM_VARIANTS": [
        "thumb",
        "thumb:",
        "thumb:320px",
        "thumb:x",
        "thumb:320x:cover",
        "thumb:320:gif",
        "thumb:320:0",
        "thumb:320:101",
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
        ",".join(f"v{number}:320" for number in range(31)),
    ],
    "DREAM_WIDTHS": [
        "320px",
        "15",
        "16384",
        "-320",
        "320;640",
        "320,",
        "320,0320",
        "320,,640",
        "³²⁰",
        ",".join(str(width) for width in range(100, 131)),
    ],
    "DREAM_LAZY_VARIANTS": ["card", "card:320px", "card:320,card:640", ",".join(f"v{n}:320" for n in range(31))],
    "DREAM_VARIANT_WAIT_S": ["-1", "61", "nan", "soon"],
    "DREAM_MAX_VARIANTS_AWAITED": ["-1", "1.5"],
    "DREAM_MAX_VARIANTS_PER_PICTURE": ["0", "many"],
    "DREAM_NEGOTIATE": ["avif"],
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
    assert "unable to" not in line, "a person does not parse"


def test_every_wrong_value_is_named_at_once_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"DREAM_BROKER_URL": "kafka://h", "DREAM_PORT": "65536", "DREAM_REDIS_URL": "http://h"}
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert sorted(sentence.partition("=")[0] for sentence in caught.value.each) == sorted(wrong)
    assert "\n" not in str(caught.value)
    assert all(sentence in str(caught.value) for sentence in caught.value.each)


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling link"])
def test_a_secret_that_is_no_file_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    """The default in its place would be a surprise. Other entries, as Kubernetes makes them, do not matter."""
    monkeypatch.setenv("DREAM_SECRETS_DIR", str(tmp_path))
    (tmp_path / "..data").mkdir()
    load()
    load.cache_clear()
    path = tmp_path / "dream_jwt_secret"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(SettingsError, match=r"^DREAM_SECRETS_DIR=.* dream_jwt_secret in it must be a file$"):
        load()


def test_a_secret_that_cannot_be_read_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A credential that is no text: root, who runs the tests, may read every file."""
    (tmp_path / "dream_jwt_secret").write_bytes(b"\xff\xfe")
    monkeypatch.setenv("DREAM_SECRETS_DIR", str(tmp_path))
    with pytest.raises(SettingsError, match=r"^DREAM_SECRETS_DIR=.* cannot be read \(.*\)$"):
        load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DREAM_BROKER_URL", "user:s3cret@host"),
        ("DREAM_BROKER_URL", "redis:/:s3cret@host"),
        ("DREAM_BROKER_URL", "amqp://user:s3cret@host:port/"),
        ("DREAM_BROKER_URL", "amqp://user:s3cret/1@host/"),
        ("DREAM_DATABASE_URL", "user:s3cret@host/db"),
        ("DREAM_DATABASE_URL", "mysql+x://user:s3cret@host/db"),
        ("DREAM_DATABASE_URL", "mysql://host/db?passwd=s3cret"),
        ("DREAM_MEDIA_KEYS", "s3cret"),
        ("DREAM_MEDIA_KEYS", f"{'k' * 32},s3cret"),
        ("DREAM_SENTRY_DSN", "https://s3cret/1"),
        ("DREAM_SENTRY_DSN", "s3cret@host/1"),
    ],
)
def test_a_wrong_value_shows_no_secret_wherever_it_stands(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value).startswith(f"{name}=")
    assert "s3cret" not in str(caught.value)


def test_an_address_of_the_database_that_cannot_be_read_is_one_line() -> None:
    with pytest.raises(SettingsError, match=r"^DREAM_DATABASE_URL=postgresql://\*\*\*@\S+ is wrong: ") as caught:
        make_engine("postgresql://user:s3cret@host:port/db")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["redis://:s3cret@host/0?db=one", "redis://host/0?passwd=s3cret"])
def test_an_option_of_redis_that_cannot_be_read_is_one_line(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^redis://.* is wrong: ") as caught:
        connect(url)
    assert "s3cret" not in str(caught.value)


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
        ({"DREAM_KEEP_ORIGINALS": "yes"}, "DREAM_ORIGINALS_BUCKET must be set where DREAM_KEEP_ORIGINALS is yes"),
        (
            {"DREAM_ORIGINALS_BUCKET": "dream", "DREAM_PUBLIC_URL": "https://cdn.example"},
            "DREAM_ORIGINALS_BUCKET must be another bucket than DREAM_S3_BUCKET where DREAM_PUBLIC_URL is set",
        ),
        (
            {
                "DREAM_S3_BUCKET": "pictures-{username}",
                "DREAM_S3_STAGING_BUCKET": "incoming",
                "DREAM_ORIGINALS_BUCKET": "pictures-originals",
            },
            r"DREAM_ORIGINALS_BUCKET=pictures-originals may be the bucket of a user \(pictures-\{username\}",
        ),
        ({"DREAM_ORIGINALS_BUCKET": "dreamlog-originals"}, "may be the bucket of a user"),
        ({"DREAM_MEDIA_ACCESS": "signed"}, "DREAM_MEDIA_ACCESS=signed needs DREAM_MEDIA_KEYS"),
        ({"DREAM_MEDIA_ACCESS": "owner"}, "DREAM_MEDIA_ACCESS=owner needs DREAM_MEDIA_KEYS"),
        (
            {"DREAM_MEDIA_ACCESS": "signed", "DREAM_MEDIA_KEYS": "k" * 32, "DREAM_PUBLIC_URL": "https://cdn.example"},
            "DREAM_MEDIA_ACCESS=signed cannot protect pictures that DREAM_PUBLIC_URL makes public",
        ),
        ({"DREAM_MEDIA_CACHE": "public"}, "DREAM_MEDIA_CACHE=public needs DREAM_MEDIA_MODE=proxy"),
        (
            {
                "DREAM_MEDIA_CACHE": "public",
                "DREAM_MEDIA_MODE": "proxy",
                "DREAM_MEDIA_ACCESS": "owner",
                "DREAM_MEDIA_KEYS": "k" * 32,
            },
            "DREAM_MEDIA_ACCESS=owner needs DREAM_MEDIA_CACHE=private",
        ),
        (
            {
                "DREAM_S3_BUCKET": "pictures-{username}",
                "DREAM_S3_STAGING_BUCKET": "incoming",
                "DREAM_MEDIA_MODE": "accel",
            },
            "DREAM_MEDIA_MODE=accel needs DREAM_S3_ADDRESSING_STYLE=path",
        ),
        ({"DREAM_BROKER_URL": "amqp://guest:guest@host/"}, "DREAM_REDIS_URL must be set"),
        ({"DREAM_GATEWAY_URL": f"https://{'a' * 185}", "DREAM_VARIANTS": "thumb:320"}, "too long for the names"),
        ({"DREAM_GATEWAY_URL": f"https://{'a' * 186}", "DREAM_WIDTHS": "10000"}, "too long for the names"),
        ({"DREAM_GATEWAY_URL": f"https://{'a' * 185}", "DREAM_LAZY_VARIANTS": "thumb:320"}, "too long for the names"),
        ({"DREAM_GATEWAY_URL": f"https://{'a' * 187}", "DREAM_NEGOTIATE": "yes"}, "too long for the names"),
        ({"DREAM_VARIANTS": "card:320", "DREAM_LAZY_VARIANTS": "card:640"}, "DREAM_LAZY_VARIANTS both name card"),
        ({"DREAM_WIDTHS": "320", "DREAM_LAZY_VARIANTS": "w320:640"}, "may not name w320"),
        ({"DREAM_NEGOTIATE": "yes", "DREAM_LAZY_VARIANTS": "full:640"}, "keeps the name full for the picture itself"),
        (
            {
                "DREAM_WIDTHS": ",".join(f"{width}" for width in range(100, 120)),
                "DREAM_LAZY_VARIANTS": ",".join(f"v{n}:320" for n in range(11)),
            },
            "DREAM_WIDTHS make 31 variants: together they may make 30",
        ),
        ({"DREAM_WIDTHS": "320,640", "DREAM_VARIANTS": "w640:640"}, "may not name w640"),
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


def test_variants_are_read_from_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_VARIANTS", "thumb:320, medium_2-x:1280x:webp")
    assert load().variants == (
        VariantSpec("thumb", 320, 320),
        VariantSpec("medium_2-x", 1280, None, format="webp"),
    )


def test_widths_make_a_ladder_beside_the_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_WIDTHS", " 640, 320")
    monkeypatch.setenv("DREAM_VARIANTS", "thumb:100")
    settings = load()
    assert settings.widths == (320, 640)
    assert [variant.row for variant in settings.upload_variants] == [["thumb", 100], ["w320", "320x"], ["w640", "640x"]]


def test_a_visitor_may_ask_for_every_variant_that_a_setting_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_WIDTHS", "320")
    monkeypatch.setenv("DREAM_VARIANTS", "thumb:100")
    monkeypatch.setenv("DREAM_LAZY_VARIANTS", "card:64x48:cover")
    settings = load()
    assert set(settings.named_variants) == {"w320", "thumb", "card"}
    assert "card" not in {variant.name for variant in settings.upload_variants}


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


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sentinel://one,two:1/0", "it must name the service after the sentinels, as in sentinel://HOST:26379"),
        ("sentinel://:s3cret/1@one/pictures/0", "percent-encode a password"),
        ("sentinel://:s3cret@one,two:x/pictures/0", "each sentinel must be HOST or HOST:PORT"),
        ("sentinel://one/pictures/zero", "the database after the service must be a number"),
        ("redis://:s3cret/1@127.0.0.1:1/0", "percent-encode a password"),
        ("redis://:12/s3cret@127.0.0.1:1/0", "percent-encode a password"),
        (
            "rediss://h/0?password=s3cret&ssl_ca_certs=/nowhere/ca",
            "the file of ssl_ca_certs cannot be read: /nowhere/ca",
        ),
        ("sentinels://h/pictures/0?sentinel_ssl_keyfile=/nowhere/k", "the file of sentinel_ssl_keyfile cannot be read"),
        ("memcached://:s3cret@h", "it must start with redis://, rediss://, sentinel://"),
    ],
)
def test_a_wrong_address_of_redis_is_told_without_its_password(
    url: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAM_BROKER_URL", url)
    with pytest.raises(SettingsError) as raised:
        load()
    assert told in str(raised.value)
    assert str(raised.value).startswith("DREAM_BROKER_URL=")
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("password", ["p@s3cret/1", "12/s3cret", "12#s3cret"])
def test_a_password_that_ends_the_address_of_the_database_is_told(
    password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL's client named a part of it as the host that it could not find."""
    monkeypatch.setenv("DREAM_DATABASE_URL", f"postgresql://dream:{password}@h/db")
    with pytest.raises(SettingsError, match="percent-encode a password") as raised:
        load()
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("rest", ["dream@h/db?user=dream@server", "dream:a[s3cret]b@h/db", "dream:a[b@h/db", "/db"])
def test_other_addresses_of_the_database_are_taken(rest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAM_DATABASE_URL", f"postgresql://{rest}")
    assert load().database_url == f"postgresql://{rest}"


def test_sentinels_share_the_certificates_and_not_the_password() -> None:
    url = SentinelUrl.parse(
        "sentinels://ann:pw@one,[::1]:7/pictures/2?ssl_ca_certs=ca&client_name=x&sentinel_username=s&sentinel_password=y"
    )
    assert (url.hosts, url.service) == (("one:26379", "[::1]:7"), "pictures")
    assert url.master == "rediss://ann:pw@localhost/2?ssl_ca_certs=ca&client_name=x"
    assert url.sentinels == tuple(f"rediss://{host}?ssl_ca_certs=ca&username=s&password=y" for host in url.hosts)
