"""`dream token`: a signed JWT for development."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from dream.arguments import MAX_ID
from dream.cli.access import load_quietly, opened
from dream.errors import SettingsError

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["DEFAULT_TTL_S", "register", "sign"]

DEFAULT_TTL_S = 86_400
_MAX_TTL_S = 10 * 365 * 86_400


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(token)


def token(
    user_id: Annotated[int, typer.Option(min=1, max=MAX_ID, metavar="N", help="The user for whom the token speaks.")],
    dream_id: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_ID, metavar="N", help="Make this dream that user's.", show_default=False),
    ] = None,
    ttl: Annotated[int, typer.Option(min=1, max=_MAX_TTL_S, metavar="S", help="Valid for S seconds.")] = DEFAULT_TTL_S,
    username: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The name of the dream's owner; user<N> by default.", show_default=False),
    ] = None,
) -> None:
    """Print a signed token for development, and with --dream-id make the dream that user's."""
    settings = load_quietly()
    signed = sign(settings, user_id, ttl)
    if dream_id is not None:
        with opened(settings) as producer:
            producer.set_owner(dream_id, user_id, username or f"user{user_id}")
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
