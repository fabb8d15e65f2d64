"""Celery's `celery.worker.request`: the request that signals about a message carry."""

from __future__ import annotations

from typing import Any

from dream.compat.app.context import Context

__all__ = ["Request"]

#: The headers of a message in Celery's protocol 2, and the fields that its worker adds.
_OF_THE_MESSAGE = (
    *("task", "id", "root_id", "parent_id", "group", "shadow", "eta", "expires", "retries", "timelimit", "origin"),
    *("argsrepr", "kwargsrepr", "ignore_result", "lang"),
    *("args", "kwargs", "headers", "reply_to", "correlation_id", "delivery_info", "hostname", "properties"),
)


class Request(Context):
    """The `request` of `task_received` and `task_revoked`: as `self.request`, with a worker's names beside it."""

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
          safe: give arguments as they are, not as text.
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
