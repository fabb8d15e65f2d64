"""Versions of pictures on demand: the stored one that answers, or the task that makes it.

    asked for (`Ask`) ─► stored under its name, by the same recipe?   yes ─► it answers
                                                                      no  ─► `task_of`: one task, however many ask

A recipe is a definition and, for a crop, the given focal point. Another definition in the settings, another
focal point or a remake of the picture is another task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from dream.messages.pictures import StoredVariant
from dream.variants import FULL, VariantSpec

__all__ = ["Ask", "HasVariants", "ask_for", "larger", "made_as", "slot_of", "stored", "task_of"]

#: The hexadecimal digits of the hash in a task's id.
_DIGEST = 12


class HasVariants(Protocol):
    """The columns of a picture's row that decide about its versions (`dream.db.models.DreamImage`)."""

    @property
    def id(self) -> int: ...
    @property
    def width_px(self) -> int | None: ...
    @property
    def height_px(self) -> int | None: ...
    @property
    def remakes(self) -> int: ...
    @property
    def made_at(self) -> datetime | None: ...
    @property
    def focus(self) -> list[float] | None: ...
    @property
    def variants(self) -> list[StoredVariant]: ...
    @property
    def wanted_specs(self) -> list[VariantSpec]: ...


class Ask(NamedTuple):
    """A version that a visitor asks for.

    Parameters:
      name: the name of the stored version: `card`, or `card.avif` if the browser's `Accept` chose the format.
      spec: its definition, with that format.
      recipe: its definition and focal point.
    """

    name: str
    spec: VariantSpec
    recipe: str


def slot_of(name: str) -> str:
    """The name that keys and `wanted_variants` have for a stored version: `card` for `card.avif`."""
    return name.partition(".")[0]


def ask_for(image: HasVariants, spec: VariantSpec | None, extension: str | None = None) -> Ask:
    """The version of a stored picture.

    Parameters:
      spec: the variant; None means the picture itself, in another format.
      extension: the format that `Accept` chose, a key of `OUTPUT_FORMATS`; None means the variant's own.
    """
    if spec is None:
        # The grammar allows no side below 16; no version is larger than the picture.
        spec = VariantSpec(FULL, max(16, image.width_px or 0), max(16, image.height_px or 0))
    if extension is None:
        return Ask(spec.name, spec, spec.recipe(image.focus))
    chosen = spec._replace(format=extension)  # type: ignore[arg-type]
    return Ask(f"{spec.name}.{extension}", chosen, chosen.recipe(image.focus))


def stored(image: HasVariants, ask: Ask) -> StoredVariant | None:
    """The stored version that answers; None if there is none, or if it was made by another recipe."""
    found = _of_name(image, ask.name)
    return found if found is not None and made_as(image, found) == ask.recipe else None


def _of_name(image: HasVariants, name: str) -> StoredVariant | None:
    return next((each for each in image.variants or () if each["name"] == name), None)


def made_as(image: HasVariants, variant: StoredVariant) -> str | None:
    """The recipe of a stored variant: its own, else the definition in `wanted_variants`."""
    if "made_as" in variant:
        return variant["made_as"]
    return next((spec.definition for spec in image.wanted_specs if spec.name == variant["name"]), None)


def task_of(image: HasVariants, ask: Ask) -> tuple[str, list[object]]:
    """The id and the arguments of the task that makes this version: the same ones for everybody who asks.

    The place of an outdated version is a part of the id, because a recipe may come back after another one.
    """
    outdated = _of_name(image, ask.name)
    place = "" if outdated is None else f"{outdated.get('key') or outdated['url']} {outdated.get('left', 0)}"
    made_at = "" if image.made_at is None else f"{image.made_at.timestamp()}"
    decides = "\n".join((ask.recipe, f"{image.remakes or 0}", made_at, place))
    digest = hashlib.sha256(decides.encode()).hexdigest()[:_DIGEST]
    return f"variant-{image.id}-{ask.name}-{digest}", [image.id, ask.name, ask.recipe]


def larger(image: HasVariants, ask: Ask, types: Collection[str] = ()) -> StoredVariant | None:
    """The smallest stored version that is as large as the wanted one; None means the picture itself.

    Parameters:
      types: the media types that may answer; without any, those that `Accept` did not choose.
    """
    wanted = ask.spec.size_for((image.width_px or 0, image.height_px or 0))
    fitting = [each for each in _answering(image.variants or (), types) if _is_as_large(each, wanted)]
    return min(fitting, key=lambda each: (each["width_px"] * each["height_px"], each["size_bytes"]), default=None)


def _answering(variants: Sequence[StoredVariant], types: Collection[str]) -> Iterable[StoredVariant]:
    if types:
        return (each for each in variants if each["content_type"] in types)
    return (each for each in variants if slot_of(each["name"]) == each["name"])


def _is_as_large(variant: StoredVariant, wanted: tuple[int, int]) -> bool:
    return variant["width_px"] >= wanted[0] and variant["height_px"] >= wanted[1]
