"""Messages of commands about servers that they cannot reach."""

from __future__ import annotations

import pytest

from dream.cli.command import reached
from dream.errors import BrokerUnavailable


def test_what_a_client_raises_is_told_in_one_line_without_secrets() -> None:
    with (
        pytest.raises(BrokerUnavailable, match=r"--from redis://\*\*\*@h/0: refused"),
        reached("--from redis://:p@h/0"),
    ):
        raise ConnectionError("refused")
