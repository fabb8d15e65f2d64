"""Stores that know no checksum but Content-MD5, as some refuse what newer boto3 sends by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from dream.settings import Settings
from dream.stack.ports import choose
from dream.storage import Storage
from tests.nginx import nginx

#: Headers of checksums, and of bodies in signed chunks with a trailer.
REFUSED = (
    "x_amz_checksum_crc32",
    "x_amz_checksum_crc32c",
    "x_amz_checksum_crc64nvme",
    "x_amz_checksum_sha1",
    "x_amz_checksum_sha256",
    "x_amz_sdk_checksum_algorithm",
    "x_amz_trailer",
    "x_amz_decoded_content_length",
    "content_encoding",
)


@pytest.fixture
def strict(settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """SeaweedFS behind an nginx that answers 501 to each of these headers."""
    port, store = choose(), urlsplit(settings.s3_endpoint_url or "").netloc
    refuse = "\n".join(f"if ($http_{name}) {{ return 501; }}" for name in REFUSED)
    site = f"""
server {{
    listen 127.0.0.1:{port};
    {refuse}
    location / {{ proxy_set_header Host $http_host; proxy_pass http://{store}; }}
}}"""
    with nginx(tmp_path, site, port):
        yield settings.model_copy(update={"s3_endpoint_url": f"http://127.0.0.1:{port}"})


def _client(settings: Settings, **config: Any) -> Any:
    assert settings.s3_secret_key
    return boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=settings.s3_access_key,
        aws_secret_access_key=settings.s3_secret_key.get_secret_value(),
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, **config),
    )


def test_boto3_alone_is_refused(strict: Settings) -> None:
    """So the store of this test is strict: what follows is no empty claim."""
    with pytest.raises(ClientError, match="501"):
        _client(strict).put_object(Bucket=strict.s3_bucket, Key="x", Body=b"x")


@pytest.mark.parametrize("takes_signed_urls", [True, False], ids=["by signed URLs", "by boto3"])
def test_dream_stores_reads_and_deletes_on_a_store_that_knows_content_md5_alone(
    strict: Settings, tmp_path: Path, takes_signed_urls: bool
) -> None:
    storage, bucket = Storage(strict), strict.s3_bucket
    storage._takes_signed_urls = takes_signed_urls
    (picture := tmp_path / "picture").write_bytes(b"picture")
    storage.put_bytes(bucket, "staging/bytes", b"bytes")
    storage.put_file(bucket, "dreams/picture", picture, "image/jpeg")
    storage.download(bucket, "dreams/picture", tmp_path / "read")
    assert (tmp_path / "read").read_bytes() == b"picture"
    assert sorted(key for key, _ in storage.list_keys(bucket, "")) == ["dreams/picture", "staging/bytes"]
    assert storage.delete(bucket, ["dreams/picture", "staging/bytes"]) == {}
    assert list(storage.list_keys(bucket, "")) == []
