"""Celery's settings: the app's own (`app.conf`), the objects that they are read from, and the effect of each here.

    app.conf.x = …  ►  Celery(…, x=…)  ►  config_from_object(…)  ►  the default

The first that has a value counts. An object is a module, a class, an instance (Django's settings), a mapping, or the
dotted name of one. It is read when the first setting is asked for, so it may name modules that cannot be imported yet.
Keys may be Celery's old ones everywhere.

| setting | here |
| --- | --- |
| in `DEFAULTS` | works; the value is its default |
| in `refused.SETTINGS`, with a value that is not harmless | an error, because something would be lost or left undone |
| in `WARNED` | one warning: dream lacks the feature, and nothing is lost without it |
| in `UNUSED` | accepted in silence: dream lacks the feature, or always does so |
| a name that only looks like Celery's | a warning: it may be misspelt |
| anything else | the caller's own: kept |
"""

from __future__ import annotations

import copy
import warnings
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from datetime import timedelta
from importlib import import_module
from types import ModuleType
from typing import Any

from dream.compat import refused
from dream.compat.exceptions import ImproperlyConfigured
from dream.work.messages import DEFAULT_QUEUE

__all__ = [
    "DEFAULTS",
    "UNUSED",
    "WARNED",
    "Conf",
    "is_without_effect",
    "new_name",
    "read",
    "resolve",
]


class Conf(MutableMapping[str, Any]):
    """The settings of an app, as attributes and as items.

    Parameters:
      given: the settings that the app was made with.
      **computed: functions that give the default of a setting.

    Raises:
      ImproperlyConfigured: dream cannot honour a setting; raised where it is set, or when the object that has it is
        read.
    """

    def __init__(self, given: Mapping[str, Any] | None = None, **computed: Callable[[], Any]) -> None:
        state = {"_changes": {}, "_given": {}, "_object": {}, "_computed": computed}
        self.__dict__.update(state, _source=None, _defaults=copy.deepcopy(DEFAULTS), _changed=0)
        self._given.update(_checked({_name(key): value for key, value in (given or {}).items()}))

    def compute(self, name: str, function: Callable[[], Any]) -> None:
        """Let a function give the default of a setting."""
        self._computed[name] = function

    def read_from(self, source: Any, namespace: str | None = None) -> None:
        """Take the settings of an object, which is read later; drop those that were set on `conf` before."""
        self._changes.clear()
        self.__dict__.update(_source=(source, namespace), _object={}, _changed=self._changed + 1)

    def resolve(self) -> None:
        """Read the object that settings come from, unless that has been done.

        Raises:
          ImproperlyConfigured: there is no such object, or dream cannot honour a setting of it.
        """
        if self._source is not None:
            found = _checked(read(*self._source), is_celerys=self._source[1] is not None)
            self.__dict__.update(_source=None, _object=found, _changed=self._changed + 1)

    @property
    def times_changed(self) -> int:
        """The number of changes of settings: values that were derived before a change may be outdated."""
        self.resolve()
        return int(self.__dict__["_changed"])

    def is_set(self, key: str) -> bool:
        """Whether somebody has set it."""
        self.resolve()
        return any(_name(key) in layer for layer in (self._changes, self._given, self._object))

    def __getitem__(self, key: str) -> Any:
        self.resolve()
        name = _name(key)
        for layer in (self._changes, self._given, self._object):
            if name in layer:
                return layer[name]
        if name in self._computed:
            self._defaults[name] = self._computed[name]()
        if name in self._defaults:
            return self._defaults[name]
        if new_name(name) is not None:
            return None
        raise KeyError(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self.resolve()
        self._changes.update(_checked({_name(key): value}))
        self.__dict__["_changed"] += 1

    def __delitem__(self, key: str) -> None:
        del self._changes[_name(key)]
        self.__dict__["_changed"] += 1

    def __iter__(self) -> Iterator[str]:
        self.resolve()
        return iter(ChainMap(self._changes, self._given, self._object, self._defaults))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{name} is not set") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __repr__(self) -> str:
        return f"<Conf: {', '.join(sorted({**self._object, **self._given, **self._changes})) or 'nothing set'}>"


def _name(key: str) -> str:
    return new_name(key) or key


def _checked(settings: dict[str, Any], *, is_celerys: bool = False) -> dict[str, Any]:
    _check(settings)
    asked_for = sorted(name for name, value in settings.items() if value)
    without_effect = [name for name in asked_for if is_without_effect(name, is_celerys=is_celerys)]
    if without_effect:
        warnings.warn(f"settings without effect here: {', '.join(without_effect)} (docs/celery.md)", stacklevel=4)
    return settings


# --- sources


def resolve(name: str) -> Any:
    """The object of a dotted name: `package.module`, `package.module.Class` or `package.module:object`.

    Raises:
      ImproperlyConfigured: there is none. An error inside a module goes through.
    """
    module_name, colon, path = name.partition(":")
    while module_name:
        try:
            found: Any = import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            if colon:
                break
            module_name, _, last = module_name.rpartition(".")
            path = f"{last}.{path}".rstrip(".")
            continue
        for each in filter(None, path.split(".")):
            if not hasattr(found, each):
                raise ImproperlyConfigured(f"{name!r}: {module_name} has no {each!r}")
            found = getattr(found, each)
        return found
    raise ImproperlyConfigured(f"{name!r}: there is no such module")


def read(source: Any, namespace: str | None = None) -> dict[str, Any]:
    """The settings of a source by their new names, and the caller's own names.

    With a namespace, or from an instance, only settings are taken.

    Parameters:
      source: a module, a class, an instance, a mapping, or the dotted name of one.
      namespace: if given, only names that begin with it count: `CELERY` for `CELERY_TASK_ROUTES`.

    Raises:
      ImproperlyConfigured: there is no such object.
    """
    found = resolve(source) if isinstance(source, str) else source
    if isinstance(found, Mapping):
        return dict(_named(found, namespace))
    keys = [key for key in dir(found) if key[0] != "_"]
    # Only settings are read from an instance: reading all of Django's would raise its deprecation warnings.
    values = {key: getattr(found, key) for key in keys if new_name(key, namespace)}
    if namespace is None and isinstance(found, ModuleType | type):
        values |= {key: value for key in keys if key not in values and not _is_code(value := getattr(found, key))}
    return {name: value for name, value in _named(values, namespace) if not _is_imported(value)}


def _named(values: Mapping[str, Any], namespace: str | None) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = new_name(key, namespace)
        if name is not None:
            yield name, value
        elif namespace is None:
            yield key, value


def _is_code(value: Any) -> bool:
    """Whether it is code that a setting beside it may name, such as a function, and no setting."""
    return callable(value) or hasattr(value, "__get__")


def _is_imported(value: Any) -> bool:
    """Whether a module has it for its own use, as in `from datetime import timezone`."""
    return isinstance(value, type | ModuleType)


# --- names


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

#: Schemes of stores that keep results for a while, or for their caller alone. Redis may keep them as well.
_RESULTS_IN_REDIS = (
    *("redis", "rediss", "redis+socket", "sentinel", "sentinels", "unix", "socket"),
    *("rpc", "disabled", "cache+memory"),
)
_JSON = ("json", "application/json")
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
#: Settings without effect here: dream lacks the feature, or always does so.
UNUSED = frozenset(
    {
        "beat_max_loop_interval",
        "beat_remote_control_max_tick_age",
        "beat_schedule_filename",
        "beat_sync_every",
        "broker_channel_error_retry",
        "broker_connection_max_retries",
        "broker_connection_retry",
        "broker_connection_retry_on_startup",
        "broker_connection_timeout",
        "broker_failover_strategy",
        "broker_heartbeat",
        "broker_heartbeat_checkrate",
        "broker_login_method",
        "broker_native_delayed_delivery_queue_type",
        "broker_password",
        "broker_pool_acquire_timeout",
        "broker_pool_limit",
        "broker_port",
        "broker_transport",
        "broker_transport_options",
        "broker_user",
        "broker_vhost",
        "control_exchange",
        "control_queue_durable",
        "control_queue_exclusive",
        "control_queue_expires",
        "control_queue_ttl",
        "event_exchange",
        "event_queue_durable",
        "event_queue_exclusive",
        "event_queue_expires",
        "event_queue_prefix",
        "event_queue_ttl",
        "event_serializer",
        "result_accept_content",
        "result_backend_always_retry",
        "result_backend_base_sleep_between_retries_ms",
        "result_backend_max_retries",
        "result_backend_max_sleep_between_retries_ms",
        "result_backend_transport_options",
        "result_cache_max",
        "result_chord_expires",
        "result_chord_join_timeout",
        "result_chord_retry_interval",
        "result_compression",
        "result_exchange",
        "result_exchange_type",
        "result_failure_expires",
        "result_persistent",
        "task_allow_error_cb_on_chord_header",
        "task_compression",
        "task_create_missing_queue_exchange_type",
        "task_create_missing_queue_type",
        "task_create_missing_queues",
        "task_default_delivery_mode",
        "task_default_exchange",
        "task_default_exchange_type",
        "task_default_queue_type",
        "task_default_routing_key",
        "task_inherit_parent_priority",
        "task_publish_retry",
        "task_publish_retry_policy",
        "task_queue_max_priority",
        "task_reject_on_worker_lost",
        "task_remote_tracebacks",
        "task_repr_maxlevels",
        "task_retry_on_worker_lost",
        "worker_cancel_long_running_tasks_on_connection_loss",
        "worker_deduplicate_successful_tasks",
        "worker_detect_quorum_queues",
        "worker_disable_prefetch",
        "worker_disable_rate_limits",
        "worker_enable_prefetch_count_reduction",
        "worker_enable_remote_control",
        "worker_enable_soft_shutdown_on_idle",
        "worker_eta_task_limit",
        "worker_hijack_root_logger",
        "worker_log_color",
        "worker_log_datefmt",
        "worker_log_format",
        "worker_lost_wait",
        "worker_pool",
        "worker_pool_putlocks",
        "worker_pool_restarts",
        "worker_pool_start_method",
        "worker_prefetch_multiplier",
        "worker_proc_alive_timeout",
        "worker_redirect_stdouts",
        "worker_redirect_stdouts_level",
        "worker_soft_shutdown_timeout",
        "worker_task_log_datefmt",
        "worker_task_log_format",
        "worker_timer_precision",
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
_KNOWN = frozenset(DEFAULTS) | frozenset(refused.SETTINGS) | WARNED | UNUSED
#: Older names, before Celery 4, with another ending than the new name.
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
    """The name of the setting that a key of a configuration sets; None if the key sets none.

    Parameters:
      key: `task_routes`, or an older `CELERY_ROUTES`; with a namespace also `CELERY_TASK_ROUTES`.
      namespace: if given, only keys that begin with it count.
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


def _check(settings: Mapping[str, Any]) -> None:
    """Refuse settings that dream cannot honour.

    Raises:
      ImproperlyConfigured: one line that names the setting, its value, and what to do.
    """
    for name, value in settings.items():
        harmless, instead = refused.SETTINGS.get(name, (None, ""))
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
    """The part of an address that may be shown: no password."""
    scheme, slashes, _ = url.partition("://")
    return f"{scheme}{slashes}"


def is_without_effect(name: str, *, is_celerys: bool = False) -> bool:
    """Whether a setting has no effect although its caller may expect one.

    Parameters:
      is_celerys: the caller has marked it as one of Celery's; by default its name must look like one.
    """
    if name in WARNED or name in _KNOWN:
        return name in WARNED
    return name.startswith(_OF_CELERY) or (is_celerys and not name.startswith(_OF_STORES))
