"""Stock's dispatch script, in which dead workers are found and their messages put back, with what it does changed.

whether a worker is dead   by the clock of Redis, not by that of who looks
what it had in work        before all that waits, not behind it; marked, so that it is known as a suspect
whether it had more        on other queues: asked once a minute, as Redis walks through all its keys for that
"""

from __future__ import annotations

from dramatiq.brokers.redis import _scripts as stock_scripts

__all__ = ["dispatch_script", "is_suspect"]

#: Before a message's JSON, which it leaves as it is: a worker died that had it.
_MARK = b" "
_STOCK_CLOCK = b"local timestamp = ARGV[2]"
#: After a write that takes no memory, a script may do what puts nothing new into Redis though its memory is full.
_REDIS_CLOCK = b"""local t = redis.call('time'); local timestamp = t[1] * 1000 + math.floor(t[2] / 1000)
if command ~= "enqueue" then redis.call("srem", namespace .. ":__none__", "") end
"""
_PUT_BACK = b'redis.call("rpush", queue_full_name, message_id)'
_PUT_FIRST = b"""redis.call("lpush", queue_full_name, message_id)
local message = redis.call("hget", queue_messages, message_id)
if string.sub(message, 1, 1) ~= "MARK" then redis.call("hset", queue_messages, message_id, "MARK" .. message) end
""".replace(b"MARK", _MARK)
_KEYS = b'redis.call("keys", dead_worker_acks .. "*")'
_KEYS_SELDOM = b"""{true}
        if redis.call("set", namespace .. ":__looked__." .. dead_worker, 1, "nx", "ex", 60) then
            ack_queues = redis.call("keys", dead_worker_acks .. "*")
        end
"""
#: In stock's script the messages of dead workers are put back before this, and nothing else is put anywhere.
_AFTER_THE_DEAD = b"local dead_message_ids"


def dispatch_script() -> bytes:
    """The changed script.

    Raises:
      RuntimeError: this release of Dramatiq has another one.
    """
    of_the_dead, after, others = stock_scripts["dispatch"].partition(_AFTER_THE_DEAD)
    changes = ((_STOCK_CLOCK, _REDIS_CLOCK), (_PUT_BACK, _PUT_FIRST), (_KEYS, _KEYS_SELDOM))
    if not after or any(of_the_dead.count(stock) != 1 for stock, _ in changes):
        raise RuntimeError("this release of dramatiq has another dispatch script; dream needs 2.2")
    for stock, ours in changes:
        of_the_dead = of_the_dead.replace(stock, ours)
    return of_the_dead + after + others


def is_suspect(data: bytes) -> bool:
    """Whether a worker died that had the message of these bytes."""
    return data.startswith(_MARK)
