"""`dream token`: a signed JWT for development."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from dream.cli.access import MAX_ID, load_quietly, opened
from dream.errors import DreamError, SettingsError

if TYPE_CHECKING:
    from dream.producer import Producer
    from dream.settings import Settings

__all__ = ["DEFAULT_TTL_S", "give_dream", "register", "sign"]

DEFAULT_TTL_S = 86_400
_MAX_TTL_S = 10 * 365 * 86_400
_MAX_USERNAME_LENGTH = 150


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(token)


def token(
    user_id: Annotated[int, typer.Option(min=1, max=MAX_ID, help="The user for whom the token speaks.")],
    dream_id: Annotated[
        int | None, typer.Option(min=1, max=MAX_ID, help="Make this dream that user's.", show_default=False)
    ] = None,
    ttl: Annotated[int, typer.Option(min=1, max=_MAX_TTL_S, metavar="S", help="Valid for S seconds.")] = DEFAULT_TTL_S,
    username: Annotated[
        str | None, typer.Option(help="The dream's owner by name; user<N> without.", show_default=False)
    ] = None,
) -> None:
    """Print a signed token for development, and with --dream-id make the dream that user's."""
    settings = load_quietly()
    signed = sign(settings, user_id, ttl)
    if dream_id is not None:
        with opened(settings) as producer:
            give_dream(producer, settings, dream_id, user_id, username)
    typer.echo(signed)


def sign(settings: Settings, user_id: int, ttl_s: int) -> str:
    """A token of that user's, as the gateway accepts it.

    Raises:
      SettingsError: there is no usable key, or it only checks signatures.
    """
    import jwt

    from dream.gateway.auth import check_secret

    key, algorithm = check_secret(settings), settings.jwt_algorithms[0]
    if not algorithm.startswith("HS"):
        raise SettingsError(
            f"DREAM_JWT_ALGORITHMS={algorithm}: DREAM_JWT_SECRET only checks such tokens; "
            "whoever holds the private key signs them"
        )
    issued_at = int(time.time())
    claims = {"user_id": user_id, "jti": uuid4().hex, "iat": issued_at, "exp": issued_at + ttl_s}
    with warnings.catch_warnings():
        # That a key is short is for `dream doctor` to say.
        warnings.simplefilter("ignore")
        return jwt.encode(claims, key, algorithm)


def give_dream(
    producer: Producer, settings: Settings, dream_id: int, user_id: int, username: str | None = None
) -> None:
    """Make the dream that user's.

    Raises:
      DreamError: owners are kept in a table that is not ours, or the name is too long.
    """
    from dream.db.dreams import give_to

    if settings.owners_sql:
        raise DreamError("DREAM_OWNERS_SQL is set: a dream's owner is in a table that is not ours to change")
    name = username or f"user{user_id}"
    if len(name) > _MAX_USERNAME_LENGTH:
        raise DreamError(f"a username may have at most {_MAX_USERNAME_LENGTH} characters, not {len(name)}")
    with producer.database.begin() as session:
        give_to(session, dream_id, user_id, name)
