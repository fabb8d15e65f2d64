"""`dream up`: embedded servers and dream's services on one machine.

The import of this package is light, because `dream worker` begins with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dream.stack.up import Stack, running_variables, servers_only
    from dream.work.respawn import keep_running

__all__ = ["Stack", "keep_running", "running_variables", "servers_only"]


def __getattr__(name: str) -> Any:
    """Import each public name at its first use."""
    if name == "keep_running":
        from dream.work.respawn import keep_running

        return keep_running
    if name in __all__:
        from dream.stack import up

        return getattr(up, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
