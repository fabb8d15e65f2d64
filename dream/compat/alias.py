"""The alias: libraries that import `celery`, or a `celery.X`, get `dream.compat` in its place.

    from dream.compat import alias
    alias.install()                       # before anything imports celery

Your own code needs no alias: it imports from `dream.compat`. Such a process cannot use real Celery.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from dream.compat.exceptions import ImproperlyConfigured

__all__ = ["install"]

_CELERY, _OURS = "celery", "dream.compat"


class _Alias(MetaPathFinder, Loader):
    """Finds `celery…` before any other finder. A missing module raises the errors of `dream.compat.refused`."""

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        is_celerys = fullname == _CELERY or fullname.startswith(f"{_CELERY}.")
        return ModuleSpec(fullname, self) if is_celerys else None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        try:
            sys.modules[name] = import_module(_OURS + name.removeprefix(_CELERY))
        except ModuleNotFoundError as error:
            if error.name != _OURS + name.removeprefix(_CELERY):
                raise
            raise ModuleNotFoundError(f"dream.compat has no {name}: see docs/celery.md", name=name) from None


def install() -> None:
    """Make `import celery` give `dream.compat` in this process from now on.

    Raises:
      ImproperlyConfigured: real Celery has been imported already.
    """
    loaded = sys.modules.get(_CELERY)
    if loaded is not None and loaded is not sys.modules[_OURS]:
        raise ImproperlyConfigured("celery has been imported already: call dream.compat.alias.install() before that")
    if not any(isinstance(each, _Alias) for each in sys.meta_path):
        sys.meta_path.insert(0, _Alias())
