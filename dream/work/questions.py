"""Questions to workers and their answers: JSON on a channel in Redis, and in a list that expires.

The JSON of each is held by a golden test (`tests/unit/test_questions.py`), because workers of other releases read it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, NotRequired, TypedDict
from uuid import uuid4

from dream.work.redis_client import connect

if TYPE_CHECKING:
    from dream.work.settings import Settings

__all__ = [
    "Answer",
    "Answers",
    "Question",
    "RevokeArguments",
    "RevokeReply",
    "TakesArguments",
    "answers_key",
    "ask",
    "channel_of",
]

_LEAST_WAIT_S = 0.01


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question to workers.

    Parameters:
      command: the name of the command that they run.
      arguments: the command's arguments.
      destination: the names of the workers that answer; None means all.
      ticket: names the list of the answers.
    """

    command: str
    arguments: Mapping[str, Any] | None = None
    destination: Sequence[str] | None = None
    ticket: str = field(default_factory=lambda: uuid4().hex)

    def is_for(self, worker: str) -> bool:
        """Whether a worker of that name answers."""
        return self.destination is None or worker in self.destination

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str | bytes) -> Question:
        """Read a question; fields that a later release adds are ignored.

        Raises:
          ValueError: it is no question.
        """
        fields = _object(text)
        ticket, command = fields.get("ticket"), fields.get("command")
        arguments, destination = fields.get("arguments"), fields.get("destination")
        if not isinstance(ticket, str) or not isinstance(command, str):
            raise ValueError("a question has a ticket and a command")
        if not isinstance(arguments, dict | None) or not isinstance(destination, list | None):
            raise ValueError("a question's arguments are an object, its destination is a list")
        return cls(command=command, arguments=arguments, destination=destination, ticket=ticket)


@dataclass(frozen=True)
class Answer:
    """The answer of one worker.

    Parameters:
      worker: its name.
      reply: in JSON's types.
    """

    worker: str
    reply: Any

    def encode(self) -> str:
        """The answer as JSON; a value for which JSON has no type becomes its `repr`."""
        return json.dumps(asdict(self), default=repr)

    @classmethod
    def decode(cls, text: str | bytes) -> Answer:
        """Read an answer.

        Raises:
          ValueError: it is no answer.
        """
        fields = _object(text)
        if not isinstance(fields.get("worker"), str) or "reply" not in fields:
            raise ValueError("an answer has a worker and a reply")
        return cls(fields["worker"], fields["reply"])


# --- arguments and replies of dream's commands; commands with Celery's names reply as Celery's do


class RevokeArguments(TypedDict):
    """Of `revoke`: these tasks must not begin. With `terminate`, tasks that run must end."""

    task_ids: list[str]
    terminate: bool


class RevokeReply(TypedDict):
    """To `revoke`: a sentence, and the callers' tasks among them that run in the worker."""

    ok: str
    running: NotRequired[list[str]]


class TakesArguments(TypedDict):
    """Of `takes`: does a worker know the task and take its queue (with prefix)? The reply is a bool."""

    task: str
    queue: str


# --- channels and keys in Redis


def channel_of(prefix: str) -> str:
    """The channel in Redis of questions to workers."""
    return f"{prefix}:workers:questions"


def answers_key(prefix: str, ticket: str) -> str:
    """The list in Redis of the answers to one question."""
    return f"{prefix}:workers:answers:{ticket}"


class Answers(NamedTuple):
    """The answers of workers.

    Parameters:
      by_worker: the reply of each, by its name.
      is_complete: whether every worker that heard the question has answered.
    """

    by_worker: dict[str, Any]
    is_complete: bool


def ask(settings: Settings, question: Question, *, timeout_s: float) -> Answers:
    """Ask workers, and wait until all that heard the question have answered, for at most `timeout_s`.

    Raises:
      RedisError: Redis is away.
      ValueError: a worker sent something else than an answer.
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


def _object(text: str | bytes) -> dict[str, Any]:
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError("it is no JSON object")
    return fields
