"""The contract of every object store, run against a real one."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dream.errors import AccessDenied, BucketMissing, ObjectMissing, ObjectStoreUnavailable
from dream.settings import Settings
from dream.storage import Storage
from tests.store_proxy import StoreFault, StoreProxy

KEY = "dreams/20260101/" + "0" * 32 + ".jpg"


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return Storage(settings)


def test_a_file_comes_back_as_it_went_in(storage: Storage, settings: Settings, tmp_path: Path) -> None:
    """Several megabytes streamed up and down are the same bytes."""
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(bytes(range(256)) * 20_000)
    storage.put_file(settings.s3_bucket, KEY, source, "image/jpeg")
    storage.download(settings.s3_bucket, KEY, target)
    assert target.read_bytes() == source.read_bytes()


def test_put_is_idempotent(storage: Storage, settings: Settings, tmp_path: Path) -> None:
    """A second run writes the same key; the object is the newer one."""
    storage.put_bytes(settings.s3_bucket, KEY, b"first")
    storage.put_bytes(settings.s3_bucket, KEY, b"second")
    storage.download(settings.s3_bucket, KEY, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"second"


def test_a_missing_object_is_said_to_be_missing(storage: Storage, settings: Settings, tmp_path: Path) -> None:
    assert not storage.exists(settings.s3_bucket, KEY)
    with pytest.raises(ObjectMissing):
        storage.download(settings.s3_bucket, KEY, tmp_path / "out")


def test_deleting_what_is_not_there_is_no_error(storage: Storage, settings: Settings) -> None:
    storage.put_bytes(settings.s3_bucket, KEY, b"x")
    other = KEY.replace("0.jpg", "1.jpg")
    assert storage.delete(settings.s3_bucket, [KEY, other]) == {}
    assert not storage.exists(settings.s3_bucket, KEY)


def test_more_keys_than_one_call_takes_are_deleted(storage: Storage, settings: Settings) -> None:
    """1,000 keys are S3's limit for one DeleteObjects."""
    keys = [f"staging/20260101/{index}" for index in range(1001)]
    storage.put_bytes(settings.s3_bucket, keys[-1], b"x")
    assert storage.delete(settings.s3_bucket, keys) == {}
    assert not storage.exists(settings.s3_bucket, keys[-1])


def test_listing_gives_keys_under_the_prefix_only(storage: Storage, settings: Settings) -> None:
    storage.put_bytes(settings.s3_bucket, "staging/20260101/a", b"x")
    storage.put_bytes(settings.s3_bucket, KEY, b"x")
    assert [key for key, _ in storage.list_keys(settings.s3_bucket, "staging/")] == ["staging/20260101/a"]


def test_a_presigned_get_needs_no_credentials_and_keeps_the_content_type(
    storage: Storage, settings: Settings, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    source.write_bytes(b"picture")
    storage.put_file(settings.s3_bucket, KEY, source, "image/webp")
    with urllib.request.urlopen(storage.presign(settings.s3_bucket, KEY)) as answer:
        assert answer.read() == b"picture"
        assert answer.headers["Content-Type"] == "image/webp"
        assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"
        assert answer.headers["ETag"]
    endpoint = settings.s3_endpoint_url
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{endpoint}/{settings.s3_bucket}/{KEY}")
    assert refused.value.code == 403
    refused.value.close()


@pytest.mark.parametrize("forget_s", [0, 300])
def test_a_public_picture_may_be_kept_for_the_forget_time(settings: Settings, tmp_path: Path, forget_s: int) -> None:
    """Never `immutable`: a remade picture gets its key."""
    public = settings.model_copy(update={"public_url": "https://cdn.example", "media_forget_s": forget_s})
    storage, source = Storage(public), tmp_path / "in"
    source.write_bytes(b"picture")
    storage.put_file(settings.s3_bucket, KEY, source, "image/webp")
    with urllib.request.urlopen(storage.presign(settings.s3_bucket, KEY)) as answer:
        assert answer.headers["Cache-Control"] == f"public, max-age={forget_s}"
        assert answer.headers["ETag"]


def test_a_missing_bucket_is_its_own_error(storage: Storage, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(BucketMissing):
        storage.check_bucket("t-there-is-none")
    with pytest.raises((BucketMissing, ObjectMissing)):
        storage.download("t-there-is-none", KEY, tmp_path / "out")


def test_making_a_bucket_twice_is_fine(storage: Storage, settings: Settings) -> None:
    storage.ensure_bucket(settings.s3_bucket)
    storage.ensure_bucket(settings.s3_bucket)
    storage.ping()


def test_wrong_credentials_are_refused_for_good(
    environment: dict[str, str], settings: Settings, settings_of: Callable[..., Settings]
) -> None:
    wrong = Storage(settings_of(environment, s3_secret_key="wrong"))
    with pytest.raises(AccessDenied) as refused:
        wrong.put_bytes(settings.s3_bucket, KEY, b"x")
    assert refused.value.permanent


def test_a_store_that_is_away_may_be_tried_again(
    environment: dict[str, str], settings_of: Callable[..., Settings]
) -> None:
    away = Storage(settings_of(environment, s3_endpoint_url="http://127.0.0.1:9", s3_connect_timeout_s=0.2))
    with pytest.raises(ObjectStoreUnavailable) as unavailable:
        away.put_bytes("any", KEY, b"x")
    assert not unavailable.value.permanent


@contextmanager
def _between(settings: Settings) -> Iterator[StoreProxy]:
    """A proxy before the test's store."""
    upstream = urlsplit(settings.s3_endpoint_url or "")
    store = StoreProxy((upstream.hostname or "", upstream.port or 0))
    try:
        yield store
    finally:
        store.close()


@pytest.mark.parametrize(
    "faults",
    [[], [StoreFault("PUT", KEY, status=503, times=3)], [StoreFault("PUT", KEY, resets=True, times=1)]],
    ids=["well", "answers 503", "breaks connections"],
)
def test_a_put_is_one_request_and_again_one_after_each_that_fails(
    faults: list[StoreFault], environment: dict[str, str], settings: Settings, settings_of: Callable[..., Settings]
) -> None:
    """A store that fails for a moment has the whole object after it; one that does not is asked once."""
    data = bytes(range(256)) * 2000
    passed = StoreFault("PUT", KEY)
    with _between(settings) as store, store.failing(*faults, passed):
        storage = Storage(settings_of(environment, s3_endpoint_url=f"http://127.0.0.1:{store.port}"))
        storage.put_bytes(settings.s3_bucket, KEY, data)
    assert [fault.hits for fault in [*faults, passed]] == [*(fault.times for fault in faults), 1]
    with urllib.request.urlopen(Storage(settings).presign(settings.s3_bucket, KEY)) as answer:
        assert answer.read() == data


def test_a_store_that_takes_no_signed_urls_is_not_sent_everything_twice(
    environment: dict[str, str], settings: Settings, settings_of: Callable[..., Settings]
) -> None:
    """Policies of buckets may forbid them: then the first object is put twice, and each after it once."""
    refused, passed = StoreFault("PUT", "X-Amz-Signature", status=403), StoreFault("PUT", KEY)
    with _between(settings) as store, store.failing(refused, passed):
        storage = Storage(settings_of(environment, s3_endpoint_url=f"http://127.0.0.1:{store.port}"))
        for _ in range(3):
            storage.put_bytes(settings.s3_bucket, KEY, b"picture")
    assert (refused.hits, passed.hits) == (1, 3)
