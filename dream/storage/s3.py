"""The S3 object store behind one small class: boto3's client, its faults turned into ours.

Bytes are put to signed URLs, in half the processor time of boto3's own call, which is for what goes wrong. Such a
signature does not cover the bytes themselves: TLS does.

Works with AWS, MinIO, Aliyun OSS and SeaweedFS: signature v4, checksums only where the API demands them, and
Content-MD5 on DeleteObjects, which OSS insists on.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

import boto3
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError

from dream.errors import (
    AccessDenied,
    BucketMissing,
    DreamError,
    ObjectMissing,
    ObjectStoreUnavailable,
)
from dream.storage.signing import Keys, SignedUrl, sign, window_at

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from dream.settings import Settings

__all__ = ["Storage"]

#: S3 takes at most this many keys in one DeleteObjects.
_DELETE_BATCH = 1000
_DENIED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled", "403", "ExpiredToken"}
_MISSING_KEY = {"NoSuchKey", "404", "NotFound"}
#: boto3's default session is not safe to build clients from in several threads at once.
_building = Lock()
#: How far our clock may be from the store's, as S3 has it for every request.
_SKEW_S = 900
#: Addresses of buckets that are kept; there may be a bucket for each user.
_MOST_ADDRESSES = 10_000


def _fault(error: Exception, action: str) -> DreamError:
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code == "NoSuchBucket":
            return BucketMissing(f"could not {action}: the bucket does not exist")
        if code in _MISSING_KEY:
            return ObjectMissing(f"could not {action}: no such object")
        if code in _DENIED:
            return AccessDenied(f"could not {action}: the object store refused our credentials ({code})")
        return ObjectStoreUnavailable(f"could not {action}: the object store answered {code or 'an error'}")
    if isinstance(error, NoCredentialsError):
        remedy = 'set DREAM_S3_ACCESS_KEY and DREAM_S3_SECRET_KEY (for `dream up`: eval "$(dream env)")'
        return AccessDenied(f"could not {action}: there are no credentials; {remedy}")
    # boto3's words name the endpoint: no secret, but not for strangers.
    return ObjectStoreUnavailable(f"could not {action}: the object store did not answer", detail=str(error))


@contextmanager
def _translated(action: str) -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError, HTTPClientError) as error:
        raise _fault(error, action) from error


def _add_content_md5(params: dict[str, Any], **_: Any) -> None:
    body = params["body"] if isinstance(params["body"], bytes) else str(params["body"]).encode()
    params["headers"]["Content-MD5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


class Storage:
    """The object store of one process; safe to use from several threads.

    Parameters:
      settings: endpoint, credentials, time-outs.

    Raises:
      ObjectMissing, BucketMissing, AccessDenied, ObjectStoreUnavailable: each method that asks the store.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._takes_signed_urls = True
        self._addresses: dict[str, tuple[str, str]] = {}

    @cached_property
    def _client(self) -> S3Client:
        settings = self._settings
        secret = settings.s3_secret_key
        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": settings.s3_addressing_style},
            connect_timeout=settings.s3_connect_timeout_s,
            read_timeout=settings.s3_read_timeout_s,
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=settings.worker_threads + 8,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        with _building:
            client = boto3.client(
                "s3",
                endpoint_url=settings.s3_endpoint_url,
                region_name=settings.s3_region,
                aws_access_key_id=settings.s3_access_key,
                aws_secret_access_key=secret.get_secret_value() if secret else None,
                config=config,
            )
        client.meta.events.register("before-call.s3.DeleteObjects", _add_content_md5)
        return client

    def put_bytes(self, bucket: str, key: str, data: bytes) -> None:
        """Store bytes that the caller has in memory anyway."""
        self._put(bucket, key, data, {})

    def put_file(self, bucket: str, key: str, path: Path, content_type: str) -> None:
        """Store a processed picture, which is small: at most its byte budget."""
        cache_control = "private, max-age=31536000, immutable"
        self._put(bucket, key, path.read_bytes(), {"Content-Type": content_type, "Cache-Control": cache_control})

    def _put(self, bucket: str, key: str, data: bytes, headers: Mapping[str, str]) -> None:
        parameters: Any = {"Bucket": bucket, "Key": key} | {name.replace("-", ""): headers[name] for name in headers}
        with _translated("store an object"):
            if not (self._takes_signed_urls and self._is_put_at_once(parameters, data, headers)):
                self._client.put_object(Body=data, **parameters)

    def _is_put_at_once(self, parameters: Any, data: bytes, headers: Mapping[str, str]) -> bool:
        """Try to store bytes; whatever comes of it but success, boto3 tries again and knows what answers mean."""
        url = self._client.generate_presigned_url("put_object", Params=parameters, ExpiresIn=_SKEW_S)
        connections = self._client._endpoint.http_session  # type: ignore[attr-defined]
        try:
            answer = connections.send(AWSRequest("PUT", url, headers, data).prepare())
        except (BotoCoreError, HTTPClientError):
            return False
        self._takes_signed_urls = answer.status_code != HTTPStatus.FORBIDDEN  # policies may allow none
        return bool(answer.status_code == HTTPStatus.OK)

    def download(self, bucket: str, key: str, path: Path) -> None:
        """Stream an object into a file."""
        with _translated("read an object"):
            body = self._client.get_object(Bucket=bucket, Key=key)["Body"]
            with path.open("wb") as file:
                shutil.copyfileobj(body, file, 1 << 20)

    def exists(self, bucket: str, key: str) -> bool:
        """Whether the object is there."""
        try:
            with _translated("look for an object"):
                self._client.head_object(Bucket=bucket, Key=key)
        except ObjectMissing:
            return False
        return True

    def delete(self, bucket: str, keys: Iterable[str]) -> dict[str, DreamError]:
        """Delete objects; one that is not there counts as deleted.

        Returns:
          The keys that could not be deleted, each with its error: a 200 from the store may carry such.
        """
        wanted = list(keys)
        failed: dict[str, DreamError] = {}
        for start in range(0, len(wanted), _DELETE_BATCH):
            batch = wanted[start : start + _DELETE_BATCH]
            with _translated("delete objects"):
                answer = self._client.delete_objects(
                    Bucket=bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
                )
            for error in answer.get("Errors", []):
                if error.get("Code") not in _MISSING_KEY:
                    fault = ClientError({"Error": {"Code": str(error.get("Code"))}}, "DeleteObjects")
                    failed[str(error.get("Key"))] = _fault(fault, "delete an object")
        return failed

    def list_keys(self, bucket: str, prefix: str) -> Iterator[tuple[str, datetime]]:
        """Keys under the prefix, with the time each was last written."""
        with _translated("list objects"):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for entry in page.get("Contents", []):
                    yield entry["Key"], entry["LastModified"]

    def presign(self, bucket: str, key: str) -> str:
        """A GET that needs no credentials; see `signed_url`."""
        return self.signed_url(bucket, key).url

    def signed_url(self, bucket: str, key: str, method: str = "GET", *, now: float | None = None) -> SignedUrl:
        """An address of an object that needs no credentials, the same for all who ask within `DREAM_SIGN_WINDOW_S`.

        A signed URL expires with temporary credentials, so it may be kept for at most half of their remaining life.

        Parameters:
          bucket, key: the object.
          method: the HTTP method that the URL is for.
          now: the moment, in seconds since the epoch; the current one by default.
        """
        with _translated("sign a URL"):
            base, region = self._address_of(bucket)
            credentials = self._client._request_signer._credentials  # type: ignore[attr-defined]
            frozen = credentials.get_frozen_credentials()
        now = time.time() if now is None else now
        window = window_at(self._settings, now)
        keep_s = min(self._settings.media_forget_s, window.left_s)
        if expires_at := getattr(credentials, "_expiry_time", None):
            keep_s = min(keep_s, (expires_at.timestamp() - now) / 2)
        keys = Keys(frozen.access_key, frozen.secret_key, frozen.token, region)
        return SignedUrl(sign(base + quote(key, safe="/-_.~"), keys, window, method), max(0, int(keep_s)))

    def _address_of(self, bucket: str) -> tuple[str, str]:
        """The URL before the bucket's keys, and the bucket's region, as boto3 has them for this style and endpoint."""
        address = self._addresses.get(bucket)  # once: another thread may clear them
        if address is None:
            url = urlsplit(self._client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}))
            _, _, region, *_ = parse_qs(url.query)["X-Amz-Credential"][0].rsplit("/", 4)
            if len(self._addresses) >= _MOST_ADDRESSES:
                self._addresses.clear()
            address = f"{url.scheme}://{url.netloc}{url.path.removesuffix('k')}", region
            self._addresses[bucket] = address
        return address

    def ensure_bucket(self, bucket: str) -> None:
        """Create the bucket where it is missing."""
        try:
            self.check_bucket(bucket)
        except (BucketMissing, ObjectMissing):
            with _translated("create the bucket"):
                try:
                    self._create_bucket(bucket)
                except ClientError as error:
                    if error.response.get("Error", {}).get("Code") != "BucketAlreadyOwnedByYou":
                        raise

    def _create_bucket(self, bucket: str) -> None:
        region = self._settings.s3_region
        if region == "us-east-1" or self._settings.s3_endpoint_url:
            self._client.create_bucket(Bucket=bucket)
        else:
            location: Any = {"LocationConstraint": region}
            self._client.create_bucket(Bucket=bucket, CreateBucketConfiguration=location)

    def check_bucket(self, bucket: str) -> None:
        """Ask for the bucket.

        Raises:
          BucketMissing, AccessDenied, ObjectStoreUnavailable
        """
        try:
            with _translated(f"reach the bucket {bucket}"):
                self._client.head_bucket(Bucket=bucket)
        except ObjectMissing:
            raise BucketMissing(f"the bucket {bucket} does not exist") from None

    def ping(self) -> None:
        """Ask the store for the bucket in which uploads are staged."""
        self.check_bucket(self._settings.staging_bucket)
