"""Celery's settings by name: what each means here, and the older names of those that mean something.

| setting | here |
| --- | --- |
| in `DEFAULTS` | works; this is its value where nobody sets it |
| in `REFUSED`, with a value that is not harmless | an error: without it something would be lost or left undone |
| in `WARNED` | one warning: it asks for something that is not there, and nothing is lost without it |
| in `UNUSED` | accepted in silence |
| a name that only looks like Celery's | a warning: it may be misspelt |
| anything else | the caller's own: kept |
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from dream.compat.conf.unused import UNUSED
from dream.compat.exceptions import ImproperlyConfigured
from dream.messages import DEFAULT_QUEUE

__all__ = ["DEFAULTS", "REFUSED", "WARNED", "check", "is_without_effect", "new_name"]

DEFAULTS: dict[str, Any] = {
    "accept_content": ("json",),
    "beat_cron_starting_deadline": None,
    "beat_schedule": {},
    "broker_url": None,
    "enable_utc": True,
    "imports": (),
    "include": (),
    "result_backend": None,
    "result_expires": timedelta(days=1),
    "result_extended": False,
    "result_serializer": "json",
    "task_acks_late": True,
    "task_always_eager": False,
    "task_default_priority": None,
    "task_default_queue": DEFAULT_QUEUE,
    "task_eager_propagates": False,
    "task_ignore_result": False,
    "task_queues": None,
    "task_routes": None,
    "task_serializer": "json",
    "task_soft_time_limit": None,
    "task_store_eager_result": False,
    "task_store_errors_even_if_ignored": False,
    "task_time_limit": None,
    "task_track_started": False,
    "timezone": None,
    "worker_concurrency": None,
}

#: Where results are meant to be for a while only, or for their caller alone, they may as well be in Redis.
_RESULTS_IN_REDIS = ("redis", "rediss", "redis+socket", "unix", "socket", "rpc", "disabled", "cache+memory")
_JSON = ("json", "application/json")
_NOTHING: tuple[Any, ...] = (None, False, "", (), [], {})
_ACKED = ((True, None), "a message is acknowledged after its run: raise Reject in the task")
#: Values that may be set, and what to do in place of any other.
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "beat_enable_remote_control": (_NOTHING, "start and stop the scheduler with its service manager"),
    "beat_scheduler": (
        (*_NOTHING, "celery.beat:PersistentScheduler", "celery.beat.PersistentScheduler"),
        "write every entry into beat_schedule: the scheduler keeps its state in the database",
    ),
    "broker_host": (_NOTHING, "set broker_url"),
    "broker_read_url": (_NOTHING, "set broker_url, which is for both"),
    "broker_use_ssl": (_NOTHING, "name a rediss:// or amqps:// address in broker_url"),
    "broker_write_url": (_NOTHING, "set broker_url, which is for both"),
    "redis_backend_use_ssl": (_NOTHING, "name a rediss:// address in DREAM_REDIS_URL"),
    "result_serializer": (_JSON, "use json: nothing else is read"),
    "security_certificate": (_NOTHING, "messages are not signed: let only your own processes reach the broker"),
    "security_key": (_NOTHING, "messages are not signed: let only your own processes reach the broker"),
    "task_acks_on_failure": _ACKED,
    "task_acks_on_failure_or_timeout": _ACKED,
    "task_acks_on_timeout": _ACKED,
    "task_annotations": (_NOTHING, "set the options where the tasks are defined"),
    "task_default_rate_limit": (_NOTHING, "use dramatiq.rate_limits in the task"),
    "task_protocol": ((2,), "protocol 1 is not read"),
    "task_serializer": (_JSON, "use json: nothing else is read"),
    "worker_agent": (_NOTHING, "it would not run"),
    "worker_autoscaler": ((*_NOTHING, "celery.worker.autoscale:Autoscaler"), "it would not run"),
    "worker_consumer": ((*_NOTHING, "celery.worker.consumer:Consumer"), "it would not run"),
    "worker_direct": (_NOTHING, "send to a queue and give that to one worker: --queues"),
    "worker_timer": (_NOTHING, "it would not run"),
}
WARNED = frozenset(
    {
        "task_annotations",  # of rates alone; others are refused
        "task_send_sent_event",
        "worker_max_memory_per_child",
        "worker_max_tasks_per_child",
        "worker_send_task_events",
        "worker_state_db",
    }
)
#: Settings of other result stores, and of Celery's Redis client: they change nothing here.
_OF_STORES = (
    "arangodb_",
    "azureblockblob_",
    "cache_",
    "cassandra_",
    "cosmosdbsql_",
    "couchbase_",
    "database_",
    "elasticsearch_",
    "gcs_",
    "mongodb_",
    "redis_",
    "s3_",
    "security_",
)
_OF_CELERY = ("beat_", "broker_", "control_", "event_", "result_", "task_", "worker_")
_KNOWN = frozenset(DEFAULTS) | frozenset(REFUSED) | WARNED | UNUSED
#: Names before Celery 4 whose ending is not that of the new name.
_OLD_ENDINGS = {
    "TASK_RESULT_EXPIRES": "result_expires",
    "EAGER_PROPAGATES_EXCEPTIONS": "task_eager_propagates",
    "MESSAGE_COMPRESSION": "task_compression",
    "MAX_CACHED_RESULTS": "result_cache_max",
    "SEND_EVENTS": "worker_send_task_events",
    "SEND_TASK_SENT_EVENT": "task_send_sent_event",
    "QUEUE_MAX_PRIORITY": "task_queue_max_priority",
    "WORKER_LOST_WAIT": "worker_lost_wait",
}
_OLD_PREFIXES = (("CELERYBEAT_", "beat_"), ("CELERYD_", "worker_"), ("CELERY_", ""))


def new_name(key: str, namespace: str | None = None) -> str | None:
    """The name of the setting that a key of a configuration sets; None where it sets none.

    Parameters:
      key: `task_routes`, or an older `CELERY_ROUTES`; with a namespace also `CELERY_TASK_ROUTES`.
      namespace: with one, only keys that begin with it count.
    """
    if namespace is not None:
        if not key.upper().startswith(f"{namespace.upper()}_"):
            return None
        key = key[len(namespace) + 1 :]
        return _known(key.lower()) or _old(key.upper()) or key.lower()
    return _known(key) or (_old(key) if key.isupper() else None)


def _known(name: str) -> str | None:
    return name if name in _KNOWN else None


def _old(key: str) -> str | None:
    prefix, kind = next(((old, new) for old, new in _OLD_PREFIXES if key.startswith(old)), ("", ""))
    ending = key.removeprefix(prefix)
    candidates = (_OLD_ENDINGS.get(ending), *(f"{each}{ending.lower()}" for each in (kind, "", "task_", "worker_")))
    return next((name for name in candidates if name in _KNOWN), None)


def check(settings: Mapping[str, Any]) -> None:
    """Refuse what would not hold.

    Raises:
      ImproperlyConfigured: one line that names the setting, its value, and what to do.
    """
    for name, value in settings.items():
        harmless, instead = REFUSED.get(name, (None, ""))
        if name == "task_annotations" and _names_rates_alone(value):
            continue
        if harmless is not None and value not in harmless:
            raise ImproperlyConfigured(f"the setting {name}={value!r} is not supported: {instead}")
    results = settings.get("result_backend")
    if isinstance(results, str) and results.partition(":")[0] not in _RESULTS_IN_REDIS:
        raise ImproperlyConfigured(f"the setting result_backend={_kind(results)!r} is not supported: use redis://…")
    accepted = settings.get("accept_content")
    if accepted is not None and not set(accepted) & {*_JSON, "*"}:
        raise ImproperlyConfigured(f"the setting accept_content={accepted!r} is not supported: only json is read")


def _names_rates_alone(annotations: Any) -> bool:
    """Whether the annotations set only `rate_limit`: such tasks run without a limit, and one warning says so."""
    maps = annotations if isinstance(annotations, list | tuple) else [annotations]
    named = [each for one in maps if isinstance(one, Mapping) for each in one.values()]
    is_read = all(isinstance(each, Mapping) for each in (*maps, *named))
    return is_read and all(name == "rate_limit" for each in named for name in each)


def _kind(url: str) -> str:
    """What of an address can be shown: no password."""
    scheme, slashes, _ = url.partition("://")
    return f"{scheme}{slashes}"


def is_without_effect(name: str, *, is_celerys: bool = False) -> bool:
    """Whether nothing is done for a setting though its caller may expect it.

    Parameters:
      is_celerys: the caller has marked it as one of Celery's; else its name must look like one.
    """
    if name in WARNED or name in _KNOWN:
        return name in WARNED
    return name.startswith(_OF_CELERY) or (is_celerys and not name.startswith(_OF_STORES))
