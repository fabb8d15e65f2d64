"""The examples of docs/rest.md do what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dream.messages.states import ImageState
from tests.gateway import DREAM, Gateway, token

PAGE = Path(__file__).resolve().parents[3] / "docs/rest.md"


def test_the_examples_run_one_after_another(gateway: Gateway) -> None:
    broken = gateway.add_image(ImageState.FAILED, number=1)
    names: dict[str, Any] = {"GATEWAY": str(gateway.http.base_url), "TOKEN": token(), "DREAM": DREAM}
    names |= {"SEA": b"one", "HILL": b"two"}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 8
    for block in blocks:
        exec(block, names)  # noqa: S102 (the page's own examples)
    names["api"].close()
    assert (names["accepted"]["files"], names["accepted"]["refused"]) == (2, [])
    assert [picture["state"] for picture in names["first"].json()] == ["pending", "pending", "failed"]
    assert names["newest"] not in names["ids"]
    listed = gateway.http.get(names["pictures"], headers={"Authorization": f"Bearer {names['TOKEN']}"}).json()
    assert [picture["id"] for picture in listed] == names["ids"][::-1]
    assert (names["picture"]["id"], names["answer"].status_code) == (broken, 409)
    assert (names["wrong"].status_code, names["wrong"].json()["code"]) == (400, "query_invalid")
