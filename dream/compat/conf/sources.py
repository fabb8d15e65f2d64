"""Where a configuration may be written: a module, a class, an object (Django's settings), a mapping, or its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from dream.compat.conf.names import new_name
from dream.compat.exceptions import ImproperlyConfigured

__all__ = ["read", "resolve"]


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
    """The settings of a source by their new names, and, of a mapping, module or class without namespace, what is the
    caller's own.

    Parameters:
      source: see the module.
      namespace: with one, only names that begin with it count: `CELERY` for `CELERY_TASK_ROUTES`.

    Raises:
      ImproperlyConfigured: there is no such object.
    """
    found = resolve(source) if isinstance(source, str) else source
    if isinstance(found, Mapping):
        return dict(_named(found, namespace))
    names = [key for key in dir(found) if key[0] != "_"]
    # Of an object only what is a setting is looked at: to read all of Django's would wake its deprecation warnings.
    values = {key: getattr(found, key) for key in names if new_name(key, namespace)}
    if namespace is None and isinstance(found, ModuleType | type):
        values |= {key: value for key in names if key not in values and not _is_code(value := getattr(found, key))}
    return {name: value for name, value in _named(values, namespace) if not _is_imported(value)}


def _named(values: Mapping[str, Any], namespace: str | None) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = new_name(key, namespace)
        if name is not None:
            yield name, value
        elif namespace is None:
            yield key, value


def _is_code(value: Any) -> bool:
    """Whether it is a function, say, that a setting beside it may name, and no setting."""
    return callable(value) or hasattr(value, "__get__")


def _is_imported(value: Any) -> bool:
    """Whether it is in a module only to be used there, as in `from datetime import timezone`."""
    return isinstance(value, type | ModuleType)
