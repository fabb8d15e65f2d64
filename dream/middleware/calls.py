"""The arguments of a call that came as a message, in the form in which a row keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

from dramatiq import Broker, MessageProxy

__all__ = ["positional"]


def positional(broker: Broker, message: MessageProxy) -> Sequence[Any]:
    """The arguments in their order: a row has no names for them, and a message sent from it must be the same call."""
    function = broker.get_actor(message.actor_name).fn
    try:
        return signature(function).bind(*message.args, **message.kwargs).args
    except TypeError:
        return message.args  # a wrong call: it fails as that when it runs
