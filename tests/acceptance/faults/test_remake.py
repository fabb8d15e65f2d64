"""Every fault at every step of a remake: the promise is kept (docs/reliability.md)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.faults.scene import Scene
from tests.acceptance.faults.strikes import STRIKES

FLOW = "remake"


@pytest.mark.timeout(180)
def test_the_promise_holds(scene: Scene, record_property: Callable[[str, object], None]) -> None:
    """Its task ends, the picture is there all the time, and after the night its old objects are gone."""
    record_property("outcome", scene.play(STRIKES[scene.cell.fault]))
