"""The request of a run: `self.request` in a task, and `request` in signals."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from dream.compat.envelope import Envelope

if TYPE_CHECKING:
    from dream.compat.app.trace import Delivered

__all__ = [
    "Context",
    "Request",
    "origin",
]

_HOST = socket.gethostname()
_OF_THE_RUN = {"envelope", "delivered", "children", "most_retries", "sent_retries", "is_calling"}


def origin() -> str:
    """The name of this process as a sender: `<pid>@<host>`."""
    return f"{os.getpid()}@{_HOST}"


class Context:
    """The request of one run. Its attributes have Celery's names; those without a value are None.

    Parameters:
      envelope: the message's task; None for a direct call.
      delivered: the message in the worker's hands; None without a worker.
      **named: other attributes.
    """

    id: str | None = None
    task: str | None = None
    args: Any = None
    kwargs: Any = None
    retries = 0
    eta: str | None = None
    expires: str | None = None
    is_eager = False
    called_directly = True
    headers: Any = None
    delivery_info: Any = None
    properties: Any = None
    hostname: str | None = None
    origin: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    chain: Any = None
    chord: Any = None
    shadow: str | None = None
    timelimit: Any = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    callbacks: Any = None
    errbacks: Any = None
    ignore_result = False
    replaced_task_nesting = 0
    stamped_headers: Any = None
    stamps: Any = None
    utc = True
    lang = "py"
    loglevel = 0
    logfile: str | None = None

    def __init__(self, envelope: Envelope | None = None, delivered: Delivered | None = None, **named: Any) -> None:
        self.envelope = envelope
        self.delivered = delivered
        #: Ids of the tasks that this run has sent.
        self.children: list[str] = []
        #: The argument of `retry(max_retries=)` in this run.
        self.most_retries: int | None = None
        #: The number of `retry` calls in this run.
        self.sent_retries = 0
        #: Whether a worker has called the task, and the task's own code does not run yet: see `Task.__call__`.
        self.is_calling = False
        if envelope is not None:
            self.__dict__.update(_seen(envelope))
        self.__dict__.update(named)

    @property
    def argsrepr(self) -> str:
        """The text of the arguments, or the text that the sender shows in their place."""
        given = self.envelope.argsrepr if self.envelope is not None else None
        return repr(tuple(self.args or ())) if given is None else given

    @property
    def kwargsrepr(self) -> str:
        given = self.envelope.kwargsrepr if self.envelope is not None else None
        return repr(dict(self.kwargs or {})) if given is None else given

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or a caller's own header."""
        return getattr(self, name, default)

    def update(self, *args: Any, **named: Any) -> None:
        """Set attributes; `timelimit` sets `time_limit` and `soft_time_limit`, too."""
        new = dict(*args, **named)
        self.__dict__.update(new)
        if "timelimit" in new:
            self.time_limit, self.soft_time_limit = new["timelimit"] or (None, None)

    def clear(self) -> None:
        """Delete all attributes but those that the run itself needs."""
        for name in self.__dict__.keys() - _OF_THE_RUN:
            del self.__dict__[name]

    def __repr__(self) -> str:
        return f"<Context: {self.task} {self.id}>"


def _seen(envelope: Envelope) -> dict[str, Any]:
    routing_key = envelope.delivery_info.get("routing_key", envelope.queue)
    seen = {
        "id": envelope.id,
        "task": envelope.task,
        "args": list(envelope.args),
        "kwargs": dict(envelope.kwargs),
        "retries": envelope.retries,
        "eta": envelope.eta,
        "expires": envelope.expires,
        "called_directly": False,
        "headers": dict(envelope.headers) or None,
        "delivery_info": {
            "exchange": "",
            "priority": envelope.priority or 0,
            "redelivered": False,
            **envelope.delivery_info,
            "routing_key": routing_key,
        },
        "properties": {
            **envelope.properties,
            "priority": envelope.priority or 0,
            "correlation_id": envelope.correlation_id or envelope.id,
            "reply_to": envelope.reply_to,
        },
        "origin": envelope.origin,
        "reply_to": envelope.reply_to,
        "correlation_id": envelope.correlation_id or envelope.id,
        "root_id": envelope.root_id or envelope.id,
        "parent_id": envelope.parent_id,
        "group": envelope.group,
        "shadow": envelope.shadow,
        "timelimit": list(envelope.timelimit),
        "callbacks": list(envelope.link) or None,
        "errbacks": list(envelope.link_error) or None,
        "ignore_result": envelope.ignore_result,
        "hostname": _HOST,
    }
    # A header of the sender's own is an attribute too, unless an attribute has its name.
    own = {name: value for name, value in envelope.headers.items() if name not in _OF_THE_RUN}
    return {**{name: value for name, value in own.items() if not hasattr(Context, name)}, **seen}


#: The headers of a message in Celery's protocol 2, and the fields that its worker adds.
_OF_THE_MESSAGE = (
    *("task", "id", "root_id", "parent_id", "group", "shadow", "eta", "expires", "retries", "timelimit", "origin"),
    *("argsrepr", "kwargsrepr", "ignore_result", "lang"),
    *("args", "kwargs", "headers", "reply_to", "correlation_id", "delivery_info", "hostname", "properties"),
)


class Request(Context):
    """The `request` of `task_received` and `task_revoked`: `self.request`, with the names of a worker's request."""

    @classmethod
    def of(cls, context: Context) -> Request:
        """The same request as this class."""
        request = cls.__new__(cls)
        request.__dict__.update(context.__dict__)
        return request

    @property
    def task_id(self) -> str | None:
        return self.id

    @property
    def name(self) -> str | None:
        return self.task

    task_name = name

    @property
    def _request_dict(self) -> dict[str, Any]:
        """All fields by name, with the sender's own headers, as Celery's workers keep them."""
        own = self.headers or {}
        return {**own, **{name: getattr(self, name) for name in _OF_THE_MESSAGE}}

    def info(self, safe: bool = False) -> dict[str, Any]:
        """The fields that `control.inspect` shows.

        Parameters:
          safe: give the arguments themselves, not their text.
        """
        return {
            "id": self.id,
            "name": self.task,
            "type": self.task,
            "args": self.args if safe else self.argsrepr,
            "kwargs": self.kwargs if safe else self.kwargsrepr,
            "hostname": self.hostname,
            "acknowledged": False,
            "delivery_info": self.delivery_info,
        }
