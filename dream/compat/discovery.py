"""Imports the modules with an app's tasks: those of `imports` and `include`, and the `tasks` modules of its packages.

A web process imports tasks where it uses them. A worker or a scheduler imports all of them when it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module

from dream.compat.django import installed_apps, is_django, set_up

__all__ = ["Discovery", "Packages"]

#: Names of packages, a function that gives them, or None for Django's installed apps.
Packages = Iterable[str] | Callable[[], Iterable[str]] | None


class Discovery:
    """The modules that wait to be imported."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Packages, str | None]] = []

    def add(self, packages: Packages, related_name: str | None) -> None:
        """Add the module `related_name` of each package; None adds the packages themselves."""
        self._waiting.append((packages, related_name))

    def run(self, modules: Iterable[str] = ()) -> None:
        """Import the modules, and all that were added.

        Raises:
          ImproperlyConfigured: Django's apps are named, and there is no Django. Errors of modules are not caught.
        """
        if is_django():
            set_up()
        for module in modules:
            import_module(module)
        waiting, self._waiting = self._waiting, []
        for packages, related_name in waiting:
            for package in _names(packages):
                _import_related(package, related_name)


def _names(packages: Packages) -> Iterable[str]:
    if packages is None:
        return installed_apps()
    names = packages() if callable(packages) else packages
    return (names,) if isinstance(names, str) else tuple(names)


def _import_related(package: str, related_name: str | None) -> None:
    """Import the related module of a package, which need not have one."""
    package = _imported(package)
    if related_name is None:
        return
    related = f"{package}.{related_name}"
    try:
        import_module(related)
    except ModuleNotFoundError as error:
        if error.name != related:
            raise


def _imported(package: str) -> str:
    """Import a package, which the class of its configuration may name (`shop.apps.ShopConfig`); returns its name."""
    try:
        return import_module(package).__name__
    except ModuleNotFoundError as error:
        module = package.rpartition(".")[0]
        if not module or error.name != package:
            raise
        return import_module(module).__package__ or module
