"""Celery's `celery.utils.serialization`, the class that callers look for."""

from __future__ import annotations

from typing import Any

__all__ = ["UnpickleableExceptionWrapper"]


class UnpickleableExceptionWrapper(Exception):
    """Celery's stand-in for an error that it cannot build again; dream uses a `TaskError`."""

    def __init__(self, exc_module: str, exc_cls_name: str, exc_args: Any, text: str | None = None) -> None:
        self.exc_module, self.exc_cls_name, self.exc_args, self.text = exc_module, exc_cls_name, exc_args, text
        super().__init__(exc_module, exc_cls_name, exc_args, text)

    def __str__(self) -> str:
        return self.text or f"{self.exc_cls_name}{tuple(self.exc_args)}"
