"""Revocations of tokens: in dream's own table, or in those of Django simplejwt (`DREAM_TOKEN_BLACKLIST`)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from dream.db import simplejwt, tokens

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dream.settings import Settings

__all__ = ["Blacklist", "ExpiredTokens", "blacklist_of"]


class ExpiredTokens(Protocol):
    """A walk over the revocations of expired tokens."""

    def delete(self, session: Session, count: int) -> int | None:
        """Delete some, after a look at `count` rows at most; returns how many, None at the end."""


class Blacklist(Protocol):
    """A place of revocations."""

    def is_revoked(self, session: Session, jti: str) -> bool:
        """Whether the token of that id was revoked."""

    def revoked_among(self, session: Session, jtis: Collection[str]) -> set[str]:
        """Those of the ids whose tokens were revoked."""

    def revoke(self, session: Session, jti: str, expires_at: datetime, user_id: int | None) -> None:
        """Revoke the token; a second time changes nothing."""

    def expired(self) -> ExpiredTokens:
        """A new walk."""


def blacklist_of(settings: Settings) -> Blacklist:
    """The place that the setting names."""
    return simplejwt if settings.token_blacklist == "simplejwt" else tokens  # noqa: S105 (no password)
