"""Deliveries put on dream's RabbitMQ, which cannot tell whether it has one: Redis remembers each for a day.

known? ─► published, confirmed ─► known from now on ─► gone from its source
                              └─► the bridge dies: it is published once more, and workers run the first copy
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dream.fault_points import step
from dream.work.broker import send
from dream.work.messages import COPY
from dream.work.redis_client import connect

if TYPE_CHECKING:
    from dramatiq import Message

    from dream.settings import Settings
    from dream.work.broker import AnyBroker

__all__ = ["Sent"]


class Sent:
    """See the module.

    Parameters:
      settings: where Redis is.
      broker: dream's.
      remembered_s: the time for which a delivery is remembered.
    """

    def __init__(self, settings: Settings, broker: AnyBroker, remembered_s: int) -> None:
        self._client: Any = connect(settings.events_url, repeats=False)
        self._prefix = f"{settings.redis_prefix}:bridge:seen:"
        self._broker = broker
        self._remembered_s = remembered_s

    def unknown(self, deliveries: Sequence[str]) -> set[str]:
        """The deliveries that were not sent within that time."""
        found = self._client.mget([self._prefix + each for each in deliveries]) if deliveries else []
        return {each for each, value in zip(deliveries, found, strict=True) if value is None}

    def send(self, messages: Mapping[str, tuple[Message[Any], float]]) -> None:
        """Send messages by their deliveries, each after its delay in seconds, and remember them.

        Raises:
          BrokerUnavailable: some messages may have been sent.
        """
        self._publish(list(messages.values()))
        with self._client.pipeline(transaction=False) as pipe:
            for each in messages:
                pipe.set(self._prefix + each, 1, ex=self._remembered_s)
            pipe.execute()

    @step("bridge_publish")
    def _publish(self, messages: Sequence[tuple[Message[Any], float]]) -> None:
        for message, delay_s in messages:
            send(self._broker, message.copy(options={COPY: uuid4().hex}), delay_s)

    def close(self) -> None:
        self._client.close()
