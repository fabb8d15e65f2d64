"""The steps of a run that makes one version of a stored picture on demand.

    begin ─► fetch ─► make ─► put ─► keep
    (the row names the version)   (object, then the row has it)

If the picture is deleted meanwhile, the run deletes its object again. If it is remade, another run begins. No event is
sent: open pages show a picture already, and would load it again.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dream.actors.stored import fetch_source, loses, process, take_back
from dream.db import DreamImage, tasks, variants
from dream.errors import InvalidArguments, LeaseLost, RunContinues
from dream.fault_points import step
from dream.imaging import Limits
from dream.log import get_logger
from dream.messages.pictures import OUTPUT_FORMATS, StoredVariant
from dream.messages.states import ImageState
from dream.messages.variants import slot_of
from dream.observe.metrics import BYTES_OUT, VARIANTS
from dream.runs.sending import group_of_dream
from dream.storage.keys import (
    EXTENSIONS,
    canonical_url,
    is_overwritten,
    object_stem,
    variant_key,
    variant_object_key,
)
from dream.variants import VariantSpec

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dream.actors.resources import Resources
    from dream.imaging import Processed
    from dream.runs.run import Run

__all__ = ["make_variant"]

log = get_logger(__name__)

#: Media types by the bytes that they need for equal pixels, the fewest last.
_BETTER = [OUTPUT_FORMATS[name].content_type for name in ("jpeg", "webp", "avif")]


def make_variant(resources: Resources, run: Run, image_id: int, name: str, recipe: str) -> str | None:
    """Make a version of a picture; returns its URL, or None if the picture is gone or this version is no gain."""
    making = Making(resources, run, _wanted(image_id, name, recipe))
    image = making.begin()
    if image is None:
        making.take_back()
        VARIANTS.add("gone")
        return None
    if making.url is not None:
        return making.url
    with resources.folder() as folder:
        target = folder / "out"
        processed = making.make(image, making.fetch(image, folder / "in"), target)
        if not making.is_gain(image, processed):
            VARIANTS.add("no_gain")
            return None
        with run.whole():
            return making.keep(image, target, processed)


class _Wanted(NamedTuple):
    """A checked order.

    Parameters:
      name: the name of the stored version.
      spec: its definition.
      focus: the given focal point; None if a crop finds its own.
      recipe: both as text.
    """

    image_id: int
    name: str
    spec: VariantSpec
    focus: tuple[float, float] | None
    recipe: str

    @property
    def named(self) -> VariantSpec:
        """The definition under its name in the settings: without a format that `Accept` chose."""
        return self.spec if self.name == self.spec.name else self.spec._replace(format=None)


def _wanted(image_id: object, name: object, recipe: object) -> _Wanted:
    """Check the arguments; a message may come from a stranger.

    Raises:
      InvalidArguments
    """
    if not isinstance(image_id, int) or not isinstance(name, str) or not isinstance(recipe, str):
        raise InvalidArguments("make_variant needs a picture's id, a name and a recipe")
    try:
        spec, focus = VariantSpec.of_recipe(slot_of(name), recipe)
    except ValueError as error:
        raise InvalidArguments(str(error)) from None
    if name not in {spec.name, f"{spec.name}.{spec.format}"}:
        raise InvalidArguments(f"the name {name!r} does not end with the format of {recipe!r}")
    return _Wanted(image_id, name, spec, focus, recipe)


class Making:
    """One run of `make_variant`.

    Parameters:
      resources: what it works with.
      run: this run's claim and deadline.
      wanted: what it makes.
    """

    def __init__(self, resources: Resources, run: Run, wanted: _Wanted) -> None:
        self._settings = resources.settings
        self._pool = resources.pool
        self._producer = resources.producer
        self._database = resources.connections.database
        self._storage = resources.connections.storage
        self._run = run
        self._claim = run.claim
        self._wanted = wanted
        #: The number in the object's key; every run of the task has the same.
        self._place: int | None = None
        #: The URL of the version, if another task has made it.
        self.url: str | None = None

    @step("want")
    def begin(self) -> DreamImage | None:
        """Note in the picture's row that its version is stored next; None if the picture or its focal point is gone.

        A run that may have put an object goes on, so that the row says what the object is.
        """
        with self._database.begin() as session:
            tasks.check_lease(session, self._claim)
            noted = tasks.progress(session, self._claim)
            self._place = noted["place"] if noted else None
            image = variants.locked(session, self._wanted.image_id)
            if image is not None:
                variants.touch(image)
                if self._place is None and not self._take_place(session, image):
                    return None
        return image

    def _take_place(self, session: Session, image: DreamImage) -> bool:
        """Take the place of the object, unless another task has made the version; False if its focal point is gone."""
        wanted = self._wanted
        self.url = variants.url_of(image, wanted.name, wanted.recipe)
        if self.url is None:
            if wanted.spec.recipe(image.focus) != wanted.recipe and variants.leave(image, wanted.name):
                return False  # another focal point was given, and its own task follows
            most, overwrites = self._settings.max_variants_per_picture, is_overwritten(self._settings, image)
            self._place = variants.want(image, wanted.name, wanted.named, most, overwrites=overwrites)
            tasks.note_progress(session, self._claim, {"place": self._place})
        return True

    @step("fetch")
    def fetch(self, image: DreamImage, source: Path) -> Path:
        """Fetch the original if it is kept, else the stored picture."""
        fetch_source(self._run, self._storage, image, source)
        return source

    def make(self, image: DreamImage, source: Path, target: Path) -> Processed:
        """Let the pool make the version."""
        edge_px = max(image.width_px or 0, image.height_px or 0) or self._settings.max_edge_px
        focus = self._wanted.focus or image.found_focus
        limits = Limits.of(self._settings).making(self._wanted.spec, edge_px, focus)
        group = group_of_dream(image.dream_id, image.user_id)
        return process(self._run, self._pool, image, source, target, limits, group)

    def is_gain(self, image: DreamImage, processed: Processed) -> bool:
        """Whether the version is worth an object.

        A format that `Accept` chose must save bytes and lose nothing: without it the stored variant of that name
        answers, or the picture itself. A rung of the ladder must lose nothing, because pages show it in place of the
        picture.
        """
        wanted = self._wanted
        if wanted.name == wanted.spec.name:
            return not (wanted.spec.is_whole and loses(image, processed))
        other = next((each for each in image.variants or () if each["name"] == wanted.spec.name), None)
        content_type, size_bytes = image.content_type, image.size_bytes
        if other is not None:
            content_type, size_bytes = other["content_type"], other["size_bytes"]
        if content_type in _BETTER and _BETTER.index(processed.content_type) < _BETTER.index(content_type):
            return True  # it is for browsers that do not take the other one
        return processed.size_bytes < (size_bytes or 0) and not loses(image, processed)

    def keep(self, image: DreamImage, target: Path, processed: Processed) -> str | None:
        """Put the object, then write it into the row; returns its URL, or None if the picture is gone."""
        variant = self._variant(image, processed)
        self._put(image, variant, target)
        try:
            is_kept = self._record(image, variant)
        except LeaseLost:
            self.take_back(is_last=False)
            raise
        except RunContinues:
            self.take_back()
            raise
        VARIANTS.add("made" if is_kept else "gone")
        if not is_kept:
            self.take_back()
            return None
        BYTES_OUT.add(amount=processed.size_bytes)
        log.info("variant_made", image_id=image.id, variant=variant["name"], size_bytes=processed.size_bytes)
        return variant["url"]

    def _variant(self, image: DreamImage, processed: Processed) -> StoredVariant:
        slot, extension = self._wanted.spec.name, processed.extension
        url_key = variant_key(image.storage_key, slot, extension)
        return {
            "name": self._wanted.name,
            "url": canonical_url(self._settings, url_key),
            "width_px": processed.width_px,
            "height_px": processed.height_px,
            "size_bytes": processed.size_bytes,
            "content_type": processed.content_type,
            "key": variant_key(object_stem(image.storage_key, self._place or 0), slot, extension),
            "made_as": self._wanted.recipe,
        }

    @step("put")
    def _put(self, image: DreamImage, variant: StoredVariant, target: Path) -> None:
        put = partial(self._storage.put_file, is_public=is_overwritten(self._settings, image))
        self._run.wait_for(put, image.bucket or "", variant["key"], target, variant["content_type"])

    @step("keep")
    def _record(self, image: DreamImage, variant: StoredVariant) -> bool:
        with self._database.begin() as session:
            tasks.check_lease(session, self._claim)
            row = variants.locked(session, image.id)
            if row is None:
                return False
            if (row.remakes, row.made_at) != (image.remakes, image.made_at):
                raise RunContinues("the picture was made anew meanwhile")
            variants.store(row, variant)
            # Its owner may have given another focal point meanwhile.
            self._producer.accept_crops(row, session)
        self._run.has_progressed = True
        return True

    def take_back(self, *, is_last: bool = True) -> None:
        """Delete the object, unless a row names it.

        Parameters:
          is_last: no other run has the task. Another one stores its object under the same key, and may not have
            written the row yet, so only the object of a picture that is gone is deleted then.
        """
        if self._place is None:
            return
        with self._database.read() as session:
            row = session.get(DreamImage, self._wanted.image_id)
        if row is None or row.bucket is None:
            return
        stem = object_stem(row.storage_key, self._place)
        keys = {variant_key(stem, self._wanted.spec.name, extension) for extension in EXTENSIONS}
        if row.state is ImageState.COMPLETED:
            if not is_last:
                return
            keys -= set(map(variant_object_key, row.variants or ()))
        take_back(self._run, self._storage, row.id, {(row.bucket, key) for key in keys})
