"""`Proxy`: a stand-in for an object that it looks up at each use, such as `current_app` or a shared task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Proxy"]


class Proxy:
    """Behaves as the object that `look_up` returns at that moment.

    Parameters:
      look_up: gives the object.
      name: the `__name__` of the proxy itself.
    """

    __slots__ = ("__dict__", "_look_up")

    def __init__(self, look_up: Callable[[], Any], name: str | None = None) -> None:
        object.__setattr__(self, "_look_up", look_up)
        if name is not None:
            object.__setattr__(self, "__name__", name)

    def _get_current_object(self) -> Any:
        return object.__getattribute__(self, "_look_up")()

    @property
    def __class__(self) -> Any:
        return type(self._get_current_object())

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise TypeError("the class of a proxy's object cannot be changed")

    @property
    def __doc__(self) -> Any:  # type: ignore[override]
        return self._get_current_object().__doc__

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get_current_object(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._get_current_object(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._get_current_object(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._get_current_object()(*args, **kwargs)

    def __bool__(self) -> bool:
        return bool(self._get_current_object())

    def __eq__(self, other: object) -> bool:
        other = other._get_current_object() if type(other) is Proxy else other
        return bool(self._get_current_object() == other)

    def __hash__(self) -> int:
        return hash(self._get_current_object())

    def __dir__(self) -> list[str]:
        return dir(self._get_current_object())

    def __repr__(self) -> str:
        return repr(self._get_current_object())

    def __str__(self) -> str:
        return str(self._get_current_object())
