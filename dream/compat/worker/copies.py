"""Of several copies of one delivery, this worker and all others run one: that which is first.

The bridge marks its messages so where the broker is RabbitMQ, which cannot tell whether it has one already. The same
copy may come again, when its worker has died.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from dream.compat.worker.patience import patiently
from dream.errors import ResultsUnavailable
from dream.messages import COPY, DELIVERY_ID
from dream.redis_client import connect

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["Copies"]

#: A bridge that was killed is started again within this time.
_REMEMBERED_S = 86400


class Copies:
    """See the module.

    Parameters:
      settings: where Redis is.
    """

    def __init__(self, settings: Settings) -> None:
        self._client: Any = connect(settings.events_url)
        self._prefix = f"{settings.redis_prefix}:bridge:first:"

    def is_another(self, message: Any) -> bool:
        """Whether a copy of the message's delivery has been run that is not this one.

        Raises:
          ResultsUnavailable: Redis was away for a minute.
        """
        copy = message.options.get(COPY)
        if copy is None:
            return False
        first: bytes | None = patiently(lambda: self._first(message.options[DELIVERY_ID], copy))
        return first is not None and first != copy.encode()

    def _first(self, delivery: str, copy: str) -> Any:
        key = self._prefix + delivery
        try:
            if self._client.set(key, copy, nx=True, ex=_REMEMBERED_S):
                return copy.encode()
            return self._client.get(key)
        except RedisError as error:
            raise ResultsUnavailable(f"copies cannot be told apart: {type(error).__name__}") from error
