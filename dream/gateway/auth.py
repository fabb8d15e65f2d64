"""Check tokens, and look up the owners of dreams.

The user comes from the token alone (`DREAM_JWT_USER_CLAIM`), the owner of a dream from the database alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import jwt
from sqlalchemy.exc import IntegrityError
from starlette.concurrency import run_in_threadpool

from dream.db import dreams
from dream.db.blacklist import blacklist_of
from dream.errors import InvalidArguments, TokenKeysUnavailable, TokenRejected
from dream.gateway.keys import REFRESH_S, Keys, UnknownKey
from dream.messages.users import user_number, user_text
from dream.work.text import is_text

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from dream.db import Database
    from dream.db.dreams import Owner
    from dream.settings import Settings

__all__ = ["Authenticator", "Identity", "bearer_token", "decode", "token_of"]

_MAX_CLAIM_LENGTH = 255
#: The issuer's clock may be ahead by this: a fresh token is accepted although its `nbf` is in the future.
_CLOCKS_DIFFER_S = 10
#: Types of tokens for requests (RFC 8725, 3.11; RFC 9068). Others are for other uses, such as a logout.
_TYPES = frozenset({"jwt", "at+jwt"})
_EXPIRED = "the token has expired"


@dataclass(frozen=True)
class Identity:
    """The content of a valid token.

    Parameters:
      user: the user, as a text.
      expires_at: the end of the token.
      jti: the token's id, which a revocation needs; None if it has none.
      is_operator: whether the token lets its user see and change the work of the whole system (`DREAM_OPERATOR_CLAIM`).
    """

    user: str
    expires_at: datetime
    jti: str | None
    is_operator: bool = False

    @property
    def user_id(self) -> int:
        """The number that counts for the user. Compare owners by `user`."""
        return user_number(self.user)

    def owns(self, owner: Owner | None) -> bool:
        """Whether the user is this owner of a dream."""
        return owner is not None and owner.user == self.user


def bearer_token(value: str) -> str:
    """The token in `Bearer <token>`, or in a value without `Bearer`."""
    scheme, _, token = value.strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else value.strip()


def token_of(connection: HTTPConnection) -> str:
    """The token in the `Authorization` header; an empty string if there is none."""
    return bearer_token(connection.headers.get("authorization", ""))


def decode(token: str, settings: Settings, keys: Keys) -> Identity:
    """Check a token's signature, times, audience and issuer, and read its user.

    Raises:
      TokenRejected: the token is not accepted, with the reason. `UnknownKey`: new keys may help.
      TokenKeysUnavailable: no key of the issuer was read yet.
    """
    if not token:
        raise TokenRejected("there is no token")
    claims = _claims(token, settings, keys)
    # Keycloak writes the kind of its tokens into a claim, simplejwt into another one.
    if claims.get("token_type") == "refresh" or claims.get("typ") in ("Refresh", "Offline"):
        raise TokenRejected("this is a refresh token; an access token is needed")
    if claims.get("typ") == "ID":
        raise TokenRejected("this is an ID token; an access token is needed")
    # Only JSON's true counts: a text such as "false" makes nobody an operator.
    is_operator = claims.get(settings.operator_claim) is True
    return Identity(_user(claims, settings.jwt_user_claim), _expiry(claims), _jti(claims), is_operator)


def _claims(token: str, settings: Settings, keys: Keys) -> dict[str, Any]:
    """The claims of a token that one of the keys has signed."""
    with _rejecting():
        header = jwt.get_unverified_header(token)
        if str(header.get("typ", "JWT")).lower().removeprefix("application/") not in _TYPES:
            raise TokenRejected("the token is of another type: its typ is neither JWT nor at+jwt")
        algorithm = str(header.get("alg"))
        for key in keys.fitting(algorithm, header.get("kid")):
            with contextlib.suppress(jwt.InvalidSignatureError):
                return _checked(token, settings, key.material, algorithm)
        raise jwt.InvalidSignatureError


def _checked(token: str, settings: Settings, key: Any, algorithm: str) -> dict[str, Any]:
    return jwt.decode(
        token,
        key,
        algorithms=[algorithm],  # one that fits the key and that the operator accepts
        audience=settings.jwt_audience or None,
        issuer=settings.jwt_issuer or None,
        # Subject and issue time matter to the issuer alone.
        options={
            "require": ["exp"],
            "verify_aud": bool(settings.jwt_audience),
            "verify_iss": bool(settings.jwt_issuer),
            "verify_sub": False,
            "verify_iat": False,
        },
        leeway=_CLOCKS_DIFFER_S,
    )


@contextlib.contextmanager
def _rejecting() -> Iterator[None]:
    """Turn the library's errors into sentences."""
    try:
        yield
    except jwt.ExpiredSignatureError:
        raise TokenRejected(_EXPIRED) from None
    except jwt.ImmatureSignatureError:
        raise TokenRejected("the token is not valid yet: its nbf claim is in the future") from None
    except jwt.MissingRequiredClaimError as error:
        raise TokenRejected(f"the token has no {error.claim} claim") from None
    except jwt.InvalidSignatureError:
        raise TokenRejected("the token's signature is wrong") from None
    except jwt.InvalidAudienceError:
        raise TokenRejected("the token is for another audience: see its aud claim") from None
    except jwt.InvalidIssuerError:
        raise TokenRejected("the token is from another issuer: see its iss claim") from None
    except (jwt.PyJWTError, ArithmeticError, RecursionError, TypeError, ValueError):
        # PyJWT lets some through: an exp that is a list or Infinity, half a surrogate pair, deep nesting.
        raise TokenRejected("the token is malformed") from None


def _user(claims: dict[str, Any], claim: str) -> str:
    value = claims.get(claim)
    if value is None:
        raise TokenRejected(f"the token has no {claim} claim, which names the user")
    try:
        return user_text(value, f"the token's {claim} claim")
    except InvalidArguments as error:
        raise TokenRejected(str(error)) from None


def _expiry(claims: dict[str, Any]) -> datetime:
    try:
        expires_at = datetime.fromtimestamp(int(claims["exp"]), UTC)
    except (OverflowError, TypeError, ValueError, OSError):
        raise TokenRejected("the token's exp claim is no time") from None
    if expires_at <= datetime.now(UTC):  # without the leeway of `nbf`
        raise TokenRejected(_EXPIRED)
    return expires_at


def _jti(claims: dict[str, Any]) -> str | None:
    value = claims.get("jti")
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_CLAIM_LENGTH or not is_text(value):
        raise TokenRejected(f"the token's jti claim must be a text of 1 to {_MAX_CLAIM_LENGTH} characters")
    return value


class Authenticator:
    """Checks tokens by the keys, and against the database. Methods that ask the database block: call them in a thread.

    Parameters:
      settings: keys, algorithms, and the query for owners.
      database: has the revoked tokens and the owners.

    Raises:
      SettingsError: there is no usable key for tokens.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._blacklist = blacklist_of(settings)
        self.keys = Keys(settings)
        self._refreshing = asyncio.Lock()

    def decode(self, token: str) -> Identity:
        """The content of a token, by the keys that are there now. It does not block.

        Raises:
          TokenRejected: the token is not accepted, with the reason.
          TokenKeysUnavailable: no key of the issuer was read yet.
        """
        return decode(token, self._settings, self.keys)

    async def identity_of(self, token: str) -> Identity:
        """The content of a token. If its key is unknown, the keys are read again, at most once a minute.

        Raises:
          TokenRejected: the token is not accepted, with the reason.
          TokenKeysUnavailable: no key of the issuer was read yet.
        """
        try:
            return self.decode(token)
        except (UnknownKey, TokenKeysUnavailable):
            if not self.keys.can_change:
                raise
        async with self._refreshing:  # others wait here, and hold no thread
            await run_in_threadpool(partial(self.keys.refresh, is_unknown=True))
        return self.decode(token)

    async def keep_keys(self) -> None:
        """Read the keys again every few minutes, until the task is cancelled."""
        while self.keys.can_change:
            await asyncio.sleep(REFRESH_S)
            await run_in_threadpool(self.keys.refresh)

    def confirm(self, identity: Identity) -> Identity:
        """Return the identity of a token that was not revoked.

        Raises:
          TokenRejected: the token was revoked.
        """
        if self.is_revoked(identity.jti):
            raise TokenRejected("the token was revoked")
        return identity

    def is_revoked(self, jti: str | None) -> bool:
        """Whether the token of that id was revoked."""
        if jti is None:
            return False
        with self._database.read() as session:
            return self._blacklist.is_revoked(session, jti)

    def revoked_among(self, jtis: Collection[str]) -> set[str]:
        """Those of the ids whose tokens were revoked, by one query."""
        with self._database.read() as session:
            return self._blacklist.revoked_among(session, jtis)

    def owner_of(self, dream_id: int) -> Owner | None:
        """The dream's owner; None if there is no such dream."""
        with self._database.read() as session:
            return dreams.owner_of(session, dream_id, self._settings.owners_sql)

    def authorize(self, identity: Identity, dream_id: int) -> None:
        """Check that the user of a checked token owns the dream.

        Raises:
          TokenRejected: the token was revoked, or the dream has another owner or none.
        """
        self.confirm(identity)
        if not identity.owns(self.owner_of(dream_id)):
            raise TokenRejected("the token's user does not own this dream")

    def revoke(self, identity: Identity) -> None:
        """Refuse the token from now on. A second call changes nothing.

        Raises:
          TokenRejected: the token has no `jti`, so no row can name it.
        """
        if identity.jti is None:
            raise TokenRejected("the token has no jti claim, so it cannot be revoked; it ends when it expires")
        # Of two requests at once the second one meets the first one's row.
        with contextlib.suppress(IntegrityError), self._database.begin() as session:
            self._blacklist.revoke(session, identity.jti, identity.expires_at, identity.user_id)
