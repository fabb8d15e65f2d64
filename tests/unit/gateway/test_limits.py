"""The limits of each user of a gateway."""

from __future__ import annotations

from dream.gateway.limits import Limits
from dream.settings import Settings


def test_a_user_who_was_forgotten_has_the_same_cap() -> None:
    """Many others make room between the request for a stream and its beginning."""
    limits = Limits(Settings(max_sockets_per_user=1, max_requests_per_user_s=0))
    for user_id in range(3000):
        limits.request(user_id)
    assert limits.admit(0) is not None
    assert limits.admit(0) is None
