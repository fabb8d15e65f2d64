"""What workers are asked, and what they answer: JSON on a channel, and in a list that expires.

The JSON of each is held by a golden test (`tests/unit/test_questions.py`), because workers of other releases read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NotRequired, TypedDict
from uuid import uuid4

__all__ = ["Answer", "Question", "RevokeArguments", "RevokeReply", "TakesArguments", "answers_key", "channel_of"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What workers are asked.

    Parameters:
      command: what they are to say, or do.
      arguments: what the command takes.
      destination: the names of those that are meant; None means all.
      ticket: names the list of the answers.
    """

    command: str
    arguments: Mapping[str, Any] | None = None
    destination: Sequence[str] | None = None
    ticket: str = field(default_factory=lambda: uuid4().hex)

    def is_for(self, worker: str) -> bool:
        """Whether a worker of that name is meant."""
        return self.destination is None or worker in self.destination

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str | bytes) -> Question:
        """The question again; what a later release adds is left out.

        Raises:
          ValueError: it is none.
        """
        said = _object(text)
        ticket, command = said.get("ticket"), said.get("command")
        arguments, destination = said.get("arguments"), said.get("destination")
        if not isinstance(ticket, str) or not isinstance(command, str):
            raise ValueError("a question has a ticket and a command")
        if not isinstance(arguments, dict | None) or not isinstance(destination, list | None):
            raise ValueError("a question's arguments are an object, its destination is a list")
        return cls(command=command, arguments=arguments, destination=destination, ticket=ticket)


@dataclass(frozen=True)
class Answer:
    """What one worker says.

    Parameters:
      worker: its name.
      reply: in JSON's types.
    """

    worker: str
    reply: Any

    def encode(self) -> str:
        """As JSON; what that has no type for is shown as its `repr`."""
        return json.dumps(asdict(self), default=repr)

    @classmethod
    def decode(cls, text: str | bytes) -> Answer:
        """The answer again.

        Raises:
          ValueError: it is none.
        """
        said = _object(text)
        if not isinstance(said.get("worker"), str) or "reply" not in said:
            raise ValueError("an answer has a worker and a reply")
        return cls(said["worker"], said["reply"])


# --- what our own commands take and give; those of Celery's names give what Celery's do


class RevokeArguments(TypedDict):
    """Of `revoke`: these tasks are not to begin and, with `terminate`, those that run are to end."""

    task_ids: list[str]
    terminate: bool


class RevokeReply(TypedDict):
    """To `revoke`: a sentence; and which of the tasks run there, where they are a caller's."""

    ok: str
    running: NotRequired[list[str]]


class TakesArguments(TypedDict):
    """Of `takes`, which asks whether a worker knows a task and takes its queue (with prefix); the reply is a bool."""

    task: str
    queue: str


# --- where they are in Redis


def channel_of(prefix: str) -> str:
    """The channel in Redis on which workers are asked."""
    return f"{prefix}:workers:questions"


def answers_key(prefix: str, ticket: str) -> str:
    """The list in Redis of the answers to one question."""
    return f"{prefix}:workers:answers:{ticket}"


def _object(text: str | bytes) -> dict[str, Any]:
    said = json.loads(text)
    if not isinstance(said, dict):
        raise ValueError("it is no JSON object")
    return said
