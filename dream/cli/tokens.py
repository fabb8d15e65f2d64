"""`dream token`: a signed JWT for development."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from dream.cli.command import Command, as_usage, load_quietly, opened
from dream.errors import SettingsError
from dream.messages.arguments import MAX_ID
from dream.messages.users import UserId, check_owner, number_and_text

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["DEFAULT_TTL_S", "register", "sign"]

DEFAULT_TTL_S = 86_400
_MAX_TTL_S = 10 * 365 * 86_400


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(cls=Command)(token)


def token(
    user_id: Annotated[str, typer.Option(metavar="USER", help="The user of the token: a number or a text.")],
    dream_id: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_ID, metavar="N", help="Make this user the owner of that dream.", show_default=False
        ),
    ] = None,
    ttl: Annotated[int, typer.Option(min=1, max=_MAX_TTL_S, metavar="S", help="Valid for S seconds.")] = DEFAULT_TTL_S,
    username: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The owner's name; user and USER by default.", show_default=False),
    ] = None,
    operator: Annotated[bool, typer.Option("--operator", help="The token opens the page of operators, /ops.")] = False,
) -> None:
    """Print a signed token for development. With --dream-id also make the user the dream's owner."""
    username = username or f"user{user_id}"[:150]
    with as_usage():
        check_owner(dream_id or 1, user_id, username)
    settings = load_quietly()
    signed = sign(settings, user_id, ttl, is_operator=operator)
    if dream_id is not None:
        with opened(settings) as producer:
            producer.set_owner(dream_id, user_id, username)
    typer.echo(signed)


def sign(settings: Settings, user: UserId, ttl_s: int, *, is_operator: bool = False) -> str:
    """Sign a token that the gateway accepts.

    Parameters:
      is_operator: it has the claim of operators, too.

    Raises:
      SettingsError: there is no usable key, or the key can only check signatures.
    """
    import jwt

    from dream.gateway.keys import Keys

    key = next((key for key in Keys(settings) if isinstance(key.material, str)), None)
    if key is None:
        raise SettingsError("`dream token` needs DREAM_JWT_SECRET: with public keys the issuer signs tokens")
    issued_at = int(time.time())
    # A number stays one, as older gateways need it.
    number, text = number_and_text(user)
    claim = number if text is None else text
    claims: dict[str, Any] = {settings.jwt_user_claim: claim, "jti": uuid4().hex, "iat": issued_at}
    if settings.jwt_audience:
        claims["aud"] = settings.jwt_audience[0]
    if settings.jwt_issuer:
        claims["iss"] = settings.jwt_issuer[0]
    if is_operator:
        claims[settings.operator_claim] = True
    claims["exp"] = issued_at + ttl_s
    with warnings.catch_warnings():
        # `dream doctor` reports a short key.
        warnings.simplefilter("ignore")
        return jwt.encode(claims, key.material, key.algorithms[0])
