"""The S3 object store behind one small class: boto3's client, with dream's errors.

Bytes are put to signed URLs, which takes half the processor time of boto3's own call. If such a put fails, boto3
tries again. The signature does not cover the bytes: TLS does.

Works with AWS, MinIO, Aliyun OSS and SeaweedFS: signature v4, and no checksum but Content-MD5 on DeleteObjects, which
OSS insists on.
"""

from __future__ import annotations

import base64
import hashlib
import math
import shutil
import ssl
import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs, quote, urlsplit

import boto3
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError
from botocore.httpsession import get_cert_path

from dream.errors import (
    AccessDenied,
    BucketMissing,
    DreamError,
    ObjectMissing,
    ObjectStoreUnavailable,
)
from dream.messages.disposition import attachment
from dream.observe import tracing
from dream.observe.watching import count_store_answer, watch_store
from dream.storage.signing import Keys, SignedUrl, Window, sign, window_at

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from dream.settings import Settings

__all__ = ["Storage"]

#: S3 takes at most this many keys in one DeleteObjects.
_DELETE_BATCH = 1000
_DENIED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled", "403", "ExpiredToken"}
_MISSING_KEY = {"NoSuchKey", "404", "NotFound"}
#: Headers of originals: an original may be any file and is private, so no browser shows it and no cache keeps it.
_OF_ORIGINALS: Any = {"ContentType": "application/octet-stream", "CacheControl": "private, no-store"}
#: boto3's default session is not safe to build clients from in several threads at once.
_building = Lock()
_PORTION_BYTES = 64 * 1024
#: Seconds of difference that S3 accepts between this machine's clock and its own.
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
    # boto3's text names the endpoint: no secret, but strangers need not read it.
    return ObjectStoreUnavailable(f"could not {action}: the object store did not answer", detail=str(error))


@contextmanager
def _translated(action: str, method: str | None = None) -> Iterator[None]:
    """Turn errors of boto3 into dream's, and trace the call by the name of its S3 operation."""
    try:
        with tracing.store_call(method):
            yield
    except (BotoCoreError, ClientError, HTTPClientError) as error:
        raise _fault(error, action) from error


def _add_content_md5(params: dict[str, Any], **_: Any) -> None:
    """Send Content-MD5 in place of boto3's own checksum, because some stores refuse a header that they do not know."""
    params["context"].get("checksum", {}).pop("request_algorithm", None)
    params["headers"].pop("x-amz-sdk-checksum-algorithm", None)
    body = params["body"] if isinstance(params["body"], bytes) else str(params["body"]).encode()
    params["headers"]["Content-MD5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


class Original(Protocol):
    """The columns of a row that tell its original."""

    @property
    def original_bucket(self) -> str | None: ...
    @property
    def original_key(self) -> str | None: ...
    @property
    def filename(self) -> str: ...


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
        if settings.metrics_port:
            watch_store(client)
        return client

    def put_bytes(self, bucket: str, key: str, data: bytes) -> None:
        """Store bytes that the caller has in memory anyway."""
        self._put(bucket, key, data, {})

    def put_file(self, bucket: str, key: str, path: Path, content_type: str, *, is_public: bool = False) -> None:
        """Store a processed picture, which is small: at most its byte budget.

        Parameters:
          is_public: the public reads it here, although `DREAM_PUBLIC_URL` no longer says so.
        """
        is_public = is_public or self._settings.public_url is not None
        headers = {"Content-Type": content_type, "Cache-Control": self._cache_control(is_public=is_public)}
        self._put(bucket, key, path.read_bytes(), headers)

    def _cache_control(self, *, is_public: bool) -> str:
        """The `Cache-Control` of a stored picture. Only a public one may get other bytes under its key."""
        if is_public:
            return f"public, max-age={self._settings.media_forget_s}"
        return "private, max-age=31536000, immutable"

    def put_original(self, bucket: str, key: str, path: Path) -> None:
        """Store an uploaded file as it came, which may be large: it is read in portions."""
        with path.open("rb") as file, _translated("store an original", "PutObject"):
            self._client.put_object(Bucket=bucket, Key=key, Body=file, **_OF_ORIGINALS)

    def copy_original(self, source: str, source_key: str, bucket: str, key: str) -> None:
        """Let the store copy staged bytes, without a way through this process."""
        with _translated("copy an original", "CopyObject"):
            self._client.copy_object(
                Bucket=bucket,
                Key=key,
                CopySource={"Bucket": source, "Key": source_key},
                MetadataDirective="REPLACE",
                **_OF_ORIGINALS,
            )

    def _put(self, bucket: str, key: str, data: bytes, headers: Mapping[str, str]) -> None:
        parameters: Any = {"Bucket": bucket, "Key": key} | {name.replace("-", ""): headers[name] for name in headers}
        with _translated("store an object", "PutObject"):
            if not (self._takes_signed_urls and self._is_put_at_once(parameters, data, headers)):
                self._client.put_object(Body=data, **parameters)

    def _is_put_at_once(self, parameters: Any, data: bytes, headers: Mapping[str, str]) -> bool:
        """Try to store bytes; False after any failure, and then boto3 tries again and reads the answer."""
        url = self._client.generate_presigned_url("put_object", Params=parameters, ExpiresIn=_SKEW_S)
        connections = self._client._endpoint.http_session  # type: ignore[attr-defined]
        began = time.perf_counter()
        try:
            answer = connections.send(AWSRequest("PUT", url, headers, data).prepare())
        except (BotoCoreError, HTTPClientError):
            return False
        if answer.status_code == HTTPStatus.OK:  # any other answer is followed by a call of boto3's
            count_store_answer("PutObject", began, answer.status_code)
        self._takes_signed_urls = answer.status_code != HTTPStatus.FORBIDDEN  # policies may allow none
        return bool(answer.status_code == HTTPStatus.OK)

    def download(self, bucket: str, key: str, path: Path) -> None:
        """Stream an object into a file."""
        with _translated("read an object", "GetObject"):
            body = self._client.get_object(Bucket=bucket, Key=key)["Body"]
            with path.open("wb") as file:
                shutil.copyfileobj(body, file, 1 << 20)

    def read_in_portions(self, bucket: str, key: str) -> tuple[Generator[bytes], int]:
        """An object in portions of 64 KiB, and its size. A portion may raise ObjectStoreUnavailable."""
        with _translated("read an object", "GetObject"):
            answer = self._client.get_object(Bucket=bucket, Key=key)
        body = answer["Body"]

        def portions() -> Generator[bytes]:
            with closing(body), _translated("read an object"):
                yield from body.iter_chunks(_PORTION_BYTES)

        return portions(), answer["ContentLength"]

    def original_url(self, image: Original) -> str:
        """A URL under which a browser saves the original under its own name, for `DREAM_PRESIGN_TTL_S`."""
        parameters = {
            "Bucket": image.original_bucket,
            "Key": image.original_key,
            "ResponseContentDisposition": attachment(image.filename),
            "ResponseContentType": _OF_ORIGINALS["ContentType"],
            "ResponseCacheControl": _OF_ORIGINALS["CacheControl"],
        }
        with _translated("sign a URL"):
            return self._client.generate_presigned_url(
                "get_object", Params=parameters, ExpiresIn=self._settings.presign_ttl_s
            )

    def is_public(self, bucket: str, key: str) -> bool:
        """Whether anybody can read the object, without credentials."""
        address, _ = self._address_of(bucket)
        connections = self._client._endpoint.http_session  # type: ignore[attr-defined]
        with _translated("read an object without credentials"):
            answer = connections.send(AWSRequest("GET", address + key).prepare())
        return bool(answer.status_code == HTTPStatus.OK)

    def exists(self, bucket: str, key: str) -> bool:
        """Whether the object is there."""
        return self.size_of(bucket, key) is not None

    def size_of(self, bucket: str, key: str) -> int | None:
        """The bytes of an object; None if it is not there."""
        try:
            with _translated("look for an object", "HeadObject"):
                return self._client.head_object(Bucket=bucket, Key=key)["ContentLength"]
        except ObjectMissing:
            return None

    def delete(self, bucket: str, keys: Iterable[str]) -> dict[str, DreamError]:
        """Delete objects; one that is not there counts as deleted.

        Returns:
          The keys that could not be deleted, each with its error. An answer 200 may contain such keys.
        """
        wanted = list(keys)
        failed: dict[str, DreamError] = {}
        for start in range(0, len(wanted), _DELETE_BATCH):
            batch = wanted[start : start + _DELETE_BATCH]
            with _translated("delete objects", "DeleteObjects"):
                answer = self._client.delete_objects(
                    Bucket=bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
                )
            for error in answer.get("Errors", []):
                if error.get("Code") not in _MISSING_KEY:
                    fault = ClientError({"Error": {"Code": str(error.get("Code"))}}, "DeleteObjects")
                    failed[str(error.get("Key"))] = _fault(fault, "delete an object")
        return failed

    def delete_places(self, places: Iterable[tuple[str, str]]) -> dict[tuple[str, str], DreamError]:
        """Delete objects in several buckets; returns the places that could not be deleted, each with its error.

        If a bucket fails as a whole, objects in the others are still deleted.
        """
        by_bucket: defaultdict[str, list[str]] = defaultdict(list)
        for bucket, key in places:
            by_bucket[bucket].append(key)
        failed: dict[tuple[str, str], DreamError] = {}
        for bucket, keys in by_bucket.items():
            try:
                left = self.delete(bucket, sorted(keys))
            except DreamError as error:
                left = dict.fromkeys(keys, error)
            failed |= {(bucket, key): error for key, error in left.items()}
        return failed

    def list_keys(self, bucket: str, prefix: str) -> Iterator[tuple[str, datetime]]:
        """Keys under the prefix, with the time each was last written."""
        with _translated("list objects"):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for entry in page.get("Contents", []):
                    yield entry["Key"], entry["LastModified"]

    def presign(self, bucket: str, key: str) -> str:
        """The URL of a GET without credentials; see `signed_url`."""
        return self.signed_url(bucket, key).url

    def signed_url(
        self,
        bucket: str,
        key: str,
        method: str = "GET",
        *,
        disposition: str | None = None,
        now: float | None = None,
    ) -> SignedUrl:
        """A presigned URL of an object, the same for everybody within `DREAM_SIGN_WINDOW_S`.

        A signed URL expires with temporary credentials, so it may be kept for at most half of their remaining life.

        Parameters:
          bucket, key: the object.
          method: the HTTP method that the URL is for.
          disposition: the `Content-Disposition` of the store's answer.
          now: the moment, in seconds since the epoch; the current one by default.
        """
        now = time.time() if now is None else now
        url, keys, left_s = self._to_sign(bucket, key, now)
        window = window_at(self._settings, now)
        keep_s = min(self._settings.media_forget_s, window.left_s, left_s / 2)
        return SignedUrl(sign(url, keys, window, method, disposition), max(0, int(keep_s)))

    def signed_put(
        self, bucket: str, key: str, size_bytes: int, content_type: str, life_s: int, *, now: float | None = None
    ) -> SignedUrl:
        """A presigned URL under which a client puts an object of exactly this size and type.

        The signature covers both headers, so the store refuses a body of another length.

        Parameters:
          life_s: seconds for which the URL is valid; fewer if temporary credentials end earlier.
          now: the moment, in seconds since the epoch; the current one by default.
        """
        now = time.time() if now is None else now
        url, keys, left_s = self._to_sign(bucket, key, now)
        life_s = max(1, int(min(life_s, left_s)))
        headers = {"content-length": str(size_bytes), "content-type": content_type}
        return SignedUrl(sign(url, keys, Window(int(now), life_s, 0), "PUT", headers=headers), life_s)

    def lets_pages_put(self, bucket: str, origin: str) -> bool:
        """Whether the store lets browsers put an object here from pages of that origin (CORS)."""
        url = self.signed_put(bucket, "staging/asked-for-cors", 1, "image/jpeg", _SKEW_S).url
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": "PUT",
            "Access-Control-Request-Headers": "content-type",
        }
        connections = self._client._endpoint.http_session  # type: ignore[attr-defined]
        with _translated("ask for the CORS rules of the bucket"):
            answer = connections.send(AWSRequest("OPTIONS", url, asked).prepare())
        return answer.status_code < 300 and answer.headers.get("Access-Control-Allow-Origin") in ("*", origin)

    def _to_sign(self, bucket: str, key: str, now: float) -> tuple[str, Keys, float]:
        """The URL of an object, the credentials to sign it with, and the seconds that these are valid."""
        with _translated("sign a URL"):
            base, region = self._address_of(bucket)
            credentials = self._client._request_signer._credentials  # type: ignore[attr-defined]
            frozen = credentials.get_frozen_credentials()
        expires_at = getattr(credentials, "_expiry_time", None)
        left_s = math.inf if expires_at is None else expires_at.timestamp() - now
        return base + quote(key, safe="/-_.~"), Keys(frozen.access_key, frozen.secret_key, frozen.token, region), left_s

    def tls_context(self) -> ssl.SSLContext:
        """A context that trusts the authorities that boto3 trusts."""
        trusted = self._client._endpoint.http_session._verify  # type: ignore[attr-defined]
        return ssl.create_default_context(cafile=get_cert_path(trusted))

    def _address_of(self, bucket: str) -> tuple[str, str]:
        """The URL before the bucket's keys, and its region; boto3 knows both for this style and endpoint."""
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
        """Create the bucket if it is missing."""
        try:
            self.check_bucket(bucket)
        except (BucketMissing, ObjectMissing):
            with _translated("create the bucket", "CreateBucket"):
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
            with _translated(f"reach the bucket {bucket}", "HeadBucket"):
                self._client.head_bucket(Bucket=bucket)
        except ObjectMissing:
            raise BucketMissing(f"the bucket {bucket} does not exist") from None

    def ping(self) -> None:
        """Ask the store for the bucket in which uploads are staged."""
        self.check_bucket(self._settings.staging_bucket)
