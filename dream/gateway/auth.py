"""Who is asking: tokens checked, owners looked up.

A token says who somebody is (`user_id`); the database says whose a dream is. Neither is taken from anywhere else.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import jwt
from sqlalchemy.exc import IntegrityError

from dream.arguments import MAX_ID, is_text
from dream.db import dreams, tokens
from dream.errors import SettingsError, TokenRejected

if TYPE_CHECKING:
    from dream.db import Database
    from dream.db.dreams import Owner
    from dream.settings import Settings

__all__ = ["Authenticator", "Identity", "bearer_token", "check_secret", "decode", "missing_key_bytes"]

#: An HMAC key shorter than its hash can be guessed (RFC 7518, 3.2).
_HMAC_KEY_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
_MAX_CLAIM_LENGTH = 255


@dataclass(frozen=True)
class Identity:
    """What a valid token says.

    Parameters:
      user_id: the user.
      expires_at: when the token ends.
      jti: the token's own id, by which it can be revoked; None where it has none.
    """

    user_id: int
    expires_at: datetime
    jti: str | None


def check_secret(settings: Settings) -> str:
    """The key that checks signatures.

    Raises:
      SettingsError: it is missing, or the algorithms are unknown or do not go together.
    """
    algorithms = settings.jwt_algorithms
    known = jwt.algorithms.get_default_algorithms()
    unknown = [name for name in algorithms if name not in known]
    if unknown:
        raise SettingsError(
            f"DREAM_JWT_ALGORITHMS={','.join(algorithms)} is wrong: {unknown[0]} is not known here "
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
    """How many bytes the key is short of what its algorithms ask for; 0 where it is long enough.

    A short key is said, not refused: tokens that a site has signed with it until now must stay good.
    """
    key_bytes = len(check_secret(settings).encode())
    wanted = max((_HMAC_KEY_BYTES.get(name, 0) for name in settings.jwt_algorithms), default=0)
    return max(0, wanted - key_bytes)


def bearer_token(value: str) -> str:
    """The token in `Bearer <token>`, or the value itself where it is bare."""
    scheme, _, token = value.strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else value.strip()


def decode(token: str, settings: Settings) -> Identity:
    """Check a token's signature and times, and read who it speaks for.

    Raises:
      TokenRejected: why it cannot be accepted.
    """
    if not token:
        raise TokenRejected("there is no token")
    try:
        claims = jwt.decode(
            token,
            check_secret(settings),
            algorithms=list(settings.jwt_algorithms),
            # Audience, subject and issue time are the issuer's own business.
            options={"require": ["exp"], "verify_aud": False, "verify_sub": False, "verify_iat": False},
        )
    except jwt.ExpiredSignatureError:
        raise TokenRejected("the token has expired") from None
    except jwt.MissingRequiredClaimError as error:
        raise TokenRejected(f"the token has no {error.claim} claim") from None
    except jwt.InvalidSignatureError:
        raise TokenRejected("the token's signature is wrong") from None
    except (jwt.PyJWTError, ArithmeticError, RecursionError, TypeError, ValueError):
        # PyJWT does not wrap all of these: an exp that is a list or Infinity, half a surrogate pair, deep nesting.
        raise TokenRejected("the token is malformed") from None
    if claims.get("token_type") == "refresh":
        raise TokenRejected("this is a refresh token; an access token is needed")
    return Identity(_user_id(claims), _expiry(claims), _jti(claims))


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
        return datetime.fromtimestamp(int(claims["exp"]), UTC)
    except (OverflowError, TypeError, ValueError, OSError):
        raise TokenRejected("the token's exp claim is no time") from None


def _jti(claims: dict[str, Any]) -> str | None:
    value = claims.get("jti")
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_CLAIM_LENGTH or not is_text(value):
        raise TokenRejected(f"the token's jti claim must be a text of 1 to {_MAX_CLAIM_LENGTH} characters")
    return value


class Authenticator:
    """Checks tokens against the database. Its methods wait for the database: call them in a thread.

    Parameters:
      settings: key, algorithms, and how owners are found.
      database: where revoked tokens and owners are.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database

    def identify(self, token: str) -> Identity:
        """Who the token speaks for.

        Raises:
          TokenRejected: it is malformed, expired or revoked.
        """
        return self.confirm(decode(token, self._settings))

    def confirm(self, identity: Identity) -> Identity:
        """The identity of a decoded token, if it was not revoked.

        Raises:
          TokenRejected: it was revoked.
        """
        if identity.jti is not None:
            with self._database.read() as session:
                if tokens.is_revoked(session, identity.jti):
                    raise TokenRejected("the token was revoked")
        return identity

    def owner_of(self, dream_id: int) -> Owner | None:
        """The dream's owner, or None where there is no such dream."""
        with self._database.read() as session:
            return dreams.owner_of(session, dream_id, self._settings.owners_sql)

    def authorize(self, identity: Identity, dream_id: int) -> None:
        """Check that the user of a checked token owns the dream.

        Raises:
          TokenRejected: the token was revoked, or the dream is somebody else's or nobody's.
        """
        self.confirm(identity)
        owner = self.owner_of(dream_id)
        if owner is None or owner.user_id != identity.user_id:
            raise TokenRejected("the token's user does not own this dream")

    def revoke(self, identity: Identity) -> None:
        """Refuse the token from now on. A second time changes nothing.

        Raises:
          TokenRejected: the token has no `jti`, so it cannot be told from others.
        """
        if identity.jti is None:
            raise TokenRejected("the token has no jti claim, so it cannot be revoked; it ends when it expires")
        # Two requests at once: the one that comes second finds the work done.
        with contextlib.suppress(IntegrityError), self._database.begin() as session:
            tokens.revoke(session, identity.jti, identity.expires_at, identity.user_id)
