"""The answer to a browser's `Accept`."""

from __future__ import annotations

import pytest

from dream.gateway.accept import wish_of

CHROMIUM = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
SAFARI = "image/webp,image/avif,image/jxl,image/heic,video/*;q=0.8,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"
OLD = "image/png,image/*;q=0.8,*/*;q=0.5"


@pytest.mark.parametrize(
    ("accept", "stored", "answer"),
    [
        (CHROMIUM, "image/jpeg", "avif"),
        (SAFARI, "image/jpeg", "avif"),
        (CHROMIUM, "image/avif", None),
        (CHROMIUM, "image/webp", "avif"),
        (CHROMIUM, "image/png", "avif"),
        ("image/webp,*/*", "image/jpeg", "webp"),
        # No range but its own name means AVIF.
        (OLD, "image/jpeg", None),
        (OLD, "image/webp", None),
        (OLD, "image/avif", "jpeg"),
        ("image/*", "image/avif", "jpeg"),
        (None, "image/avif", "jpeg"),
        (None, "image/webp", None),
        ("", "image/jpeg", None),
        # A weight of 0 excludes.
        ("image/avif;q=0,image/webp,*/*", "image/jpeg", "webp"),
        ("image/avif;q=0,image/*", "image/jpeg", None),
        ("image/webp;q=0,image/*", "image/webp", "jpeg"),
        ("image/webp;q=0.0,image/avif;q=0.000,*/*;q=0.1", "image/webp", "jpeg"),
        # Weights decide before bytes do.
        ("image/avif;q=0.5,image/webp", "image/jpeg", "webp"),
        ("image/avif;q=0.5,image/webp;q=0.9,image/jpeg", "image/jpeg", None),
        ("image/jpeg", "image/webp", "jpeg"),
        ("image/avif", "image/jpeg", "avif"),
        # Case and spaces do not count; a wrong weight takes its range away.
        ("IMAGE/AVIF ; Q=1.0 , image/webp;q=0.9", "image/jpeg", "avif"),
        ("image/avif;q=2,image/webp", "image/jpeg", "webp"),
        ("image/avif;q=-1,*/*", "image/jpeg", None),
        ("image/avif;q=nan,*/*", "image/jpeg", None),
        # Who wants no picture gets the stored one.
        ("text/html", "image/jpeg", None),
        ("text/html", "image/avif", None),
        # Older systems stored pictures that a JPEG cannot hold.
        ("image/jpeg,*/*", "image/png", None),
        ("image/jpeg", None, None),
        (";;;,,,=", "image/jpeg", None),
        ("image/avif," * 10_000, "image/jpeg", "avif"),
    ],
)
def test_the_answer_is_the_best_that_the_browser_takes(
    accept: str | None, stored: str | None, answer: str | None
) -> None:
    assert wish_of(accept, stored).extension == answer


def test_it_knows_the_types_that_may_answer_meanwhile() -> None:
    assert wish_of(CHROMIUM, "image/jpeg").types == {"image/avif", "image/webp", "image/jpeg"}
    assert wish_of("image/webp;q=0,*/*", "image/webp").types == {"image/jpeg"}
