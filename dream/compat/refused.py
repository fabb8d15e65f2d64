"""Celery's features that dream lacks: the one table of their names, with what to use instead.

from dream.compat.bootsteps import …   a module: the finder raises, once every other finder has looked
from dream.compat.result import …      a name in a module: the module's `__getattr__` raises
app.pool                               an attribute: its class's `__getattr__` raises
chord(…), app.conf.worker_agent = …    a call, an option or a setting: the function that takes it raises
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any, NoReturn

from dream.compat.exceptions import Unsupported

__all__ = [
    "APP",
    "BACKENDS",
    "CONTROL",
    "INSPECT",
    "MODULES",
    "OPTIONS",
    "OWN_OPTIONS",
    "RESULT",
    "RESULT_SETS",
    "SETTINGS",
    "TASK",
    "TASK_OPTIONS",
    "WORK_FLOWS",
    "MissingAttribute",
    "MissingName",
    "install",
    "refuse",
    "refuse_attribute",
    "refuse_name",
]

_ROOT = "dream.compat."
_BY_ID = "AsyncResult finds a result by its id"
_PROFILER = "a profiler of the worker's process"
_LIST = "a list of AsyncResult"
_NO_PARTS = "workers are dramatiq's, and these parts are not there: use signals, or a middleware of dramatiq"
_STORES = ("cache", "database", "mongodb", "redis", "rpc")
_STORE = "results are kept in DREAM_REDIS_URL, and app.backend reads and writes them by id"
_CONNECTION = "`dream doctor` and app.control.ping() say whether the broker is there; send with send_task"
_BROKER = "set DREAM_BROKER_URL"
_FOR_EACH = "send a task for each item"
_HEADERS = "name what belongs to a task in headers="
_ACKED = "a message is acknowledged after its run: raise Reject in the task"
_JSON = "use json: nothing else is read"
_UNSIGNED = "messages are not signed: let only your own processes reach the broker"
_QUEUES = "start a worker with --queues"
_CONCURRENCY = "start workers with --concurrency"
_NO_EVENTS = "there are no monitor events"
_LIMIT = "set DREAM_TIME_LIMIT_S for all runs"
_NEVER_RUN = "it would not run"

# --- modules, and names in them

MODULES = {
    "app.amqp": "set task_queues and task_routes",
    "app.backends": "results are kept in DREAM_REDIS_URL",
    "app.log": "set DREAM_LOG_LEVEL and DREAM_LOG_FORMAT",
    "apps": "run `dream worker`, or app.worker_main",
    **{f"backends.{name}": "results are kept in DREAM_REDIS_URL; " + _BY_ID for name in _STORES},
    "beat": "write entries into beat_schedule, and run `dream scheduler`",
    "bin": "run `dream worker` or `dream scheduler`, or app.worker_main",
    "bootsteps": _NO_PARTS,
    "concurrency": "tasks run in threads",
    "contrib.migrate": "`dream bridge` moves what waits",
    "contrib.rdb": "the debugger of Python, in a task that is called",
    "contrib.sphinx": "sphinx.ext.autodoc",
    "contrib.testing.mocks": "send the task to a worker of contrib.testing.worker",
    "events": f"{_NO_EVENTS}: the rows of dream_tasks, the logs, control.inspect",
    "fixups": "what Celery's does for Django is done anyway",
    "loaders": "config_from_object and autodiscover_tasks",
    "platforms": "leave that to the service manager",
    "security": _UNSIGNED,
    "task": "from dream.compat import Task, shared_task",
    "utils.nodenames": "DREAM_WORKER_NAME",
    "utils.threads": "threading",
    "worker.consumer": _NO_PARTS,
}
BACKENDS = dict.fromkeys(("Backend", "BaseBackend", "BaseDictBackend", "KeyValueStoreBackend"), _STORE)

# --- attributes

APP = {
    "Beat": "run `dream scheduler`",
    "GroupResult": _LIST,
    "ResultSet": _LIST,
    "WorkController": "app.worker_main",
    "Worker": "app.worker_main",
    "broker_connection": _CONNECTION,
    "bugreport": "`dream doctor`",
    "config_from_cmdline": "set DREAM_… variables",
    "connection": _CONNECTION,
    "connection_for_read": _CONNECTION,
    "connection_for_write": _CONNECTION,
    "connection_or_acquire": _CONNECTION,
    "default_connection": _CONNECTION,
    "default_producer": _CONNECTION,
    "events": MODULES["events"],
    "loader": MODULES["loaders"],
    "log": MODULES["app.log"],
    "pool": _CONNECTION,
    "producer_or_acquire": _CONNECTION,
    "producer_pool": _CONNECTION,
    "select_queues": "start the worker with --queues",
    "setup_security": MODULES["security"],
    "steps": _NO_PARTS,
    "user_options": "the app's own settings, or environment variables",
}
TASK = {
    "add_around": "a base class with __call__, or signals",
    "request_stack": "self.request",
    "send_event": MODULES["events"],
    "signature_from_request": "task.s(…)",
    "subtask_from_request": "task.s(…)",
}
RESULT = {
    "build_graph": "result.children",
    "collect": "result.children",
    "get_leaf": "result.children",
    "graph": "result.children",
    "iterdeps": "result.children",
    "on_ready": "link= where it is sent, or get()",
    "then": "link= where it is sent, or get()",
}
INSPECT = {
    "clock": "workers have no logical clock",
    "conf": "app.conf, and the DREAM_… variables",
    "hello": "workers do not gossip",
    "memdump": _PROFILER,
    "memsample": _PROFILER,
    "objgraph": _PROFILER,
    "query_task": "active, reserved or scheduled; " + _BY_ID,
    "report": "`dream doctor`",
    "revoked": _BY_ID + ", and its state says so",
}
CONTROL = {
    "add_consumer": _QUEUES,
    "autoscale": _CONCURRENCY,
    "cancel_consumer": _QUEUES,
    "disable_events": _NO_EVENTS,
    "election": "workers do not elect",
    "enable_events": _NO_EVENTS,
    "heartbeat": _NO_EVENTS,
    "pool_grow": _CONCURRENCY,
    "pool_restart": "start the worker again",
    "pool_shrink": _CONCURRENCY,
    "rate_limit": "use dramatiq.rate_limits in the task",
    "revoke_by_stamped_headers": "there are no stamps; revoke by ids",
    "shutdown": "stop workers with their service manager",
    "time_limit": "set it where the task is defined",
}

# --- calls

WORK_FLOWS = {
    "chain": "send the next task with link=, or use dramatiq.pipeline",
    "group": "send each task, or use dramatiq.group",
    "chord": "count the tasks yourself, or use dramatiq.group with its completion callback",
    "chunks": "send a task for each piece",
    "map": _FOR_EACH,
    "replace": "send the other task, and return its id",
    "stamp": _HEADERS,
    "starmap": _FOR_EACH,
    "xmap": _FOR_EACH,
    "xstarmap": _FOR_EACH,
    "StampingVisitor": _HEADERS,
}
RESULT_SETS = {
    "GroupResult": f"keep {_LIST}",
    "GroupResult.restore": "keep the ids of its tasks",
    "ResultSet": f"keep {_LIST}",
}

# --- options and settings

#: Options of `apply_async`, of a caller's own task.
OPTIONS = {
    "chain": WORK_FLOWS["chain"],
    "chord": WORK_FLOWS["chord"],
    "connection": _BROKER,
    "expiration": "set expires",
    "producer": _BROKER,
    "stamped_headers": _HEADERS,
}
#: The same, of a task of dream's own.
OWN_OPTIONS = {
    "connection": _BROKER,
    "link": "call the next task in the task itself",
    "link_error": "the dream is told of a failure, and the task's row keeps it",
    "producer": _BROKER,
    "soft_time_limit": _LIMIT,
    "time_limit": _LIMIT,
}
#: Options of a task's definition: the harmless values beside the default, and what to do in place of others.
TASK_OPTIONS: dict[str, tuple[tuple[Any, ...], str]] = {
    "acks_late": ((True, False, None), "a message is always acknowledged after its run"),
    "serializer": ((None, "json", "application/json"), _JSON),
    "backend": ((None,), "results are kept in DREAM_REDIS_URL"),
    "acks_on_failure": ((True, None), _ACKED),
    "acks_on_failure_or_timeout": ((True, None), _ACKED),
    "acks_on_timeout": ((True, None), _ACKED),
    "trail": ((True, False, None), "the tasks that a run has sent are always its result's children"),
}
_NOTHING: tuple[Any, ...] = (None, False, "", (), [], {})
#: Settings: the harmless values, and what to do in place of others.
SETTINGS: dict[str, tuple[tuple[Any, ...], str]] = {
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
    "result_serializer": (("json", "application/json"), _JSON),
    "security_certificate": (_NOTHING, _UNSIGNED),
    "security_key": (_NOTHING, _UNSIGNED),
    "task_acks_on_failure": ((True, None), _ACKED),
    "task_acks_on_failure_or_timeout": ((True, None), _ACKED),
    "task_acks_on_timeout": ((True, None), _ACKED),
    "task_annotations": (_NOTHING, "set the options where the tasks are defined"),
    "task_default_rate_limit": (_NOTHING, "use dramatiq.rate_limits in the task"),
    "task_protocol": ((2,), "protocol 1 is not read"),
    "task_serializer": (("json", "application/json"), _JSON),
    "worker_agent": (_NOTHING, _NEVER_RUN),
    "worker_autoscaler": ((*_NOTHING, "celery.worker.autoscale:Autoscaler"), _NEVER_RUN),
    "worker_consumer": ((*_NOTHING, "celery.worker.consumer:Consumer"), _NEVER_RUN),
    "worker_direct": (_NOTHING, "send to a queue and give that to one worker: --queues"),
    "worker_timer": (_NOTHING, _NEVER_RUN),
}


class MissingName(Unsupported, ImportError):
    """dream lacks a module of Celery's, or a name in one."""


class MissingAttribute(Unsupported, AttributeError):
    """dream lacks an attribute of Celery's object."""


def refuse(name: str, of: str = "", table: Mapping[str, str] = WORK_FLOWS) -> NoReturn:
    """Refuse a call.

    Parameters:
      name: of the function or class that is called.
      of: the object that it is called on.
      table: names the replacements.

    Raises:
      Unsupported
    """
    where = f"{of}: " if of else ""
    raise Unsupported(f"{where}{name} is not supported: {table.get(name, 'send its tasks one by one')}")


def refuse_name(module: str, table: Mapping[str, str], name: str) -> NoReturn:
    """Refuse a name in a module; the body of the module's `__getattr__`.

    Raises:
      MissingName: Celery has it.
      AttributeError: Celery lacks it too.
    """
    if name in table:
        raise MissingName(f"celery.{module}.{name} is not there: {table[name]}")
    raise AttributeError(f"module {_ROOT + module!r} has no attribute {name!r}")


def refuse_attribute(kind: str, table: Mapping[str, str], name: str, of: object) -> Any:
    """Refuse an attribute; the body of an object's `__getattr__`.

    Python also calls `__getattr__` after a property has raised AttributeError. The property is read again, so that the
    caller sees its own error.

    Parameters:
      of: the object.

    Raises:
      AttributeError: a `MissingAttribute` if Celery's object has it.
    """
    if hasattr(type(of), name):
        return object.__getattribute__(of, name)
    if name in table:
        raise MissingAttribute(f"{kind}.{name} is not there: {table[name]}")
    raise AttributeError(f"{kind} has no attribute {name!r}")


class _Finder(MetaPathFinder):
    """The last finder of `sys.meta_path`: refuses a module that no other finder has found."""

    def find_spec(self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> None:
        if not fullname.startswith(_ROOT):
            return
        name = fullname.removeprefix(_ROOT)
        if name in MODULES:
            raise MissingName(f"celery.{name} is not there: {MODULES[name]}")


def install() -> None:
    """Let an import of a missing module say what to use instead."""
    if not any(isinstance(each, _Finder) for each in sys.meta_path):
        sys.meta_path.append(_Finder())
