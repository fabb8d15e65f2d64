"""What of an app's configuration sets dream's own settings, where no `DREAM_…` variable does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dream.compat.conf import Conf

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["adopt"]

_ADOPTED = {"broker_url": "broker_url", "worker_concurrency": "worker_threads"}


def adopt(conf: Conf) -> Settings:
    """The settings of this process, in which what the app is set to stands in for what is not set.

    Raises:
      ImproperlyConfigured, SettingsError: a value is wrong.
    """
    from dream import settings

    settings.default_to(**{ours: conf[name] for name, ours in _ADOPTED.items() if conf.is_set(name) and conf[name]})
    return settings.load()
