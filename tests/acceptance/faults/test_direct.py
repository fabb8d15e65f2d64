"""Every fault at every step of a direct upload: the promise is kept (docs/reliability.md)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.faults.scene import Scene
from tests.acceptance.faults.strikes import STRIKES

FLOW = "direct"


@pytest.mark.timeout(180)
def test_the_promise_holds(scene: Scene, record_property: Callable[[str, object], None]) -> None:
    """An upload is accepted once or not at all, a client that asks again hears the same, and no bytes stay."""
    record_property("outcome", scene.play(STRIKES[scene.cell.fault]))
