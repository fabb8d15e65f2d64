"""Resolve the targets of a deletion: find the picture that each item names, and check that the caller may name it.

A deletion names a picture by URL or key. An item is found by its `id`, within its dream, only if it has no `url`: an
empty URL, which a failed picture has, names nothing, because the `id` beside it is the caller's own. A picture of
another dream is refused. An object without a row is deleted only from the default bucket or from that user's own
(docs/architecture.md, "Nothing is guessed at when deleting").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from dream.db import DreamImage, images
from dream.messages.arguments import UrlToDelete
from dream.storage.keys import EXTENSIONS, Location, locate, places_of, user_buckets

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["Target", "resolve", "resolve_all"]

#: The request of a deletion: dream, items, and the name of its user.
Deletion = tuple[int, Sequence[UrlToDelete], str]


@dataclass(frozen=True)
class Target:
    """The target of one item of a deletion: a row, an object without a row, or nothing that may be deleted."""

    image: DreamImage | None = None
    #: Bucket and key of each object.
    places: frozenset[tuple[str, str]] = frozenset()

    @property
    def is_allowed(self) -> bool:
        return self.image is not None or bool(self.places)


def resolve(
    session: Session, settings: Settings, dream_id: int, image_urls: Sequence[UrlToDelete], username: str
) -> list[Target]:
    """The target of each item, in order."""
    [targets] = resolve_all(session, settings, [(dream_id, image_urls, username)])
    return targets


def resolve_all(session: Session, settings: Settings, deletions: Sequence[Deletion]) -> list[list[Target]]:
    """The target of each item of each deletion, in order."""
    places = [[locate(settings, item["url"]) if item.get("url") else None for item in urls] for _, urls, _ in deletions]
    rows = images.by_keys(session, [place.key for each in places for place in each if place], EXTENSIONS)
    return [
        [
            _by_place(settings, dream_id, place, rows.get(place.key), username)
            if place
            else _by_id(session, dream_id, item)
            for item, place in zip(image_urls, found, strict=True)
        ]
        for (dream_id, image_urls, username), found in zip(deletions, places, strict=True)
    ]


def _by_id(session: Session, dream_id: int, item: UrlToDelete) -> Target:
    image = None if "url" in item else images.by_id(session, dream_id, item["id"])
    return _of_row(image) if image else Target()


def _of_row(image: DreamImage) -> Target:
    return Target(image, frozenset(places_of(image)))


def _by_place(settings: Settings, dream_id: int, place: Location, image: DreamImage | None, username: str) -> Target:
    if image is not None:
        return _of_row(image) if image.dream_id == dream_id else Target()
    allowed = user_buckets(settings, username)
    if "." not in place.key or (place.bucket is not None and place.bucket not in allowed):
        return Target()
    bucket = place.bucket or (None if settings.is_bucket_per_user else settings.s3_bucket)
    return Target(None, frozenset({(bucket, place.key)})) if bucket else Target()
