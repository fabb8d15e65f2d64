"""Stock's dispatch script, in which dead workers are found and their messages put back, with what it does changed.

whether a worker is dead   by the clock of Redis, not by that of who looks
what it had in work        before all that waits, not behind it; marked, so that it is known as a suspect
"""

from __future__ import annotations

from dramatiq.brokers.redis import _scripts as stock_scripts

__all__ = ["dispatch_script", "is_suspect"]

#: Before a message's JSON, which it leaves as it is: a worker died that had it.
_MARK = b" "
_STOCK_CLOCK = b"local timestamp = ARGV[2]"
_REDIS_CLOCK = b"local t = redis.call('time'); local timestamp = t[1] * 1000 + math.floor(t[2] / 1000)"
_PUT_BACK = b'redis.call("rpush", queue_full_name, message_id)'
_PUT_FIRST = b"""redis.call("lpush", queue_full_name, message_id)
local message = redis.call("hget", queue_messages, message_id)
if string.sub(message, 1, 1) ~= "MARK" then redis.call("hset", queue_messages, message_id, "MARK" .. message) end
""".replace(b"MARK", _MARK)
#: In stock's script the messages of dead workers are put back before this, and nothing else is put anywhere.
_AFTER_THE_DEAD = b"local dead_message_ids"


def dispatch_script() -> bytes:
    """The changed script.

    Raises:
      RuntimeError: this release of Dramatiq has another one.
    """
    of_the_dead, after, others = stock_scripts["dispatch"].partition(_AFTER_THE_DEAD)
    if _STOCK_CLOCK not in of_the_dead or of_the_dead.count(_PUT_BACK) != 1 or not after:
        raise RuntimeError("this release of dramatiq has another dispatch script; dream needs 2.2")
    return of_the_dead.replace(_STOCK_CLOCK, _REDIS_CLOCK).replace(_PUT_BACK, _PUT_FIRST) + after + others


def is_suspect(data: bytes) -> bool:
    """Whether a worker died that had the message of these bytes."""
    return data.startswith(_MARK)
