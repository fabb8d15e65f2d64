"""The token actor: removes revocations of tokens that have expired anyway."""

from __future__ import annotations

import dramatiq

from dream.actors import shared
from dream.db import tokens
from dream.log import get_logger
from dream.messages import CLEANUP_TOKENS, DEFAULT_QUEUE

__all__ = ["cleanup_expired_tokens"]

log = get_logger(__name__)


def cleanup_expired_tokens() -> int:
    """Delete expired revocations; returns how many."""
    with shared.database.begin() as session:
        deleted = tokens.delete_expired(session)
    log.info("tokens_cleaned_up", deleted=deleted)
    return deleted


dramatiq.actor(
    actor_name=CLEANUP_TOKENS,
    queue_name=shared.settings.queue_prefix + DEFAULT_QUEUE,
    durable=True,
)(cleanup_expired_tokens)
