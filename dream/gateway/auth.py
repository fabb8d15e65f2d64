"""Check tokens, and look up the owners of dreams.

The user comes from the token alone (`user_id`), the owner of a dream from the database alone.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import jwt
from sqlalchemy.exc import IntegrityError

from dream.db import dreams
from dream.db.blacklist import blacklist_of
from dream.errors import SettingsError, TokenRejected
from dream.messages.arguments import MAX_ID
from dream.work.text import is_text

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from dream.db import Database
    from dream.db.dreams import Owner
    from dream.settings import Settings

__all__ = ["Authenticator", "Identity", "bearer_token", "check_secret", "decode", "missing_key_bytes", "token_of"]

#: An HMAC key must be as long as its hash, because a shorter one can be guessed (RFC 7518, 3.2).
_HMAC_KEY_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
_MAX_CLAIM_LENGTH = 255
#: The issuer's clock may be ahead by this: a fresh token is accepted although its `nbf` is in the future.
_CLOCKS_DIFFER_S = 10
_EXPIRED = "the token has expired"


@dataclass(frozen=True)
class Identity:
    """The content of a valid token.

    Parameters:
      user_id: the user.
      expires_at: the end of the token.
      jti: the token's id, which a revocation needs; None if it has none.
      is_operator: whether the token lets its user see and change the work of the whole system (`DREAM_OPERATOR_CLAIM`).
    """

    user_id: int
    expires_at: datetime
    jti: str | None
    is_operator: bool = False


def check_secret(settings: Settings) -> str:
    """The key for signatures.

    Raises:
      SettingsError: it is missing, or an algorithm is unknown, or the algorithms need different keys.
    """
    algorithms = settings.jwt_algorithms
    known = jwt.algorithms.get_default_algorithms()
    unknown = [name for name in algorithms if name not in known]
    if unknown:
        raise SettingsError(
            f"DREAM_JWT_ALGORITHMS={','.join(algorithms)} is wrong: {unknown[0]} is not known "
            "(public-key algorithms need the package cryptography)"
        )
    if settings.jwt_secret is None:
        raise SettingsError("DREAM_JWT_SECRET is missing: the gateway checks every token with it")
    secret = settings.jwt_secret.get_secret_value()
    shared = [name for name in algorithms if name in _HMAC_KEY_BYTES]
    if shared and len(shared) < len(algorithms):
        raise SettingsError(
            f"DREAM_JWT_ALGORITHMS={','.join(algorithms)} is wrong: HS… and public-key algorithms cannot share a key"
        )
    return secret


def missing_key_bytes(settings: Settings) -> int:
    """The number of bytes that the key lacks for its algorithms; 0 if it is long enough.

    A short key is reported, not refused: existing tokens of a site must stay valid.
    """
    key_bytes = len(check_secret(settings).encode())
    wanted = max((_HMAC_KEY_BYTES.get(name, 0) for name in settings.jwt_algorithms), default=0)
    return max(0, wanted - key_bytes)


def bearer_token(value: str) -> str:
    """The token in `Bearer <token>`, or in a value without `Bearer`."""
    scheme, _, token = value.strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else value.strip()


def token_of(connection: HTTPConnection) -> str:
    """The token in the `Authorization` header; an empty string if there is none."""
    return bearer_token(connection.headers.get("authorization", ""))


def decode(token: str, settings: Settings) -> Identity:
    """Check a token's signature and times, and read its user.

    Raises:
      TokenRejected: the token is not accepted, with the reason.
    """
    if not token:
        raise TokenRejected("there is no token")
    try:
        claims = jwt.decode(
            token,
            check_secret(settings),
            algorithms=list(settings.jwt_algorithms),
            # Audience, subject and issue time matter to the issuer alone.
            options={"require": ["exp"], "verify_aud": False, "verify_sub": False, "verify_iat": False},
            leeway=_CLOCKS_DIFFER_S,
        )
    except jwt.ExpiredSignatureError:
        raise TokenRejected(_EXPIRED) from None
    except jwt.ImmatureSignatureError:
        raise TokenRejected("the token is not valid yet: its nbf claim is in the future") from None
    except jwt.MissingRequiredClaimError as error:
        raise TokenRejected(f"the token has no {error.claim} claim") from None
    except jwt.InvalidSignatureError:
        raise TokenRejected("the token's signature is wrong") from None
    except (jwt.PyJWTError, ArithmeticError, RecursionError, TypeError, ValueError):
        # PyJWT lets some through: an exp that is a list or Infinity, half a surrogate pair, deep nesting.
        raise TokenRejected("the token is malformed") from None
    if claims.get("token_type") == "refresh":
        raise TokenRejected("this is a refresh token; an access token is needed")
    # Only JSON's true counts: a text such as "false" makes nobody an operator.
    is_operator = claims.get(settings.operator_claim) is True
    return Identity(_user_id(claims), _expiry(claims), _jti(claims), is_operator)


def _user_id(claims: dict[str, Any]) -> int:
    value = claims.get("user_id")
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 19:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TokenRejected("the token has no user_id claim that is a number")
    if not -MAX_ID <= value <= MAX_ID:
        raise TokenRejected("the token's user_id claim is larger than any id")
    return value


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
    """Checks tokens against the database. Its methods block: call them in a thread.

    Parameters:
      settings: key, algorithms, and the query for owners.
      database: has the revoked tokens and the owners.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._blacklist = blacklist_of(settings)

    def identify(self, token: str) -> Identity:
        """The user and times of a token.

        Raises:
          TokenRejected: it is malformed, expired or revoked.
        """
        return self.confirm(decode(token, self._settings))

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
        owner = self.owner_of(dream_id)
        if owner is None or owner.user_id != identity.user_id:
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
