"""Sign URLs and cookies of pictures with `DREAM_MEDIA_KEYS`, and check them.

    https://…/media/dreams/20260101/<32 hex>.jpg?exp=1767229200&signature=…          for everybody
    https://…/media/dreams/20260101/<32 hex>.jpg?exp=1767229200&user=7&signature=…   for user 7, with token or cookie

A signature covers the path, `v` (the wanted variant), `exp` and `user`. It does not cover the host, which a proxy may
change, nor `download`. An end is rounded up, so that everybody gets the same URL for a while and caches keep it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from dream.errors import InvalidArguments, SettingsError
from dream.messages.users import UserId, user_text
from dream.settings.types import LONGEST_SIGNED_S

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["COOKIE", "Grant", "cookie_of", "read_cookie", "sign", "sign_with", "verify", "viewable", "viewable_with"]

#: The name of the cookie.
COOKIE = "dream_media"
#: Parameters of a signed URL, in their order.
_EXP, _USER, _SIGNATURE = "exp", "user", "signature"
#: Bytes of the HMAC-SHA256 that a signature keeps.
_MAC_BYTES = 24
#: The key at the end of a picture's path, also of a variant.
_KEY = re.compile(r"(?:^|/)(?P<key>dreams/[0-9]{8}/[0-9a-f]{32}[^/]*)\Z")
_NUMBER = re.compile(r"-?[0-9]{1,19}", re.ASCII)


class Grant(NamedTuple):
    """A permission that a signature or a cookie gives.

    Parameters:
      expires_at: its end, in seconds since the epoch.
      user: the user to whom it belongs, as a text; None means everybody who has the URL.
      jti: the id of the token with which a cookie was made; a revocation of the token ends the cookie too.
    """

    expires_at: int
    user: str | None = None
    jti: str | None = None


def sign(url: str, ttl_s: float | None = None, user_id: UserId | None = None) -> str:
    """Sign the URL of a picture or of a variant, for `DREAM_MEDIA_ACCESS=signed`.

    Parameters:
      url: the canonical URL, as lists and events have it.
      ttl_s: seconds for which it is valid, at least; at most half as long again. None means `DREAM_MEDIA_TTL_S`.
      user_id: the only user who may use it, with a token or the cookie of `POST /api/auth/media-cookie`.

    Raises:
      InvalidArguments: the URL names no picture, or a value is out of its range.
      SettingsError: `DREAM_MEDIA_KEYS` is not set.
    """
    from dream.settings import load

    return sign_with(load(), url, ttl_s, user_id)


def viewable(url: str) -> str:
    """The URL for a page: signed where `DREAM_MEDIA_ACCESS=signed`, else the URL itself."""
    from dream.settings import load

    return viewable_with(load(), url)


def viewable_with(settings: Settings, url: str) -> str:
    """See `viewable`."""
    return sign_with(settings, url) if settings.media_access == "signed" else url


def sign_with(
    settings: Settings, url: str, ttl_s: float | None = None, user_id: UserId | None = None, *, now: float | None = None
) -> str:
    """See `sign`.

    Parameters:
      now: the moment, in seconds since the epoch; the current one by default.
    """
    ttl_s = settings.media_ttl_s if ttl_s is None else ttl_s
    _check(ttl_s)
    parts = urlsplit(url)
    found = _KEY.search(unquote(parts.path))
    if found is None:
        raise InvalidArguments(f"url must be the URL of a picture, not {url!r:.100}")
    query = [each for each in parse_qsl(parts.query, True) if each[0] not in {_EXP, _USER, _SIGNATURE}]
    exp = str(_end(time.time() if now is None else now, ttl_s))
    user = "" if user_id is None else user_text(user_id)
    signature = _mac(_keys(settings)[0], "picture", found["key"], dict(query).get("v", ""), exp, user)
    query += [(_EXP, exp), *([(_USER, user)] if user else []), (_SIGNATURE, signature)]
    return urlunsplit(parts._replace(query=urlencode(query)))


def _check(ttl_s: Any) -> None:
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, int | float) or not 1 <= ttl_s <= LONGEST_SIGNED_S:
        raise InvalidArguments(f"ttl_s must be 1 to {LONGEST_SIGNED_S} seconds, not {ttl_s!r:.100}")


def _end(now: float, ttl_s: float) -> int:
    """The time at which a signature ends that is made now: a multiple of half its life."""
    step_s = max(1, int(ttl_s) // 2)
    return (int(now + ttl_s) // step_s + 1) * step_s


def verify(settings: Settings, key: str, query: list[tuple[str, str]], *, now: float | None = None) -> Grant | None:
    """The permission that the query of a signed URL gives for this key; None if it gives none.

    Parameters:
      key: the path behind `/media/`, without percent signs.
      query: names and values, as often as they are there.
    """
    names = [name for name, _ in query]
    values = dict(query)
    if any(names.count(name) > 1 for name in (_EXP, _USER, _SIGNATURE, "v")):
        return None
    exp, user, signature = (values.get(name, "") for name in (_EXP, _USER, _SIGNATURE))
    if not _NUMBER.fullmatch(exp):
        return None
    if not _is_signed(settings, signature, "picture", key, values.get("v", ""), exp, user):
        return None
    is_over = int(exp) <= (time.time() if now is None else now)
    return None if is_over else Grant(int(exp), user or None)


# --- the cookie


def cookie_of(settings: Settings, grant: Grant) -> str:
    """The value of the cookie that shows a user's own pictures."""
    jti = _to_base64(grant.jti or "")
    said = (_packed(grant.user or ""), str(grant.expires_at), jti)
    return ".".join((*said, _mac(_keys(settings)[0], "cookie", *said)))


def read_cookie(settings: Settings, cookies: Mapping[str, str], *, now: float | None = None) -> Grant | None:
    """The permission in the cookie of a request; None if there is no valid one."""
    parts = cookies.get(COOKIE, "").split(".")
    if len(parts) != 4 or not _NUMBER.fullmatch(parts[1]):
        return None
    user, exp, jti, signature = parts
    if not _is_signed(settings, signature, "cookie", user, exp, jti):
        return None
    if int(exp) <= (time.time() if now is None else now):
        return None
    return Grant(int(exp), _unpacked(user), _from_base64(jti) or None)


def _packed(user: str) -> str:
    """The user as a part of a cookie: a number as it is, as older releases write it, another text in base64."""
    return user if _NUMBER.fullmatch(user) else f"~{_to_base64(user)}"


def _unpacked(part: str) -> str:
    return _from_base64(part[1:]) if part.startswith("~") else part


def _to_base64(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _from_base64(text: str) -> str:
    return base64.urlsafe_b64decode(f"{text}{'=' * (-len(text) % 4)}").decode()


# --- keys


def _keys(settings: Settings) -> list[str]:
    if settings.media_keys is None:
        raise SettingsError("DREAM_MEDIA_KEYS is missing: it signs the URLs of pictures")
    return settings.media_keys.get_secret_value().split(",")


def _is_signed(settings: Settings, signature: str, *said: str) -> bool:
    """Whether one of the keys made the signature."""
    given = signature.encode()
    return any(hmac.compare_digest(given, _mac(key, *said).encode()) for key in _keys(settings))


def _mac(key: str, *said: str) -> str:
    """The signature of some texts, each with its length, so that none can run into the next."""
    text = "".join(f"{len(each)}:{each}" for each in said)
    mac = hmac.new(key.encode(), text.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(mac[:_MAC_BYTES]).decode()
