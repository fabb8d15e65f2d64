"""Asking workers: a question to all of them, and the answers of those that are there (`answering.py` gives them)."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from dream.questions import Answer, Question, answers_key, channel_of
from dream.redis_client import connect

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["Answers", "ask"]

_LEAST_WAIT_S = 0.01


class Answers(NamedTuple):
    """What workers have said.

    Parameters:
      by_worker: the reply of each, by its name.
      is_complete: whether every worker that heard the question has answered.
    """

    by_worker: dict[str, Any]
    is_complete: bool


def ask(settings: Settings, question: Question, *, timeout_s: float) -> Answers:
    """Ask workers; the wait ends when all that heard it have answered, at the latest after `timeout_s`.

    Raises:
      RedisError: Redis is away.
      ValueError: what came is no answer.
    """
    client = connect(settings.events_url, decode_responses=True)
    replies: dict[str, Any] = {}
    with closing(client):
        heard_by: Any = client.publish(channel_of(settings.redis_prefix), question.encode())
        if question.destination is not None:
            heard_by = min(heard_by, len(question.destination))
        give_up, came_in = time.monotonic() + timeout_s, 0
        while came_in < heard_by and (left_s := give_up - time.monotonic()) > 0:
            box = answers_key(settings.redis_prefix, question.ticket)
            came: Any = client.blpop([box], timeout=max(_LEAST_WAIT_S, left_s))
            if came is not None:
                came_in += 1
                answer = Answer.decode(came[1])
                replies[answer.worker] = answer.reply
    return Answers(replies, is_complete=came_in >= heard_by)
