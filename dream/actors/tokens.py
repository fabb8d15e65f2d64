"""The token actor: removes revocations of tokens that have expired anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dramatiq

from dream.actors import broker, shared
from dream.db import tokens
from dream.fault_points import step
from dream.log import get_logger
from dream.messages import CLEANUP_TOKENS, DEFAULT_QUEUE

if TYPE_CHECKING:
    from dream.actors.resources import Resources

__all__ = ["clean_up", "cleanup_expired_tokens"]

log = get_logger(__name__)


@step("clean_up")
def clean_up(resources: Resources) -> int:
    """Delete expired revocations; returns how many."""
    with resources.database.begin() as session:
        deleted = tokens.delete_expired(session)
    log.info("tokens_cleaned_up", deleted=deleted)
    return deleted


def cleanup_expired_tokens() -> int:
    """See `clean_up`."""
    return clean_up(shared)


dramatiq.actor(
    actor_name=CLEANUP_TOKENS,
    queue_name=shared.settings.queue_prefix + DEFAULT_QUEUE,
    broker=broker,
    durable=True,
)(cleanup_expired_tokens)
