"""Presigned URLs: the same string for everybody during a window, so that caches keep the object.

boto3 signs for the current second, so each view would get a new URL. Signature Version 4 in the query string;
source: AWS, "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["Keys", "SignedUrl", "Window", "sign", "signed_host", "window_at"]

_ALGORITHM = "AWS4-HMAC-SHA256"
_UNRESERVED = "-_.~"
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class SignedUrl:
    """A URL that needs no credentials.

    Parameters:
      url: the URL.
      keep_s: how long a client may keep it; 0 means not at all.
    """

    url: str
    keep_s: int


@dataclass(frozen=True)
class Keys:
    """Credentials and region to sign with.

    Parameters:
      token: the session token of temporary credentials.
      region: the region of the bucket, as the store knows it.
    """

    access_key: str
    secret_key: str
    token: str | None
    region: str


@dataclass(frozen=True)
class Window:
    """A span in which every process signs the same URL.

    Parameters:
      signed_at: its beginning, in seconds since the epoch; never in the future.
      lives_s: how long the URL is valid from then on.
      left_s: how long from now on this URL is given out.
    """

    signed_at: int
    lives_s: int
    left_s: float


def window_at(settings: Settings, now: float) -> Window:
    """The window of this moment. In every process windows begin at multiples of their length.

    A URL that is given out in its window's last second is still valid for `DREAM_MEDIA_FORGET_S`.
    """
    length_s = settings.sign_window_s
    signed_at = int(now) - int(now) % length_s if length_s else int(now)
    return Window(signed_at, settings.signed_url_life_s, signed_at + length_s - now)


def signed_host(url: str) -> str:
    """The `Host` header of a request for this URL, which its signature covers."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return host if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f"{host}:{parts.port}"


def sign(
    url: str,
    keys: Keys,
    window: Window,
    method: str = "GET",
    disposition: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> str:
    """Sign the URL of an object, which has a quoted path and no query.

    Parameters:
      disposition: the `Content-Disposition` of the store's answer.
      headers: further headers that the request must have with these values, with names in lower case.
    """
    signed = dict(sorted({"host": signed_host(url), **(headers or {})}.items()))
    names = ";".join(signed)
    stamp = datetime.fromtimestamp(window.signed_at, UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{keys.region}/s3/aws4_request"
    query = {
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{keys.access_key}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(window.lives_s),
        "X-Amz-SignedHeaders": names,
        **({"X-Amz-Security-Token": keys.token} if keys.token else {}),
        **({"response-content-disposition": disposition} if disposition else {}),
    }
    lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
    path = urlsplit(url).path
    canonical = "\n".join((method, path, _encoded(dict(sorted(query.items()))), lines, names, "UNSIGNED-PAYLOAD"))
    text = "\n".join((_ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    signature = hmac.new(_signing_key(keys.secret_key, scope), text.encode(), hashlib.sha256).hexdigest()
    return f"{url}?{_encoded(query)}&X-Amz-Signature={signature}"


def _encoded(query: dict[str, str]) -> str:
    return urlencode(query, safe=_UNRESERVED, quote_via=quote)


@lru_cache(maxsize=64)
def _signing_key(secret_key: str, scope: str) -> bytes:
    key = f"AWS4{secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
