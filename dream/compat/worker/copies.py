"""Of several copies of one delivery, this worker and all others run one: that which is first.

The bridge marks its messages so where the broker is RabbitMQ, which cannot tell whether it has one already. The same
copy may come again, when its worker has died.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.exceptions import RedisError

from dream.compat.worker.keeping import patiently
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
        self._settings = settings
        self._client_or_none: Redis | None = None

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
        if self._client_or_none is None:
            self._client_or_none = connect(self._settings.events_url)
        key = f"{self._settings.redis_prefix}:bridge:first:{delivery}"
        try:
            if self._client_or_none.set(key, copy, nx=True, ex=_REMEMBERED_S):
                return copy.encode()
            return self._client_or_none.get(key)
        except RedisError as error:
            raise ResultsUnavailable(f"copies cannot be told apart: {type(error).__name__}") from error
