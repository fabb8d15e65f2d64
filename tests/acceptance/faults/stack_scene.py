"""A cell played on `dream up`: one command is all of it, and takes all of it along when it dies."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dream.stack import servers_only
from dream.stack.servers import remove_weed_sockets
from dream.stack.state import DataFolder
from tests.acceptance.faults.scene import Scene
from tests.conftest import wait_for
from tests.processes import Process

__all__ = ["StackScene", "stack_environment"]


def stack_environment(data: Path, template: Path) -> dict[str, str]:
    """The variables of a stack on a new data folder, its ports chosen, its tables there."""
    with servers_only(data) as variables:
        environment = dict(variables)
    shutil.copy(template, DataFolder(data).database)
    return environment


class StackScene(Scene):
    """As `Scene`; its servers run when `dream up` runs, or while the test itself sets up and looks."""

    up: Process | None = None

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def start_parts(self) -> None:
        port = str(urlsplit(self.environment["DREAM_GATEWAY_URL"]).port)
        self.up = up = self.parts.start(
            "up", "--port", port, "--data", str(self._data), ready=False, **self._fault_of_parts
        )
        if self.cell.flow not in ("schedule", "expiry"):
            wait_for(lambda: "\nready " in f"\n{self.parts.log_of(up)}", 60, "the stack")

    def stop_parts(self) -> None:
        assert self.up is not None
        self.parts.stop(self.up, timeout_s=20)

    def kill_and_start_again(self) -> None:
        assert self.up is not None
        self.parts.kill(self.up)
        # In a transaction the web process would keep the upgrade of the tables waiting; it goes on without servers.
        self.go_on()
        self.start_parts()

    def close(self) -> None:
        super().close()
        if state := DataFolder(self._data).load():
            remove_weed_sockets(state)

    def _set_up(self) -> dict[str, Any]:
        with self._servers():
            return super()._set_up()

    def _check(self) -> None:
        with self._servers():
            super()._check()

    @contextmanager
    def _servers(self) -> Iterator[None]:
        with servers_only(self._data) as variables:
            moved = {name for name in variables if name != "DREAM_GATEWAY_URL" and "URL" in name}
            assert {name: self.environment[name] for name in moved} == {name: variables[name] for name in moved}
            yield
