"""The steps of a remake's run: make a stored picture anew, from its original or else from the stored picture.

    begin ─► fetch ─► pool ─► put under new keys ─► switch the row      (later the sweep deletes the old objects)

The picture's URL stays, and there is no moment without a picture: its row names the old objects until the new ones are
there. No event is sent: URLs stay, and a page need not load again. With `DREAM_PUBLIC_URL` the public reads the store
itself, so the keys are the URLs, and the objects are overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dream.actors.stored import fetch_source, loses, process, take_back
from dream.db import DreamImage, images, remakes, tasks, variants
from dream.db.clock import now
from dream.errors import InvalidArguments, LeaseLost
from dream.fault_points import step
from dream.imaging import Limits, Processed, Variant, variant_path
from dream.log import get_logger
from dream.messages.arguments import MAX_ID
from dream.messages.pictures import OUTPUT_FORMATS, StoredVariant
from dream.messages.states import ImageState
from dream.storage.keys import (
    canonical_url,
    content_key,
    is_overwritten,
    keys_of_remakes,
    object_stem,
    places_of,
    variant_key,
    variant_object_key,
)

if TYPE_CHECKING:
    from dream.actors.resources import Resources
    from dream.runs.run import Run
    from dream.variants import VariantSpec

__all__ = ["remake"]

log = get_logger(__name__)

#: All remakes take turns as one group, after the uploads of any user.
_GROUP = "remakes"


def remake(resources: Resources, run: Run, image_id: int, begun_at: str, variants: list[str] | None) -> bool:
    """Make a picture anew, or only its variants of these names.

    Parameters:
      image_id: the picture.
      begun_at: the beginning of the pass, as ISO text: a picture whose objects are newer is done.
      variants: None means the picture and all its variants.

    Returns:
      Whether it was made anew; False if it is done already, or is being deleted.

    Raises:
      InvalidArguments: a stranger sent the task, and its arguments are wrong.
      ObjectMissing: neither the original nor the stored picture is there.
      ImageRejected: the picture cannot be processed with today's settings; the stored one stays.
    """
    since, names = _checked(image_id, begun_at, variants)
    steps = Remake(resources, run, names)
    if not steps.begin(image_id, since):
        return False
    with resources.folder() as folder:
        source, target = folder / "source", folder / "target"
        steps.fetch(source)
        made = steps.process(source, target)
        with run.whole():
            return steps.store_and_switch(made, target)


def _checked(image_id: Any, begun_at: Any, variants: Any) -> tuple[datetime, list[str] | None]:
    try:
        if not isinstance(image_id, int) or not 0 < image_id <= MAX_ID:
            raise ValueError
        since = datetime.fromisoformat(begun_at)
        if since.tzinfo is None or not (variants is None or all(isinstance(each, str) for each in variants)):
            raise ValueError
    except (TypeError, ValueError):
        raise InvalidArguments("a remake needs a picture's id, a moment with time zone, and names or null") from None
    return since, variants


class Made(NamedTuple):
    """The files of a run, before they are stored.

    Parameters:
      picture: None if only variants are made.
      variants: each at `variant_path`.
    """

    picture: Processed | None
    variants: Sequence[Variant]


class Remake:
    """One run of `remake_image`.

    Parameters:
      resources: connections, pool and folder.
      run: this run's claim and deadline.
      names: the variants to make; None means the picture and all its variants.
    """

    def __init__(self, resources: Resources, run: Run, names: Sequence[str] | None) -> None:
        self._settings = resources.settings
        self._producer = resources.producer
        self._database = resources.connections.database
        self._storage = resources.connections.storage
        self._pool = resources.pool
        self._run = run
        self._names = names
        self._image = DreamImage()
        self._limits = Limits.of(resources.settings)
        self._specs: list[VariantSpec] = []
        self._is_in_place = False
        #: The source is the stored picture itself.
        self._is_stored = False

    @step("number")
    def begin(self, image_id: int, since: datetime) -> bool:
        """Take a number for the new objects; False if there is nothing to do."""
        with self._database.begin() as session:
            tasks.check_lease(session, self._run.claim)
            image = variants.locked(session, image_id)
            if image is None or (image.made_at is not None and image.made_at >= since):
                return False
            self._is_in_place = is_overwritten(self._settings, image)
            self._specs = self._specs_of(image)
            remakes.begin(session, image_id, self._specs)
        self._image = image
        return True

    def _specs_of(self, image: DreamImage) -> list[VariantSpec]:
        """The variants to make: those of an upload, and the stored ones that visitors have asked for."""
        named = self._settings.named_variants
        if self._names is not None:
            return [named[name] for name in self._names if name in named]
        lazy = {each["name"] for each in image.variants} - {each.name for each in self._settings.upload_variants}
        return [*self._settings.upload_variants, *(named[name] for name in sorted(lazy & named.keys()))]

    @step("fetch")
    def fetch(self, source: Path) -> None:
        """Get the original, or else the stored picture."""
        self._is_stored = not fetch_source(self._run, self._storage, self._image, source)

    def process(self, source: Path, target: Path) -> Made:
        """Process the source in the pool. A stored picture that today's settings allow keeps its bytes."""
        image = self._image
        if self._names is not None:
            return Made(None, self._variants_alone(source, target))
        limits = self._limits.wanting(self._specs).around(image.focus or image.found_focus)
        processed = self._work(source, target, limits)
        if not self._is_good(source, processed):
            return Made(processed, processed.variants)
        source.replace(target)
        kept = {name: getattr(image, name) for name in ("width_px", "height_px", "content_type")}
        extensions = {each.content_type: each.extension for each in OUTPUT_FORMATS.values()}
        kept["extension"] = extensions[image.content_type or ""]
        return Made(replace(processed, **kept, size_bytes=target.stat().st_size), processed.variants)

    def _variants_alone(self, source: Path, target: Path) -> list[Variant]:
        """Make each variant without the picture; none is larger than the stored picture, and no rung is a still."""
        image = self._image
        size = (image.width_px or 0, image.height_px or 0)
        edge_px = max(size) or self._settings.max_edge_px
        made = []
        for spec in self._specs:
            if any(size) and not spec.is_made_of(size):
                continue
            limits = self._limits.making(spec, edge_px, image.focus or image.found_focus)
            processed = self._work(source, variant_path(target, spec.name), limits)
            if not (spec.is_whole and loses(image, processed)):
                facts = {each.name: getattr(processed, each.name) for each in fields(Variant) if each.name != "name"}
                made.append(Variant(name=spec.name, **facts))
        return made

    def _work(self, source: Path, target: Path, limits: Limits) -> Processed:
        return process(self._run, self._pool, self._image, source, target, limits, _GROUP)

    def _is_good(self, source: Path, processed: Processed) -> bool:
        """Whether the source is a stored picture that today's settings allow."""
        image, limits = self._image, self._limits
        wanted = OUTPUT_FORMATS if limits.output_format == "auto" else [limits.output_format]
        # An animation is a WebP with any setting but `jpeg`.
        allowed = {processed.content_type, *(OUTPUT_FORMATS[name].content_type for name in wanted)}
        return (
            self._is_stored
            and image.content_type in allowed
            and 0 < max(image.width_px or 0, image.height_px or 0) <= limits.max_edge_px
            and source.stat().st_size <= limits.max_bytes
        )

    def store_and_switch(self, made: Made, target: Path) -> bool:
        """Put the new objects, then let the row name them; False if the picture was deleted meanwhile."""
        is_switched = False
        try:
            self._put(made, target)
            is_switched = self._switch(made)
        except LeaseLost:
            self._take_back()
            raise
        if not is_switched:
            self._take_back()
        return is_switched

    @step("put")
    def _put(self, made: Made, target: Path) -> None:
        """Put the variants, then the picture, each under a key that only this run writes (or in place)."""
        bucket, put = self._image.bucket or "", partial(self._storage.put_file, is_public=self._is_in_place)
        for each in made.variants:
            key = variant_object_key(self._variant_ref(each))
            self._run.wait_for(put, bucket, key, variant_path(target, each.name), each.content_type)
            self._run.check()
        if made.picture is not None:
            self._run.wait_for(put, bucket, self._key(made.picture), target, made.picture.content_type)

    def _key(self, processed: Processed) -> str:
        image = self._image
        if self._is_in_place:
            return image.storage_key
        return content_key(object_stem(image.storage_key, image.last_remake), processed.extension)

    def _variant_ref(self, variant: Variant) -> StoredVariant:
        """The description of a variant. Its URL stays, if there was one of its name."""
        image = self._image
        plain_key = variant_key(image.storage_key, variant.name, variant.extension)
        urls = {each["name"]: each["url"] for each in image.variants}
        ref: StoredVariant = {
            "name": variant.name,
            "url": urls.get(variant.name) or canonical_url(self._settings, plain_key),
            "width_px": variant.width_px,
            "height_px": variant.height_px,
            "size_bytes": variant.size_bytes,
            "content_type": variant.content_type,
            "made_as": next(each for each in self._specs if each.name == variant.name).recipe(image.focus),
        }
        if not self._is_in_place:
            stem = object_stem(image.storage_key, image.last_remake)
            ref["key"] = variant_key(stem, variant.name, variant.extension)
        return ref

    @step("switch")
    def _switch(self, made: Made) -> bool:
        """Let the row name the new objects; False if the picture is being deleted."""
        with self._database.begin() as session:
            tasks.check_lease(session, self._run.claim)
            row = variants.locked(session, self._image.id)
            if row is None:
                log.info("image_gone", image_id=self._image.id)
                return False
            if made.picture is not None:
                self._describe(row, made.picture)
            row.variants = self._merged(row, [self._variant_ref(each) for each in made.variants])
            today = {each.name: each.row for each in self._specs}
            row.wanted_variants = [today.get(name, [name, wanted]) for name, wanted in row.wanted_variants or ()]
            row.made_at = now()
            kept_bytes = row.original_bytes if row.original_key else 0
            row.stored_bytes = images.stored_bytes(row.size_bytes, row.variants, kept_bytes)
            # Its owner may have given another focal point meanwhile.
            self._producer.accept_crops(row, session)
        log.info("image_remade", image_id=self._image.id, variants=len(made.variants))
        return True

    def _describe(self, row: DreamImage, processed: Processed) -> None:
        row.remakes = row.remakes if self._is_in_place else self._image.last_remake
        for name in ("width_px", "height_px", "size_bytes", "content_type", "placeholder", "dominant_colour"):
            setattr(row, name, getattr(processed, name))
        if row.found_focus is None:
            row.found_focus = list(processed.found_focus)
        row.perceptual_hash = row.perceptual_hash or processed.perceptual_hash
        if self._settings.keep_facts == "none":
            row.facts = None
        elif processed.facts:  # an original has them, a stored picture has none
            row.facts = {**processed.facts}

    def _merged(self, row: DreamImage, made: list[StoredVariant]) -> list[StoredVariant]:
        """The variants that were made, and those of other names that stay.

        Of a picture that is made anew, only variants stay that a visitor's run has made meanwhile. Names that the
        settings no longer have disappear, and so do other formats (`card.avif`): they are made when asked for.
        """
        tried = {each.name for each in self._specs}
        known = set(self._settings.named_variants)
        kept = known if self._names is None else {each["name"] for each in row.variants}
        return [*made, *(each for each in row.variants if each["name"] in kept - tried)]

    def _take_back(self) -> None:
        """Delete the objects that only this run has stored; after a deletion in place, those under the URL as well."""
        image = self._image
        with self._database.read() as session:
            row = session.get(DreamImage, image.id)
        is_there = row is not None and row.state is ImageState.COMPLETED
        keys = keys_of_remakes(image, [image.last_remake])
        places = {(image.bucket or "", key) for key in keys} if is_there else places_of(image)
        take_back(self._run, self._storage, image.id, places)
