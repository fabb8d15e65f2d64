"""The embedded servers behind `dream up`, and what keeps processes running.

Importing this package is light: it stands at the start of `dream worker`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dream.stack.respawn import keep_running
    from dream.stack.up import Stack, running_variables, servers_only

__all__ = ["Stack", "keep_running", "running_variables", "servers_only"]


def __getattr__(name: str) -> Any:
    """Load each public name where it is first used."""
    if name == "keep_running":
        from dream.stack.respawn import keep_running

        return keep_running
    if name in __all__:
        from dream.stack import up

        return getattr(up, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
