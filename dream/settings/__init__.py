"""The one reader of the environment: `load()` gives the settings of this process, validated once and frozen.

It reads `DREAM_…` variables and, where `DREAM_SECRETS_DIR` names a folder, the files of those names in it. A wrong
value raises `SettingsError` with one line that names each wrong variable, its value and the values that are allowed.

    types      the kinds of values, and what each allows
    fields     the settings
    __init__   reading them, with defaults that an app's configuration gives (`default_to`)
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from pydantic_settings.exceptions import SettingsError as SourceError

from dream import fault_points
from dream.errors import SettingsError
from dream.settings.fields import Settings
from dream.settings.types import MAX_URL_LENGTH

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["MAX_URL_LENGTH", "Settings", "default_to", "is_defaulted", "load", "set_by_environment", "with_defaults"]

#: Parts of the names of secrets: their wrong values are not shown.
_SECRETS = ("SECRET", "DSN", "MEDIA_KEYS")
#: Sentences for wrong values, where pydantic speaks of its parser.
_REASONS = {
    "bool_parsing": "it must be yes or no",
    "int_parsing": "it must be a whole number, without a unit",
    "float_parsing": "it must be a number, without a unit",
}
#: The variables that `default_to` has set, and their values.
_defaults: dict[str, str] = {}
_defaulting = threading.RLock()


def _read(given: Mapping[str, object]) -> Settings:
    secrets_dir = os.environ.get("DREAM_SECRETS_DIR") or None
    if secrets_dir is not None and not Path(secrets_dir).is_dir():
        raise SettingsError(f"DREAM_SECRETS_DIR={secrets_dir!r} is wrong: it must be a folder")
    if secrets_dir is not None:
        _check_secrets(Path(secrets_dir))
    try:
        return Settings(_secrets_dir=secrets_dir, **given)  # type: ignore[arg-type, call-arg]
    except ValidationError as error:
        # A value that fits none of several types has an error for each type: the first one tells.
        each = {line["loc"][:1]: _sentence(line) for line in reversed(error.errors())}
        raise SettingsError(*reversed(each.values())) from None
    except SourceError as error:
        reason = error.__cause__ or error
        raise SettingsError(f"DREAM_SECRETS_DIR={secrets_dir!r} is wrong: it cannot be read ({reason})") from None


def _check_secrets(folder: Path) -> None:
    """Refuse an entry with the name of a setting that is no file: pydantic would take the default without a word.

    Raises:
      SettingsError: see above.
    """
    names = {f"dream_{name}" for name in Settings.model_fields}
    wrong = f"DREAM_SECRETS_DIR={str(folder)!r} is wrong"
    try:
        others = sorted(each.name for each in folder.iterdir() if each.name.lower() in names and not each.is_file())
    except OSError as error:
        raise SettingsError(f"{wrong}: it cannot be read ({error})") from None
    if others:
        raise SettingsError(f"{wrong}: {others[0]} in it must be a file")


@lru_cache(maxsize=1)
def load() -> Settings:
    """Read and check the environment, once a process.

    Raises:
      SettingsError: one line that names every wrong value.
    """
    settings = _read({})
    fault_points.arm(settings.fault)
    return settings


def set_by_environment() -> frozenset[str]:
    """The settings that the environment gives, without those of `default_to`."""
    with _defaulting:
        ours = {name.removeprefix("DREAM_").lower() for name in _ours()}
        return frozenset(load().model_fields_set - ours)


def is_defaulted() -> bool:
    """Whether values of `default_to` are in force."""
    return bool(_ours())


def default_to(**values: object) -> None:
    """Set values of variables that the environment does not set, in this process and in its child processes.

    They replace the values of an earlier call.

    Raises:
      SettingsError: see `load`.
    """
    with _defaulting:
        unset = values.keys() - set_by_environment()
        new, before = {f"DREAM_{name.upper()}": str(values[name]) for name in unset}, _ours()
        if new == before:
            return
        _replace(before, new)
        try:
            load()
        except SettingsError:  # a wrong one is refused, and not kept
            _replace(new, before)
            raise


def with_defaults(*, alone: bool, **values: object) -> Settings:
    """The settings as after `default_to`, but without a change to this process.

    Parameters:
      alone: ignore the values of `default_to`.

    Raises:
      SettingsError: see `load`.
    """
    others = {name.removeprefix("DREAM_").lower() for name in _ours()} if alone else set()
    given = {name: Settings.model_fields[name].get_default() for name in others}
    operators = set_by_environment()
    return _read({**given, **{name: value for name, value in values.items() if name not in operators}})


def _ours() -> dict[str, str]:
    """The variables that `default_to` has set and that still have its value."""
    return {name: value for name, value in _defaults.items() if os.environ.get(name) == value}


def _replace(before: Mapping[str, str], new: Mapping[str, str]) -> None:
    for name in before.keys() - new.keys():
        del os.environ[name]
    os.environ.update(new)
    _defaults.clear()
    _defaults.update(new)
    load.cache_clear()


def _sentence(error: ErrorDetails) -> str:
    reason = _REASONS.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return reason
    name = f"DREAM_{str(error['loc'][0]).upper()}"
    shown = "(hidden)" if any(part in name for part in _SECRETS) else _hidden(repr(error["input"]))
    return f"{name}={shown} is wrong: {reason[:1].lower()}{reason[1:]}"


def _hidden(url: str) -> str:
    """The URL without passwords, encoded or not, with or without `://`: up to its last `@`, and in options."""
    return re.sub(r"(passw(?:or)?d=)[^&'\"\s]+", r"\1***", re.sub(r"^(['\"](?:[\w+.-]+://)?).*@", r"\1***@", url))
