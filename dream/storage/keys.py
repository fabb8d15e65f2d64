"""Keys, buckets and URLs: how a picture is named, and how every name that callers use is read back.

A key is `dreams/<YYYYMMDD>/<32 hex>.<ext>`; its variants lie beside it, at `dreams/<YYYYMMDD>/<32 hex>_<name>.<ext>`,
and name no picture of their own. A caller may name a picture by its key, its canonical URL, a
public or presigned URL, or the URL of an older object in a bucket per user: `locate` understands them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from dream.messages import STAGING_PREFIX

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = [
    "EXTENSIONS",
    "Location",
    "canonical_url",
    "content_key",
    "is_documented_key",
    "keys_of",
    "locate",
    "new_key_stem",
    "new_staging_key",
    "stem_of",
    "stem_of_variant",
    "user_bucket",
    "user_buckets",
    "variant_key",
]

#: Every extension that a processed picture can have.
EXTENSIONS = ("jpg", "webp", "png", "gif", "avif")
#: Older objects live in one bucket per user.
OLD_BUCKET_PREFIX = "dreamlog-"

_KEY = re.compile(r"dreams/[0-9]{8}/[0-9a-f]{32}(?:\.[A-Za-z0-9]{1,5})?")
_VARIANT_KEY = re.compile(r"(?P<stem>dreams/[0-9]{8}/[0-9a-f]{32})_[a-z0-9_-]{1,32}\.[a-z0-9]{1,5}")
#: AWS names no single endpoint: `s3.amazonaws.com`, `s3.<region>.amazonaws.com`, `s3-<region>.…`, with a bucket before.
_AWS_HOST = re.compile(r"(?:(?P<bucket>.+)\.)?s3[.-](?:[a-z0-9-]+\.){0,2}amazonaws\.com(?:\.cn)?")
_MAX_BUCKET_LENGTH = 63


@dataclass(frozen=True)
class Location:
    """Where a name points: a key, and the bucket where the name says which."""

    key: str
    bucket: str | None = None


def _today() -> str:
    return datetime.now(UTC).strftime("%Y%m%d")


def new_key_stem() -> str:
    """A key without its extension, which follows once the picture's format is known."""
    return f"dreams/{_today()}/{uuid4().hex}"


def new_staging_key() -> str:
    """Where uploaded bytes wait for processing."""
    return f"{STAGING_PREFIX}{_today()}/{uuid4().hex}"


def stem_of(stem_or_key: str) -> str:
    """The part of a picture's key that is fixed before its format is known."""
    return stem_or_key.partition(".")[0]


def content_key(stem_or_key: str, extension: str) -> str:
    """The full key of a picture of that format."""
    return f"{stem_of(stem_or_key)}.{extension}"


def variant_key(stem_or_key: str, name: str, extension: str) -> str:
    """The key of a picture's variant of that name and format."""
    return f"{stem_of(stem_or_key)}_{name}.{extension}"


def stem_of_variant(key: str) -> str | None:
    """The stem of the picture whose variant has this key; None where it is the key of no variant."""
    match = _VARIANT_KEY.fullmatch(key)
    return match["stem"] if match else None


def keys_of(stem_or_key: str, variants: Iterable[str] = ()) -> list[str]:
    """Every key under which a run may have stored the picture, or one of its variants of these names."""
    own = [content_key(stem_or_key, extension) for extension in EXTENSIONS]
    beside = [variant_key(stem_or_key, name, extension) for name in variants for extension in EXTENSIONS]
    return list(dict.fromkeys([*([stem_or_key] if "." in stem_or_key else ()), *own, *beside]))


def is_documented_key(key: str) -> bool:
    """Whether the key has the documented pattern; nothing else may be deleted without a row."""
    return _KEY.fullmatch(key) is not None


def canonical_url(settings: Settings, key: str) -> str:
    """The one string by which this picture is known for ever."""
    return f"{settings.media_url}/{key}"


def user_bucket(template: str, username: str) -> str:
    """The bucket of a user: lower case, only `a-z0-9-`, at most 63 characters."""
    name = template.replace("{username}", re.sub(r"[^a-z0-9-]", "", username.lower()))
    return name[:_MAX_BUCKET_LENGTH].strip("-")


def user_buckets(settings: Settings, username: str) -> set[str]:
    """Buckets from which this user's pictures may be deleted though no row names them."""
    buckets = {user_bucket(f"{OLD_BUCKET_PREFIX}{{username}}", username)} if username else set()
    if not settings.is_bucket_per_user:
        buckets.add(settings.s3_bucket)
    elif username:
        buckets.add(user_bucket(settings.s3_bucket, username))
    return buckets


def locate(settings: Settings, name: str) -> Location | None:
    """Read a key or any URL of a picture.

    Parameters:
      name: a key; or a canonical, public, presigned (path or virtual-host style) or old per-user-bucket URL.

    Returns:
      Where it points, or None where it is no name of a picture.
    """
    if "://" not in name:
        key = name.removeprefix("/").removeprefix("media/")
        return Location(key) if is_documented_key(key) else None
    try:
        parts = urlsplit(name)
    except ValueError:  # brackets that hold no IPv6 address, say
        return None
    path = unquote(parts.path)
    start = path.rfind("dreams/")
    key = path[start:]
    if start < 0 or not is_documented_key(key) or (start > 0 and path[start - 1] != "/"):
        return None
    return Location(key, _bucket_of(settings, name, parts.hostname or "", path[:start].strip("/")))


def _bucket_of(settings: Settings, url: str, host: str, folder: str) -> str | None:
    """The bucket that a URL names; None for canonical and public URLs, which name none."""
    if url.startswith((f"{settings.media_url}/", f"{settings.gateway_url}/media/")):
        return None
    endpoint = urlsplit(settings.s3_endpoint_url or "").hostname
    aws = None if endpoint else _AWS_HOST.fullmatch(host)
    if host == endpoint or (aws and aws["bucket"] is None):
        return folder or None
    if not folder:
        if aws:
            return aws["bucket"]
        if endpoint and host.endswith(f".{endpoint}"):
            return host.removesuffix(f".{endpoint}")
        # Old objects were perhaps written through another endpoint.
        first, _, rest = host.partition(".")
        if rest and first.startswith(OLD_BUCKET_PREFIX):
            return first
    # The gateway may have moved since the URL was given out; its path has not.
    return None
