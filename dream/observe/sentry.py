"""Error reports of dream's own processes to Sentry, if `DREAM_SENTRY_DSN` is set and the application has not set it up.

A report is a line of the log at level `error`, or an error that ends a run, a thread or the process. Reports carry no
variables, arguments, bodies, tokens or signatures. `dream.work.middleware.sentry` decides what a failed run reports.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Protocol

from dream.errors import ImageRejected, SettingsError
from dream.log import redacted
from dream.version import __version__

__all__ = ["in_use", "set_up"]

#: Seconds for which a process that ends waits for its last reports.
_LEAVE_S = 2


class Settings(Protocol):
    """The setting that this module reads."""

    @property
    def sentry_dsn(self) -> str | None: ...


def set_up(settings: Settings) -> None:
    """Report this process's errors, unless the application reports them already.

    `SENTRY_ENVIRONMENT` and `SENTRY_RELEASE` are read; the release is dream's version by default.

    Raises:
      SettingsError: Sentry's SDK is not installed.
    """
    if settings.sentry_dsn is None or in_use() is not None:
        return
    try:
        import sentry_sdk
        from sentry_sdk.integrations.atexit import AtexitIntegration
    except ImportError:
        raise SettingsError("DREAM_SENTRY_DSN needs Sentry's SDK: pip install 'dream-pictures[sentry]'") from None
    sentry_sdk.init(
        dsn=settings.sentry_dsn,
        release=os.environ.get("SENTRY_RELEASE") or f"dream@{__version__}",
        # The integrations of Starlette, Celery and Dramatiq would report again, with more of the request and the task.
        auto_enabling_integrations=False,
        integrations=[AtexitIntegration(callback=_say_nothing)],
        include_local_variables=False,
        max_request_body_size="never",
        send_default_pii=False,
        shutdown_timeout=_LEAVE_S,
        before_breadcrumb=_without_failure,
        before_send=_scrubbed,
        before_send_transaction=_scrubbed,
    )


def in_use() -> Any:
    """Sentry's SDK if somebody has set it up in this process, else None."""
    sdk = sys.modules.get("sentry_sdk")
    # Isolation scopes came with release 2.
    return sdk if sdk is not None and hasattr(sdk, "isolation_scope") and sdk.get_client().is_active() else None


def _say_nothing(pending: int, timeout_s: float) -> None:
    """Replace the SDK's line on standard error about reports that it still sends."""


def _without_failure(crumb: Any, hint: Mapping[str, Any]) -> Any:
    """The line of the log, or None for the one about the failure itself, which the report replaces."""
    return None if getattr(hint.get("log_record"), "dream_event", None) == "task_failed" else crumb


def _scrubbed(event: Any, hint: Mapping[str, Any]) -> Any:
    """The report without secrets, without the arguments of a task and without names of files."""
    error = (hint.get("exc_info") or (None, None))[1]
    if isinstance(error, ImageRejected) and "exception" in event:
        event["exception"]["values"][-1]["value"] = error.code or "several reasons"  # its text names files
    data = event.get("extra", {}).get("data")
    if isinstance(data, dict):  # of the façade's lines about a task
        event["extra"]["data"] = {name: data[name] for name in ("id", "name") if name in data}
    return redacted(event)
