"""What was put on a RabbitMQ of ours, which cannot say what it has: each delivery is known again for a day.

known? ─► published, confirmed ─► known from now on ─► gone from its source
                              └─► the bridge dies: it is published once more, and workers run the first copy
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dream.broker import send
from dream.fault_points import step
from dream.messages import COPY
from dream.redis_client import connect

if TYPE_CHECKING:
    from dramatiq import Message

    from dream.broker import AnyBroker
    from dream.settings import Settings

__all__ = ["Sent"]


class Sent:
    """See the module.

    Parameters:
      settings: where Redis is.
      broker: ours.
      remembered_s: how long a delivery is known.
    """

    def __init__(self, settings: Settings, broker: AnyBroker, remembered_s: int) -> None:
        self._client: Any = connect(settings.events_url, repeats=False)
        self._prefix = f"{settings.redis_prefix}:bridge:seen:"
        self._broker = broker
        self._remembered_s = remembered_s

    def unknown(self, deliveries: Sequence[str]) -> set[str]:
        """Those that were not sent within that time."""
        found = self._client.mget([self._prefix + each for each in deliveries]) if deliveries else []
        return {each for each, value in zip(deliveries, found, strict=True) if value is None}

    def send(self, messages: Mapping[str, tuple[Message[Any], float]]) -> None:
        """Send these, by their deliveries, each with its delay in seconds, and know them from now on.

        Raises:
          BrokerUnavailable: some may have been sent.
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
