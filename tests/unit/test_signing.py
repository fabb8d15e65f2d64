"""Signed addresses: the same as botocore's for the same second, and the same for everybody within a window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import botocore.auth
import pytest
from botocore.credentials import RefreshableCredentials

from dream.errors import AccessDenied
from dream.settings import Settings
from dream.storage import Storage
from dream.storage.signing import window_at

KEY = "dreams/20260101/" + "0" * 32 + ".jpg"
#: The beginning of an hour.
HOUR = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW = HOUR.timestamp() + 1234.5
TOKEN = "IQoJb3JpZ2luX2VjEJr//////+/=="


@pytest.fixture(autouse=True)
def _no_credentials_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that a test sets in the environment are the only ones."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


def settings(**changes: Any) -> Settings:
    return Settings(**{"s3_access_key": "AKIDEXAMPLE", "s3_secret_key": "wJalr/XUtn+FEMI=K7", **changes})


def query_of(url: str) -> dict[str, str]:
    return {name: value for name, (value,) in parse_qs(urlsplit(url).query).items()}


KEYS = [KEY, "dreams/ä ö/€+%2F=&?#~*'()!$,:;@.jpg", "a//b/./c/../d", "~x_-.y", "日本語/図.png"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"s3_region": "eu-central-1"},
        {"s3_region": "eu-central-1", "s3_addressing_style": "path"},
        {"s3_region": "cn-north-1", "s3_addressing_style": "virtual"},
        {"s3_endpoint_url": "http://127.0.0.1:8333"},
        {"s3_endpoint_url": "http://127.0.0.1:8333", "s3_addressing_style": "path"},
        {"s3_endpoint_url": "http://[::1]:8333", "s3_addressing_style": "path"},
        {"s3_endpoint_url": "https://minio.example:9000/", "s3_addressing_style": "virtual"},
        {"s3_endpoint_url": "https://minio.example:443", "s3_addressing_style": "path"},
        {"s3_endpoint_url": "http://minio.example:80"},
        {"s3_endpoint_url": "https://S3.Example.com/store", "s3_addressing_style": "path"},
        {
            "s3_endpoint_url": "https://oss-cn-hangzhou.aliyuncs.com",
            "s3_region": "cn-hangzhou",
            "s3_addressing_style": "virtual",
        },
    ],
    ids=lambda changes: " ".join(map(str, changes.values())) or "aws",
)
@pytest.mark.parametrize("token", [None, TOKEN], ids=["lasting", "session"])
def test_a_signature_is_that_of_botocore_for_the_same_second(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], token: str | None
) -> None:
    """For any endpoint, style, region and credentials; for each bucket, key and method."""
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: HOUR.replace(tzinfo=None))
    own = settings(sign_window_s=3600, media_forget_s=60, **changes)
    if token:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIAEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "k+/=")
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
        own = own.model_copy(update={"s3_access_key": None, "s3_secret_key": None})
    storage = Storage(own)
    for bucket in ("dream", "dreamlog-ann", "my.bucket.example"):
        for key in KEYS:
            for method, name in (("GET", "get_object"), ("HEAD", "head_object")):
                theirs = storage._client.generate_presigned_url(
                    name, Params={"Bucket": bucket, "Key": key}, ExpiresIn=3660
                )
                assert storage.signed_url(bucket, key, method, now=NOW).url == theirs
                assert query_of(theirs).get("X-Amz-Security-Token") == token
            its = {"Bucket": bucket, "Key": key, "ContentLength": 1234, "ContentType": "image/jpeg"}
            theirs = storage._client.generate_presigned_url("put_object", Params=its, ExpiresIn=60)
            ours = storage.signed_put(bucket, key, 1234, "image/jpeg", 60, now=HOUR.timestamp())
            assert ours.url == theirs
            assert query_of(theirs)["X-Amz-SignedHeaders"] == "content-length;content-type;host"


def test_everybody_gets_one_address_within_a_window() -> None:
    """Two gateways, whose clocks differ, sign alike; at a border each address is valid while it is given out."""
    own = settings(sign_window_s=3600, media_forget_s=60)
    first, second = Storage(own), Storage(own)
    start = HOUR.timestamp()
    assert (
        len({each.signed_url("dream", KEY, now=start + s).url for each in (first, second) for s in (0, 9, 3599.9)}) == 1
    )
    before, after = first.signed_url("dream", KEY, now=start - 0.1), second.signed_url("dream", KEY, now=start + 0.1)
    assert before.url != after.url
    for signed, now in ((before, start - 0.1), (after, start + 0.1)):
        query = query_of(signed.url)
        signed_at = datetime.strptime(query["X-Amz-Date"] + "+0000", "%Y%m%dT%H%M%SZ%z").timestamp()
        assert query["X-Amz-Expires"] == "3660"
        assert signed_at <= now
        assert signed_at + 3660 - now >= 60  # whoever is sent there last has the forget time


@pytest.mark.parametrize(
    ("changes", "now", "lives_s", "keep_s"),
    [
        ({}, HOUR.timestamp(), 86700, 300),
        ({"sign_window_s": 3600}, NOW, 3900, 300),
        ({"sign_window_s": 3600}, HOUR.timestamp() + 3600 - 99.5, 3900, 99),
        ({"sign_window_s": 3600}, HOUR.timestamp() + 3599.5, 3900, 0),
        ({"sign_window_s": 3600, "media_forget_s": 7200}, NOW, 10800, 2365),
        ({"media_forget_s": 0, "presign_ttl_s": 60}, NOW, 86460, 0),
        ({"sign_window_s": 0, "media_forget_s": 0, "presign_ttl_s": 60}, NOW, 60, 0),
        ({"sign_window_s": 0}, NOW, 300, 0),
        ({"sign_window_s": 604500}, NOW, 604800, 300),
    ],
)
def test_an_address_is_kept_for_the_forget_time_and_never_over_its_window(
    changes: dict[str, int], now: float, lives_s: int, keep_s: int
) -> None:
    own = settings(**changes)
    signed = Storage(own).signed_url("dream", KEY, now=now)
    assert (query_of(signed.url)["X-Amz-Expires"], signed.keep_s) == (str(lives_s), keep_s)
    assert window_at(own, now).signed_at <= now


def test_without_a_window_each_second_has_its_own_address() -> None:
    storage = Storage(settings(sign_window_s=0))
    assert len({storage.signed_url("dream", KEY, now=NOW + s).url for s in range(3)}) == 3


@pytest.mark.parametrize(("left_s", "keep_s"), [(7200, 300), (400, 200), (0, 0)])
def test_temporary_credentials_end_what_is_kept(left_s: float, keep_s: int) -> None:
    """An address dies with them, so nobody keeps it up to their end; new ones sign a new address."""
    now = datetime.now(UTC)
    storage = Storage(settings())

    def credentials(name: str) -> RefreshableCredentials:
        return RefreshableCredentials(
            *(name, "secret", TOKEN, now + timedelta(seconds=left_s)),
            refresh_using=lambda: {
                "access_key": name,
                "secret_key": "secret",
                "token": TOKEN,
                "expiry_time": (now + timedelta(seconds=left_s)).isoformat(),
            },
            method="test",
            time_fetcher=lambda: now - timedelta(days=1),
        )

    found = set()
    for name in ("ASIAONE", "ASIATWO"):
        storage._client._request_signer._credentials = credentials(name)  # type: ignore[attr-defined]
        signed = storage.signed_url("dream", KEY, now=now.timestamp())
        assert signed.keep_s in (keep_s, min(keep_s, int(window_at(settings(), now.timestamp()).left_s)))
        assert query_of(signed.url)["X-Amz-Security-Token"] == TOKEN
        found.add(signed.url)
        put = storage.signed_put("dream", KEY, 1, "image/png", 3600, now=now.timestamp())
        assert put.keep_s == max(1, min(3600, int(left_s)))
    assert len(found) == 2


def test_no_credentials_are_one_clear_error() -> None:
    with pytest.raises(AccessDenied, match="DREAM_S3_ACCESS_KEY"):
        Storage(Settings()).signed_url("dream", KEY)
