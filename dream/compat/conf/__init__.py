"""What an app is set to: `app.conf`.

    app.conf.x = …  ►  Celery(…, x=…)  ►  config_from_object(…)  ►  the default

The first that has a value counts. An object is read when the first setting is asked for, so that it may name what
cannot be imported yet. Names may be Celery's old ones everywhere.
"""

from __future__ import annotations

import copy
import warnings
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from dream.compat.conf import names
from dream.compat.conf.sources import read

__all__ = ["Conf"]


class Conf(MutableMapping[str, Any]):
    """The settings of an app, as attributes and as items.

    Parameters:
      given: what the app was made with.
      **computed: functions that give a setting where nobody has set it.

    Raises:
      ImproperlyConfigured: a setting asks for what would not hold; raised where it is set, or at the first look into
        an object that has it.
    """

    def __init__(self, given: Mapping[str, Any] | None = None, **computed: Callable[[], Any]) -> None:
        state = {"_changes": {}, "_given": {}, "_object": {}, "_computed": computed}
        self.__dict__.update(state, _source=None, _defaults=copy.deepcopy(names.DEFAULTS), _changed=0)
        self._given.update(_checked({_name(key): value for key, value in (given or {}).items()}))

    def compute(self, name: str, function: Callable[[], Any]) -> None:
        """Let a function give a setting where nobody has set it."""
        self._computed[name] = function

    def read_from(self, source: Any, namespace: str | None = None) -> None:
        """Take the settings of an object, now or at the first look; what was set before on `conf` is dropped."""
        self._changes.clear()
        self.__dict__.update(_source=(source, namespace), _object={}, _changed=self._changed + 1)

    def resolve(self) -> None:
        """Look into the object that settings come from, if nobody has yet.

        Raises:
          ImproperlyConfigured: there is no such object, or it asks for what would not hold.
        """
        if self._source is not None:
            found = _checked(read(*self._source), is_celerys=self._source[1] is not None)
            self.__dict__.update(_source=None, _object=found, _changed=self._changed + 1)

    @property
    def times_changed(self) -> int:
        """How often settings have changed: values that were derived before may be outdated."""
        self.resolve()
        return int(self.__dict__["_changed"])

    def is_set(self, key: str) -> bool:
        """Whether somebody has set it."""
        self.resolve()
        return any(_name(key) in layer for layer in (self._changes, self._given, self._object))

    def __getitem__(self, key: str) -> Any:
        self.resolve()
        name = _name(key)
        for layer in (self._changes, self._given, self._object):
            if name in layer:
                return layer[name]
        if name in self._computed:
            self._defaults[name] = self._computed[name]()
        if name in self._defaults:
            return self._defaults[name]
        if names.new_name(name) is not None:
            return None
        raise KeyError(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self.resolve()
        self._changes.update(_checked({_name(key): value}))
        self.__dict__["_changed"] += 1

    def __delitem__(self, key: str) -> None:
        del self._changes[_name(key)]
        self.__dict__["_changed"] += 1

    def __iter__(self) -> Iterator[str]:
        self.resolve()
        return iter(ChainMap(self._changes, self._given, self._object, self._defaults))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{name} is not set") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __repr__(self) -> str:
        return f"<Conf: {', '.join(sorted({**self._object, **self._given, **self._changes})) or 'nothing set'}>"


def _name(key: str) -> str:
    return names.new_name(key) or key


def _checked(settings: dict[str, Any], *, is_celerys: bool = False) -> dict[str, Any]:
    names.check(settings)
    asked_for = sorted(name for name, value in settings.items() if value)
    without_effect = [name for name in asked_for if names.is_without_effect(name, is_celerys=is_celerys)]
    if without_effect:
        warnings.warn(f"settings without effect here: {', '.join(without_effect)} (docs/celery.md)", stacklevel=4)
    return settings
