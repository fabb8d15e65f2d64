"""Keys and URLs: how pictures are named, and that every name callers use is read back, and no other."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dream.db import DreamImage
from dream.settings import MAX_URL_LENGTH, Settings
from dream.storage.keys import (
    EXTENSIONS,
    Location,
    canonical_url,
    content_key,
    is_documented_key,
    keys_of,
    locate,
    new_key_stem,
    new_staging_key,
    object_key,
    stem_of_variant,
    user_bucket,
    user_buckets,
    variant_key,
    variant_object_key,
)

HEX = "0123456789abcdef0123456789abcdef"
STEM = f"dreams/20260101/{HEX}"
KEY = f"{STEM}.jpg"
SIGNATURE = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=300&X-Amz-Signature=00ff"

MINIO = Settings(
    gateway_url="https://dream.example",
    s3_endpoint_url="http://minio.internal:9000",
    s3_bucket="pictures",
    s3_addressing_style="path",
)
OSS = Settings(
    gateway_url="https://dream.example",
    s3_endpoint_url="https://oss-cn-hangzhou.aliyuncs.com",
    s3_bucket="pictures",
    s3_addressing_style="virtual",
)
AWS = Settings(gateway_url="https://dream.example", s3_bucket="my.pictures")
CDN = Settings(public_url="https://cdn.example/p", gateway_url="https://dream.example", s3_bucket="pictures")
ALL = pytest.mark.parametrize("settings", [MINIO, OSS, AWS, CDN], ids=["minio", "oss", "aws", "cdn"])


# --- names of ours


def test_a_new_key_has_the_documented_pattern() -> None:
    assert re.fullmatch(r"dreams/\d{8}/[0-9a-f]{32}", new_key_stem())
    assert is_documented_key(content_key(new_key_stem(), "jpg"))


def test_no_two_new_keys_are_the_same() -> None:
    assert len({new_key_stem() for _ in range(100)} | {new_staging_key() for _ in range(100)}) == 200


def test_staged_bytes_have_keys_that_no_caller_may_delete() -> None:
    assert new_staging_key().startswith("staging/")
    assert not is_documented_key(new_staging_key())


def test_the_extension_follows_the_format() -> None:
    assert content_key(STEM, "webp") == f"{STEM}.webp"
    assert content_key(KEY, "webp") == f"{STEM}.webp"


def row(key: str, *wanted: str, **columns: Any) -> DreamImage:
    return DreamImage(storage_key=key, wanted_variants=[[name, 320] for name in wanted], **columns)


def test_a_picture_may_lie_under_every_extension_that_a_run_may_have_written() -> None:
    """An earlier run of its task may have made another format of it."""
    assert keys_of(row(STEM)) == [f"{STEM}.{extension}" for extension in EXTENSIONS]
    assert set(keys_of(row(KEY))) == {KEY, *keys_of(row(STEM))}
    assert f"{STEM}.JPEG" in keys_of(row(f"{STEM}.JPEG"))


def test_variants_lie_beside_their_picture() -> None:
    assert variant_key(STEM, "thumb", "jpg") == variant_key(KEY, "thumb", "jpg") == f"{STEM}_thumb.jpg"
    assert {f"{STEM}_a.jpg", f"{STEM}_a.webp", f"{STEM}_b-_b.avif", KEY} < set(keys_of(row(KEY, "a", "b-_b")))


def test_the_object_of_a_remade_picture_has_the_remakes_number_and_the_rows_format() -> None:
    assert object_key(row(f"{STEM}.png", remakes=0, content_type="image/webp")) == f"{STEM}.png"
    assert object_key(row(KEY, remakes=3, content_type="image/webp")) == f"{STEM}-3.webp"
    assert object_key(row(KEY, remakes=3, content_type=None)) == f"{STEM}-3.jpg"


def test_a_variants_object_is_where_the_row_says_or_else_where_its_url_says() -> None:
    ref: Any = {"name": "thumb", "url": canonical_url(MINIO, f"{STEM}_thumb.jpg")}
    assert variant_object_key(ref) == f"{STEM}_thumb.jpg"
    assert variant_object_key({**ref, "key": f"{STEM}-2_thumb.webp"}) == f"{STEM}-2_thumb.webp"


def test_a_remade_picture_may_have_objects_of_every_remake_that_was_begun() -> None:
    kept: Any = {"name": "old", "url": "u", "key": f"{STEM}-1_old.avif"}
    keys = keys_of(
        row(KEY, "thumb", remakes=4, first_remake=3, last_remake=5, content_type="image/webp", variants=[kept])
    )
    assert {KEY, f"{STEM}_thumb.jpg", f"{STEM}-1_old.avif"} < set(keys)
    for remake in (3, 4, 5):
        assert {f"{STEM}-{remake}.webp", f"{STEM}-{remake}_thumb.jpg"} < set(keys)
    assert not {key for key in keys if key.startswith((f"{STEM}-2", f"{STEM}-6"))}
    assert len(keys) == len(set(keys))


def test_the_key_of_a_remade_object_is_no_documented_one() -> None:
    """No URL of dream's has it, and without a row nobody may delete it by such a name."""
    assert not is_documented_key(f"{STEM}-2.jpg")
    assert stem_of_variant(f"{STEM}-2_thumb.jpg") is None


def test_a_variants_key_leads_to_its_picture() -> None:
    """It is no documented key: without a row nothing is deleted at it."""
    key = variant_key(STEM, "thumb_2-x", "webp")
    assert stem_of_variant(key) == STEM
    assert not is_documented_key(key)
    assert locate(MINIO, key) == locate(MINIO, canonical_url(MINIO, key)) == Location(STEM)


@pytest.mark.parametrize(
    "key",
    [
        "",
        KEY,
        STEM,
        f"{STEM}_.jpg",
        f"{STEM}_A.jpg",
        f"{STEM}_a",
        f"{STEM}_a.",
        f"{STEM}_a/b.jpg",
        f"{STEM}_a.jpg\n",
        f"/{STEM}_a.jpg",
        f"{STEM}_{'a' * 33}.jpg",
        f"staging/20260101/{HEX}_a.jpg",
    ],
)
def test_other_keys_are_no_variants(key: str) -> None:
    assert stem_of_variant(key) is None


@pytest.mark.parametrize(
    "key",
    [
        "",
        "dreams/",
        "dreams/20260101/",
        f"dreams/2026010/{HEX}.jpg",
        f"dreams/20260101/{HEX[1:]}.jpg",
        f"dreams/20260101/{HEX.upper()}.jpg",
        f"dreams/20260101/{HEX}.",
        f"dreams/20260101/{HEX}.jpg.exe",
        f"dreams/20260101/{HEX}.toolong",
        f"dreams/20260101/../{HEX}.jpg",
        f"dreams/２０２６０１０１/{HEX}.jpg",
        f"{KEY}\n",
        f"/{KEY}",
        f"staging/20260101/{HEX}",
    ],
)
def test_other_keys_are_not_documented_ones(key: str) -> None:
    assert not is_documented_key(key)


# --- what locates a picture


@ALL
@pytest.mark.parametrize("name", [KEY, f"/{KEY}", f"/media/{KEY}", f"media/{KEY}"])
def test_a_key_is_found_by_itself(settings: Settings, name: str) -> None:
    assert locate(settings, name) == Location(KEY)


@ALL
def test_a_canonical_url_is_read_back(settings: Settings) -> None:
    url = canonical_url(settings, KEY)
    assert len(url) <= MAX_URL_LENGTH
    assert locate(settings, url) == Location(KEY)


def test_a_canonical_url_of_before_the_cdn_is_still_read() -> None:
    assert locate(CDN, f"https://dream.example/media/{KEY}") == Location(KEY)


def test_a_canonical_url_of_before_a_move_of_the_gateway_is_still_read() -> None:
    assert locate(MINIO, f"https://old-name.example:8443/media/{KEY}") == Location(KEY)


@pytest.mark.parametrize("extension", [*EXTENSIONS, "JPG", "jpeg"])
def test_every_extension_is_read(extension: str) -> None:
    assert locate(MINIO, f"https://dream.example/media/{STEM}.{extension}") == Location(f"{STEM}.{extension}")


def test_a_name_without_its_extension_is_read() -> None:
    assert locate(MINIO, STEM) == Location(STEM)


@pytest.mark.parametrize(
    ("settings", "url", "bucket"),
    [
        (MINIO, f"http://minio.internal:9000/pictures/{KEY}?{SIGNATURE}", "pictures"),
        (MINIO, f"http://MINIO.internal/pictures/{KEY}", "pictures"),
        (MINIO, f"http://minio.internal:9000/other/{KEY}?{SIGNATURE}", "other"),
        (MINIO, f"http://pictures.minio.internal:9000/{KEY}?{SIGNATURE}", "pictures"),
        (MINIO, f"http://minio.internal:9000/{KEY}", None),
        (OSS, f"https://pictures.oss-cn-hangzhou.aliyuncs.com/{KEY}?{SIGNATURE}", "pictures"),
        (OSS, f"https://pictures.oss-cn-hangzhou.aliyuncs.com:443/{KEY}", "pictures"),
        (OSS, f"https://two.dots.oss-cn-hangzhou.aliyuncs.com/{KEY}", "two.dots"),
        (AWS, f"https://my.pictures.s3.amazonaws.com/{KEY}?{SIGNATURE}", "my.pictures"),
        (AWS, f"https://my.pictures.s3.eu-central-1.amazonaws.com/{KEY}?{SIGNATURE}", "my.pictures"),
        (AWS, f"https://my.pictures.s3.dualstack.eu-central-1.amazonaws.com/{KEY}", "my.pictures"),
        (AWS, f"https://my.pictures.s3-eu-west-1.amazonaws.com/{KEY}", "my.pictures"),
        (AWS, f"https://my.pictures.s3.cn-north-1.amazonaws.com.cn/{KEY}", "my.pictures"),
        (AWS, f"https://s3.amazonaws.com/my.pictures/{KEY}?{SIGNATURE}", "my.pictures"),
        (AWS, f"https://s3.eu-central-1.amazonaws.com/my.pictures/{KEY}?{SIGNATURE}", "my.pictures"),
    ],
)
def test_a_presigned_url_names_its_bucket(settings: Settings, url: str, bucket: str | None) -> None:
    """Path style or virtual-host style, signed or not."""
    assert locate(settings, url) == Location(KEY, bucket)


@ALL
@pytest.mark.parametrize(
    "url",
    [
        f"https://dreamlog-bob.oss-cn-hangzhou.aliyuncs.com/{KEY}",
        f"http://dreamlog-bob.minio.internal:9000/{KEY}",
        f"https://DreamLog-Bob.s3.amazonaws.com/{KEY}",
        f"https://dreamlog-bob.storage.elsewhere.example:8443/{KEY}?x=1#y",
        f"http://dreamlog-bob.localhost:1/{KEY}",
        f"http://user:word@dreamlog-bob.localhost/{KEY}",
    ],
)
def test_an_old_url_names_the_bucket_of_its_user(settings: Settings, url: str) -> None:
    """Older objects were perhaps written through another endpoint than today's."""
    assert locate(settings, url) == Location(KEY, "dreamlog-bob")


@ALL
@pytest.mark.parametrize("end", ["_thumb.webp", "-2.jpg", "-12_thumb.avif", "_a_b-c.jpg"])
def test_another_object_of_a_picture_names_the_picture_without_an_extension(settings: Settings, end: str) -> None:
    """A variant, and results of remakes: their URLs may be any of a picture's."""
    for name in (f"{STEM}{end}", f"/media/{STEM}{end}", f"{canonical_url(settings, STEM)}{end}?exp=1&signature=x"):
        assert locate(settings, name) == Location(STEM)


def test_percent_signs_are_read() -> None:
    assert locate(MINIO, f"https://dream.example/media/{KEY.replace('/', '%2F')}") == Location(KEY)


# --- what locates none


@ALL
@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "https://",
        "://",
        "https://dream.example/",
        f"https://dream.example/?key={KEY}",
        f"https://dream.example/#{KEY}",
        f"https://dream.example/media/x?/{KEY}",
        f"https://dream.example/media/{KEY}/",
        f"https://dream.example/media/{KEY}/more",
        f"https://dream.example/media/{KEY}%0A",
        f"https://dream.example/media/{KEY}%00",
        f"https://dream.example/media/{KEY}%3Fx",
        f"https://dream.example/media/{KEY};x",
        f"https://dream.example/media/not{KEY}",
        f"https://dream.example/media/staging/20260101/{HEX}",
        f"https://dream.example/media/dreams/20260101/../../staging/20260101/{HEX}",
        f"https://dream.example/media/dreams/20260101/%2e%2e/{HEX}.jpg",
        f"https://dream.example/media/{KEY.replace('/', '%252F')}",
        f"https://[dream.example/media/{KEY}",
        f"https://[::1/{KEY}",
        f"//dream.example/{KEY}",
        f"{KEY}?x=1",
        f"{STEM}_thumb",
        f"{STEM}_.jpg",
        f"{STEM}_Thumb.jpg",
        f"{STEM}-.jpg",
        f"{STEM}-x.jpg",
        f"{STEM}_thumb.jpg.exe",
        f"{STEM}_a/b.jpg",
        f"../{KEY}",
        f"media/media/{KEY}",
        f"s3/{KEY}",
        "javascript:alert(1)",
    ],
)
def test_other_names_locate_nothing(settings: Settings, name: str) -> None:
    assert locate(settings, name) is None


@pytest.mark.parametrize(
    "url",
    [
        f"http://minio.internal:9000/pictures/../other/{KEY}",
        f"http://minio.internal:9000/other/pictures/{KEY}",
        f"http://minio.internal:9000/pictures%2Fother/{KEY}",
        f"http://minio.internal:9000/pictures/staging/{KEY}",
        f"http://evil.minio.internal/{KEY}",
        f"http://dreamlog-alice.minio.internal/{KEY}",
    ],
)
def test_a_detour_does_not_end_in_a_bucket_that_bob_may_delete_from(url: str) -> None:
    location = locate(MINIO, url)
    assert location is not None
    assert location.bucket is not None
    assert location.bucket not in user_buckets(MINIO, "bob")


@pytest.mark.parametrize("host", ["minio.internal.evil.example", "evil-minio.internal", "minio.internal@evil.example"])
def test_another_host_names_no_bucket_of_ours(host: str) -> None:
    """A look-alike is nobody's endpoint: its path names no bucket."""
    assert locate(MINIO, f"http://{host}/other/{KEY}") == Location(KEY, None)
    assert locate(MINIO, f"http://dreamlogs.{host}/{KEY}") == Location(KEY, None)


@ALL
@given(name=st.text() | st.text().map(lambda text: f"http://{text}/{KEY}") | st.from_regex(rf"\A.*{KEY}.*\Z"))
@example(name="http://[/")
@example(name="http://\u2100/")
def test_whatever_is_located_has_a_documented_key(settings: Settings, name: str) -> None:
    location = locate(settings, name)
    assert location is None or is_documented_key(location.key)


# --- buckets of users


@pytest.mark.parametrize(
    ("username", "bucket"),
    [
        ("bob", "dreamlog-bob"),
        ("Bob", "dreamlog-bob"),
        ("b_o.b@example", "dreamlog-bobexample"),
        ("bob-", "dreamlog-bob"),
        ("小明", "dreamlog"),
        ("x" * 200, "dreamlog-" + "x" * 54),
        ("../../etc", "dreamlog-etc"),
    ],
)
def test_the_bucket_of_a_user(username: str, bucket: str) -> None:
    assert user_bucket("dreamlog-{username}", username) == bucket


@given(username=st.text())
def test_a_bucket_of_a_user_is_lower_case_and_at_most_63_characters(username: str) -> None:
    assert re.fullmatch(r"dreamlog(-[a-z0-9-]{0,53}[a-z0-9])?", user_bucket("dreamlog-{username}", username))


def test_a_user_may_delete_from_the_default_bucket_and_their_own() -> None:
    assert user_buckets(MINIO, "bob") == {"pictures", "dreamlog-bob"}
    assert user_buckets(MINIO, "") == {"pictures"}


def test_with_a_bucket_per_user_there_is_no_default_one() -> None:
    settings = Settings(s3_bucket="of-{username}", s3_staging_bucket="incoming")
    assert user_buckets(settings, "bob") == {"of-bob", "dreamlog-bob"}
    assert user_buckets(settings, "") == set()
