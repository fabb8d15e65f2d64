"""Back-pressure: over a limit an upload is refused before anything is stored."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import event

from dream.errors import TooManyPending
from dream.producer import Producer
from dream.settings import Settings
from dream.storage import Storage

PICTURE = {"name": "a.jpg", "data": b"x"}


@pytest.mark.parametrize(
    ("limits", "other_dream_is_free", "other_user_is_free"),
    [
        ({"max_pending": 2}, False, False),
        ({"max_pending_per_dream": 2}, True, False),
        ({"max_pending_per_user": 2}, False, True),
    ],
)
def test_over_a_limit_nothing_is_stored(
    environment: dict[str, str],
    settings: Settings,
    settings_of: Callable[..., Settings],
    limits: dict[str, int],
    other_dream_is_free: bool,
    other_user_is_free: bool,
) -> None:
    """Two wait; the third is refused, for whom the limit is about and for nobody else."""
    producer = Producer(settings_of(environment, **limits))
    producer.upload_images(7, [PICTURE, PICTURE], [0, 0], user_id=1)
    with pytest.raises(TooManyPending, match=next(iter(limits)).upper()):
        producer.upload_images(7, [PICTURE], [0], user_id=1)
    assert len(list(Storage(settings).list_keys(settings.s3_bucket, ""))) == 2

    def is_free(dream_id: int, user_id: int) -> bool:
        try:
            producer.upload_images(dream_id, [PICTURE], [0], user_id=user_id)
        except TooManyPending:
            return False
        return True

    assert is_free(8, 1) == other_dream_is_free
    assert is_free(7, 2) == other_user_is_free
    producer.database.dispose()


def test_without_limits_nothing_is_counted(environment: dict[str, str], settings: Settings) -> None:
    producer = Producer(settings)
    statements: list[str] = []
    event.listen(producer.database.engine, "before_cursor_execute", lambda *said: statements.append(said[2]))
    producer.upload_images(7, [PICTURE], [0])
    assert statements
    assert not any("count(" in each.lower() for each in statements)
    producer.database.dispose()
