"""What of Celery is not there, by name, and what to use in its place: one error wherever it is asked for.

from dream.compat.bootsteps import …   a module: asked of the finder, when nobody else has found it
from dream.compat.result import …      a name of a module that is there: its `__getattr__`
app.pool                               an attribute: its class's `__getattr__`
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
    "INSPECT",
    "MODULES",
    "RESULT",
    "TASK",
    "MissingAttribute",
    "MissingName",
    "install",
    "refuse_attribute",
    "refuse_name",
]

_ROOT = "dream.compat."
_BY_ID = "AsyncResult finds a result by its id"
_PROFILER = "a profiler of the worker's process"
_LIST = "a list of AsyncResult"
_NO_PARTS = "workers are dramatiq's, and these parts are not there: use signals, or a middleware of dramatiq"
_STORES = ("cache", "database", "mongodb", "redis", "rpc")
_CONNECTION = "`dream doctor` and app.control.ping() say whether the broker is there; send with send_task"

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
    "events": "there are no monitor events: the rows of dream_tasks, the logs, control.inspect",
    "fixups": "what Celery's does for Django is done anyway",
    "loaders": "config_from_object and autodiscover_tasks",
    "platforms": "leave that to the service manager",
    "security": "messages are not signed: let only your own processes reach the broker",
    "task": "from dream.compat import Task, shared_task",
    "utils.nodenames": "DREAM_WORKER_NAME",
    "utils.threads": "threading",
    "worker.consumer": _NO_PARTS,
}
_STORE = "results are kept in DREAM_REDIS_URL, and app.backend reads and writes them by id"
BACKENDS = dict.fromkeys(("Backend", "BaseBackend", "BaseDictBackend", "KeyValueStoreBackend"), _STORE)
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


class MissingName(Unsupported, ImportError):
    """A module of Celery's, or a name in one, is not there."""


class MissingAttribute(Unsupported, AttributeError):
    """An attribute that Celery's object has is not there."""


def refuse_name(module: str, table: Mapping[str, str], name: str) -> NoReturn:
    """Say of a module's name that it is not there; its `__getattr__`.

    Raises:
      MissingName: Celery has it.
      AttributeError: nobody has it.
    """
    if name in table:
        raise MissingName(f"celery.{module}.{name} is not there: {table[name]}")
    raise AttributeError(f"module {_ROOT + module!r} has no attribute {name!r}")


def refuse_attribute(kind: str, table: Mapping[str, str], name: str, of: object) -> Any:
    """The `__getattr__` of an object: say that the attribute is not there.

    A property that raises AttributeError gets here too: it is read again, so that its own error is raised.

    Parameters:
      of: the object.

    Raises:
      AttributeError: a `MissingAttribute` where Celery's has it.
    """
    if hasattr(type(of), name):
        return object.__getattribute__(of, name)
    if name in table:
        raise MissingAttribute(f"{kind}.{name} is not there: {table[name]}")
    raise AttributeError(f"{kind} has no attribute {name!r}")


class _Finder(MetaPathFinder):
    """Asked last, for a module that is nowhere."""

    def find_spec(self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> None:
        if not fullname.startswith(_ROOT):
            return
        name = fullname.removeprefix(_ROOT)
        if name in MODULES:
            raise MissingName(f"celery.{name} is not there: {MODULES[name]}")


def install() -> None:
    """Let imports of modules that are not there say so."""
    if not any(isinstance(each, _Finder) for each in sys.meta_path):
        sys.meta_path.append(_Finder())
