"""Every fault at every step of a variant that a visitor asks for: the promise is kept (docs/reliability.md)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.faults.scene import Scene
from tests.acceptance.faults.strikes import STRIKES

FLOW = "variant"


@pytest.mark.timeout(180)
def test_the_promise_holds(scene: Scene, record_property: Callable[[str, object], None]) -> None:
    """Its task ends, the picture stays, and the variant's object is there exactly if the row names it."""
    record_property("outcome", scene.play(STRIKES[scene.cell.fault]))
