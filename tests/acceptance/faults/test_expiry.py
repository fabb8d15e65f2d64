"""Every fault at every step of the removal of a direct upload: the promise is kept (docs/reliability.md)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.faults.scene import Scene
from tests.acceptance.faults.strikes import STRIKES

FLOW = "expiry"


@pytest.mark.timeout(180)
def test_the_promise_holds(scene: Scene, record_property: Callable[[str, object], None]) -> None:
    """Its row and its bytes go, and those of an open upload stay."""
    record_property("outcome", scene.play(STRIKES[scene.cell.fault]))
