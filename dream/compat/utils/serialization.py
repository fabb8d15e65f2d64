"""Celery's `celery.utils.serialization`, as far as callers look for it."""

from __future__ import annotations

from typing import Any

__all__ = ["UnpickleableExceptionWrapper"]


class UnpickleableExceptionWrapper(Exception):
    """What Celery gives for an error that it cannot build again; here such an error is a `TaskError`."""

    def __init__(self, exc_module: str, exc_cls_name: str, exc_args: Any, text: str | None = None) -> None:
        self.exc_module, self.exc_cls_name, self.exc_args, self.text = exc_module, exc_cls_name, exc_args, text
        super().__init__(exc_module, exc_cls_name, exc_args, text)

    def __str__(self) -> str:
        return self.text or f"{self.exc_cls_name}{tuple(self.exc_args)}"
