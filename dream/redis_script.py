"""A Lua script that Redis runs, for those that are called for each task.

redis-py does more around a command than the command costs: metrics, callbacks, a look at the connection.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["RedisScript"]

#: A connection that was used so short a time ago is taken to live.
_RECENT_S = 1.0


class RedisScript:
    """A script on a client's connections. It is never sent twice by itself.

    Parameters:
      client: whose connections it uses.
      path: of the file.
    """

    def __init__(self, client: Redis, path: Path) -> None:
        self._pool = client.connection_pool
        self._text = path.read_text("utf-8")
        self._digest = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()
        #: Connections that no thread uses now, of which process, and when one did.
        self._recent: list[tuple[Any, int, float]] = []

    def __call__(self, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        """Run it.

        Raises:
          RedisError
        """
        from redis.exceptions import NoScriptError, ResponseError

        connection = self._take()
        try:
            try:
                return _answer(connection, "EVALSHA", self._digest, len(keys), *keys, *args)
            except NoScriptError:
                return _answer(connection, "EVAL", self._text, len(keys), *keys, *args)
        except ResponseError:
            raise
        except BaseException:
            connection.disconnect()  # no answer is left for the next call
            raise
        finally:
            self._recent.append((connection, os.getpid(), time.monotonic()))

    def _take(self) -> Any:
        with suppress(IndexError):
            while True:
                connection, process_id, used_at = self._recent.pop()
                if process_id == os.getpid() and time.monotonic() - used_at < _RECENT_S:
                    return connection
                self._pool.release(connection)
        return self._pool.get_connection()


def _answer(connection: Any, *command: Any) -> Any:
    connection.send_command(*command)
    return connection.read_response()
