"""Every fault at every step of an upload: the promise is kept (docs/reliability.md)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.faults.scene import Scene
from tests.acceptance.faults.strikes import STRIKES

FLOW = "upload"


@pytest.mark.timeout(180)
def test_the_promise_holds(scene: Scene, record_property: Callable[[str, object], None]) -> None:
    """Each accepted task ends, objects are those of rows, its end is said once and true."""
    record_property("outcome", scene.play(STRIKES[scene.cell.fault]))
