"""Decide who sees a picture (`DREAM_MEDIA_ACCESS`), before anything is looked up.

link      everybody
signed    a signed URL; one that names a user also needs this user's token or cookie
owner     the token or the cookie of the user to whom the dream belongs
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from dream.errors import TokenKeysUnavailable, TokenRejected
from dream.gateway.auth import Identity, token_of
from dream.gateway.catalogue import ExpiringCache
from dream.media.signatures import COOKIE, Grant, cookie_of, read_cookie, verify

if TYPE_CHECKING:
    from dream.gateway.auth import Authenticator
    from dream.gateway.catalogue import Shown
    from dream.settings import Settings

__all__ = ["Access", "Permission", "drop_cookie", "set_cookie"]

#: No dream has this number. A look-up for it makes a missing picture take as long as another.
_NO_DREAM = 0


class Permission(NamedTuple):
    """A permission to see a picture.

    Parameters:
      expires_at: its end, in seconds since the epoch; None if it has none.
      user: the user who has to own the picture, or has to be signed in; None if it is for everybody.
      must_own: whether the picture's dream has to belong to this user.
    """

    expires_at: float | None = None
    user: Grant | None = None
    must_own: bool = False


_EVERYBODY = Permission()


class Access:
    """Permissions of one gateway process.

    Parameters:
      settings: the kind of access, and the keys.
      authenticator: looks up owners and revoked tokens.
      keep_s: the time for which both are kept.
    """

    def __init__(self, settings: Settings, authenticator: Authenticator, keep_s: float) -> None:
        self._settings = settings
        self._authenticator = authenticator
        self._owners: ExpiringCache[int, str] = ExpiringCache(self._owner_of, keep_s)
        self._confirmed: ExpiringCache[Grant, bool] = ExpiringCache(self._is_confirmed, keep_s)

    def permit(self, request: Request, key: str) -> Permission | None:
        """The permission that the request brings for this key; None if it brings none. Nothing is looked up.

        Parameters:
          key: the path behind `/media/`.
        """
        settings = self._settings
        if settings.media_access == "link":
            return _EVERYBODY
        if settings.media_access == "owner":
            user = self._user_of(request)
            return Permission(user.expires_at, user, must_own=True) if user else None
        grant = verify(
            settings, key, parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        )
        if grant is None or grant.user is None:
            return Permission(grant.expires_at) if grant else None
        user = self._user_of(request)
        is_his = user is not None and user.user == grant.user
        return Permission(grant.expires_at, user) if is_his else None

    async def confirm(self, permission: Permission, shown: Shown | None) -> bool:
        """Whether the permission is for this picture and was not revoked; a missing picture takes the same time."""
        user = permission.user
        if user is None:
            return shown is not None
        if user.jti is not None and not await self._confirmed.find(user):
            return False
        if not permission.must_own:
            return shown is not None
        owner = await self._owners.find(shown.dream_id if shown is not None else _NO_DREAM)
        return shown is not None and owner == user.user

    def _user_of(self, request: Request) -> Grant | None:
        """The user of a token, or else of the cookie."""
        token = token_of(request)
        if not token:
            return read_cookie(self._settings, request.cookies) if "cookie" in request.headers else None
        try:
            identity = self._authenticator.decode(token)
        except (TokenRejected, TokenKeysUnavailable):
            return None
        return _grant(identity)

    def _owner_of(self, dream_id: int) -> str | None:
        owner = self._authenticator.owner_of(dream_id)
        return owner.user if owner is not None else None

    def _is_confirmed(self, grant: Grant) -> bool | None:
        return None if self._authenticator.is_revoked(grant.jti) else True


def _grant(identity: Identity) -> Grant:
    return Grant(int(identity.expires_at.timestamp()), identity.user, identity.jti)


# --- the cookie


def set_cookie(response: Response, settings: Settings, identity: Identity, left_s: float) -> None:
    """Give a browser the cookie that shows its user's own pictures, until the end of the token."""
    value = cookie_of(settings, _grant(identity))
    _write_cookie(response, settings, value, max(0, int(left_s)))


def drop_cookie(response: Response, settings: Settings) -> None:
    """Take the cookie from a browser."""
    _write_cookie(response, settings, "", 0)


def _write_cookie(response: Response, settings: Settings, value: str, max_age_s: int) -> None:
    address = urlsplit(settings.gateway_url)
    response.set_cookie(
        COOKIE,
        value,
        max_age=max_age_s,
        path=f"{address.path}/media",
        secure=address.scheme == "https",
        httponly=True,
        samesite="lax",
    )
