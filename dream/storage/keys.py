"""Keys, buckets and URLs: make a picture's names, and read every name that callers use.

    dreams/<YYYYMMDD>/<32 hex>.<ext>            the key of a picture; its URL ends with it for ever
    dreams/<YYYYMMDD>/<32 hex>_<name>.<ext>     a variant; it names no picture of its own
    dreams/<YYYYMMDD>/<32 hex>-<n>.<ext>        the object that remake n made; no URL of dream's has it
    dreams/<YYYYMMDD>/<32 hex>-<n>_<name>.<ext> a variant that remake n made
    originals/<YYYYMMDD>/<32 hex>               an uploaded file, in `DREAM_ORIGINALS_BUCKET`
    staging/<YYYYMMDD>/<32 hex>-<n>             file n of the direct upload of this id (`staging.py` has the others)

`object_key` and `variant_object_key` compute from a row the keys of its objects. `keys_of` gives every key under which
a run may have stored something. A caller may name a picture by its key, its canonical URL, a public or presigned URL,
or the URL of an older object in a bucket per user: `locate` understands them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit
from uuid import UUID, uuid4

from dream.messages.arguments import STAGING_PREFIX
from dream.messages.pictures import OUTPUT_FORMATS, StoredVariant

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = [
    "EXTENSIONS",
    "Location",
    "Stored",
    "canonical_url",
    "content_key",
    "direct_key",
    "is_documented_key",
    "is_overwritten",
    "keys_of",
    "keys_of_remakes",
    "locate",
    "new_key_stem",
    "new_original_key",
    "new_staging_key",
    "object_key",
    "object_stem",
    "old_places_of",
    "places_of",
    "stem_of",
    "stem_of_variant",
    "upload_of",
    "user_bucket",
    "user_buckets",
    "variant_key",
    "variant_object_key",
]

#: Every extension that a processed picture can have; older systems stored the last two.
EXTENSIONS = (*(each.extension for each in OUTPUT_FORMATS.values()), "png", "gif")
#: Older objects are in one bucket per user.
OLD_BUCKET_PREFIX = "dreamlog-"

_KEY = re.compile(r"dreams/[0-9]{8}/[0-9a-f]{32}(?:\.[A-Za-z0-9]{1,5})?")
_VARIANT_KEY = re.compile(r"(?P<stem>dreams/[0-9]{8}/[0-9a-f]{32})_[a-z0-9_-]{1,32}\.[a-z0-9]{1,5}")
#: An object of a picture that its URL does not name: a variant, or the result of a remake.
_OBJECT_KEY = re.compile(r"(?P<stem>dreams/[0-9]{8}/[0-9a-f]{32})(?:-[0-9]{1,9})?(?:_[a-z0-9_-]{1,64})?\.[a-z0-9]{1,5}")
_DIRECT_KEY = re.compile(rf"{STAGING_PREFIX}[0-9]{{8}}/(?P<upload>[0-9a-f]{{32}})-[0-9]+")
#: The extension of each media type.
_EXTENSION_OF = {each.content_type: each.extension for each in OUTPUT_FORMATS.values()}
#: AWS names no single endpoint: `s3.amazonaws.com`, `s3.<region>.amazonaws.com`, `s3-<region>.…`, with a bucket before.
_AWS_HOST = re.compile(r"(?:(?P<bucket>.+)\.)?s3[.-](?:[a-z0-9-]+\.){0,2}amazonaws\.com(?:\.cn)?")
_MAX_BUCKET_LENGTH = 63


@dataclass(frozen=True)
class Location:
    """A key, and the bucket if the name has one."""

    key: str
    bucket: str | None = None


class Stored(Protocol):
    """The columns of a picture's row that tell the keys of its objects (`dream.db.models.DreamImage`)."""

    @property
    def bucket(self) -> str | None: ...
    @property
    def storage_key(self) -> str: ...
    @property
    def content_type(self) -> str | None: ...
    @property
    def remakes(self) -> int: ...
    @property
    def first_remake(self) -> int: ...
    @property
    def last_remake(self) -> int: ...
    @property
    def variants(self) -> list[StoredVariant]: ...
    @property
    def variant_names(self) -> list[str]: ...
    @property
    def original_bucket(self) -> str | None: ...
    @property
    def original_key(self) -> str | None: ...


class Served(Protocol):
    """The columns that tell who serves a picture's object."""

    @property
    def storage_key(self) -> str: ...
    @property
    def url(self) -> str | None: ...
    @property
    def remakes(self) -> int: ...


def _today() -> str:
    return datetime.now(UTC).strftime("%Y%m%d")


def new_key_stem() -> str:
    """A key without its extension, which follows once the picture's format is known."""
    return f"dreams/{_today()}/{uuid4().hex}"


def new_staging_key() -> str:
    """A new key for uploaded bytes, until their run."""
    return f"{STAGING_PREFIX}{_today()}/{uuid4().hex}"


def direct_key(upload_id: str, index: int) -> str:
    """The staging key of a file of a direct upload. It names the upload, whose row keeps it from the nightly sweep."""
    return f"{STAGING_PREFIX}{_today()}/{UUID(upload_id).hex}-{index}"


def upload_of(staging_key: str) -> str | None:
    """The id of the direct upload that a staging key names; None if it names none."""
    match = _DIRECT_KEY.fullmatch(staging_key)
    return str(UUID(match["upload"])) if match else None


def new_original_key() -> str:
    """A new key for an uploaded file that is kept."""
    return f"originals/{_today()}/{uuid4().hex}"


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
    """The stem of a variant's picture; None if the key is of no variant."""
    match = _VARIANT_KEY.fullmatch(key)
    return match["stem"] if match else None


def object_stem(stem_or_key: str, remake: int) -> str:
    """The beginning of the keys of the objects that this remake makes; remake 0 is the upload's own run."""
    stem = stem_of(stem_or_key)
    return f"{stem}-{remake}" if remake else stem


def object_key(image: Stored) -> str:
    """The key of a stored picture's object. It differs from the key in the URL once the picture was remade."""
    if not image.remakes:
        return image.storage_key
    extension = _EXTENSION_OF.get(image.content_type or "", image.storage_key.rpartition(".")[2])
    return content_key(object_stem(image.storage_key, image.remakes), extension)


def variant_object_key(variant: StoredVariant) -> str:
    """The key of a stored variant's object: the row names it, or else the variant's URL ends with it."""
    return variant.get("key") or "/".join(variant["url"].rsplit("/", 3)[1:])


def is_overwritten(settings: Settings, image: Served) -> bool:
    """Whether a remake must use the same key, because the public reads the object itself under the picture's URL."""
    if image.remakes:
        return False
    url = image.url or ""
    is_public = settings.public_url is not None and url.startswith(f"{settings.public_url}/")
    return is_public or not url.endswith(f"/media/{image.storage_key}")


def keys_of(image: Stored) -> list[str]:
    """Every key under which a run may have stored the picture, one of its variants, or a remake of them."""
    keys = [image.storage_key] if "." in image.storage_key else []
    keys += map(variant_object_key, image.variants or ())
    remakes = {0, image.remakes or 0, *range(image.first_remake or 0, (image.last_remake or 0) + 1)}
    return list(dict.fromkeys([*keys, *keys_of_remakes(image, sorted(remakes))]))


def keys_of_remakes(image: Stored, remakes: Iterable[int]) -> list[str]:
    """Every key under which these remakes may have stored the picture, or one of its variants."""
    stems = [object_stem(image.storage_key, remake) for remake in remakes]
    own = [content_key(stem, extension) for stem in stems for extension in EXTENSIONS]
    names = image.variant_names
    return own + [variant_key(stem, name, extension) for stem in stems for name in names for extension in EXTENSIONS]


def places_of(image: Stored) -> set[tuple[str, str]]:
    """Bucket and key of everything that a run may have stored for the picture, with its original."""
    places = {(image.bucket, key) for key in keys_of(image)} if image.bucket else set()
    if image.original_bucket and image.original_key:
        places.add((image.original_bucket, image.original_key))
    return places


def old_places_of(image: Stored) -> set[tuple[str, str]]:
    """Bucket and key of everything that runs may have stored for a stored picture, without what its row names."""
    if not image.bucket:
        return set()
    named = {object_key(image), *map(variant_object_key, image.variants)}
    return {(image.bucket, key) for key in keys_of(image) if key not in named}


def is_documented_key(key: str) -> bool:
    """Whether the key has the documented pattern; nothing else may be deleted without a row."""
    return _KEY.fullmatch(key) is not None


def canonical_url(settings: Settings, key: str) -> str:
    """The URL of this picture for ever."""
    return f"{settings.media_url}/{key}"


def user_bucket(template: str, username: str) -> str:
    """The bucket of a user: lower case, only `a-z0-9-`, at most 63 characters."""
    name = template.replace("{username}", re.sub(r"[^a-z0-9-]", "", username.lower()))
    return name[:_MAX_BUCKET_LENGTH].strip("-")


def user_buckets(settings: Settings, username: str) -> set[str]:
    """Buckets from which this user's objects may be deleted without a row."""
    buckets = {user_bucket(f"{OLD_BUCKET_PREFIX}{{username}}", username)} if username else set()
    if not settings.is_bucket_per_user:
        buckets.add(settings.s3_bucket)
    elif username:
        buckets.add(user_bucket(settings.s3_bucket, username))
    return buckets


def locate(settings: Settings, name: str) -> Location | None:
    """Read a key or any URL of a picture.

    Parameters:
      name: a key; or a canonical, signed, public, presigned (path or virtual-host style) or old per-user-bucket URL; of
        a picture, or of one of its variants.

    Returns:
      The key, with the bucket if the name has one; None if it names no picture. The key has no extension if the name is
      that of a variant or of a remake's object: a row may be found by it, and no object is deleted without a row.
    """
    if "://" not in name:
        named = _picture_of(name.removeprefix("/").removeprefix("media/"))
        return Location(named) if named is not None else None
    try:
        parts = urlsplit(name)
    except ValueError:  # brackets without an IPv6 address, for example
        return None
    path = unquote(parts.path)
    start = path.rfind("dreams/")
    key = _picture_of(path[start:]) if start >= 0 else None
    if key is None or (start > 0 and path[start - 1] != "/"):
        return None
    return Location(key, _bucket_of(settings, name, parts.hostname or "", path[:start].strip("/")))


def _picture_of(key: str) -> str | None:
    """The key of the picture to which an object belongs; its stem if the object is another one of the picture's."""
    if is_documented_key(key):
        return key
    match = _OBJECT_KEY.fullmatch(key)
    return match["stem"] if match else None


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
    # The gateway's host may have changed since; its path has not.
    return None
