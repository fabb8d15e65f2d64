"""The version of a picture that answers a visitor: a variant by `?v=<name>`, a format by `Accept`, or a larger version.

    asked for ─► stored: it answers
             └─► to be made (`makers`): waited for ─► it answers
                                                  └─► late, or not to be made: a larger one, which nobody keeps

Nobody waits for a format if the same variant is stored in another format that the browser takes.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from dream.gateway.accept import Wish, wish_of
from dream.gateway.makers import End, Makers
from dream.messages.variants import Ask, ask_for, larger, made_as, stored, task_of
from dream.variants import VariantSpec

if TYPE_CHECKING:
    from dream.gateway.catalogue import Catalogue, Row, Shown
    from dream.messages.pictures import StoredVariant
    from dream.settings import Settings

__all__ = ["Answer", "Versions"]

#: Seconds for which a process makes a version anew once: another gateway may have another definition of its name.
_ANEW_EVERY_S = 600.0
_MOST_ANEW = 10_000


class Answer(NamedTuple):
    """The version that answers.

    Parameters:
      is_final: whether it is the one that was asked for; no cache may keep another one.
      varies: whether the answer depends on `Accept`.
    """

    shown: Shown
    is_final: bool = True
    varies: bool = False


class Versions:
    """The versions of pictures that one gateway process shows. Use it on one event loop.

    Parameters:
      settings: the variants by name, and whether formats follow `Accept`.
      catalogue: has the rows.
      makers: has versions made.
    """

    def __init__(self, settings: Settings, catalogue: Catalogue, makers: Makers) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._makers = makers
        #: Versions that this process has had made by a new definition: the task, and when another one may follow.
        self._anew: OrderedDict[tuple[int, str], tuple[str, float]] = OrderedDict()

    async def choose(self, key: str, name: str | None, accept: str | None) -> Answer | None:
        """The version that answers a request which may see the picture.

        Parameters:
          key: the end of the URL.
          name: the variant that the query names; None means the picture.
          accept: the header.

        Returns:
          None if there is no such picture, or no variant of that name.
        """
        spec = self._settings.named_variants.get(name) if name is not None else None
        row = await self._catalogue.row(key) if name is None or spec is not None else None
        if row is None:
            return None
        if row.variant is not None:
            if name is not None:
                return None  # a variant has no variants
            spec = self._settings.named_variants.get(row.variant["name"])
            if spec is None or stored(row.image, ask_for(row.image, spec)) is not row.variant:
                return Answer(row.shown(row.variant))
        elif spec is not None and _is_picture_itself(row, spec):
            spec = None
        return await self._answer(key, row, spec, accept)

    async def _answer(self, key: str, row: Row, spec: VariantSpec | None, accept: str | None) -> Answer | None:
        varies = self._settings.negotiate and (spec is None or spec.format is None) and bool(row.image.width_px)
        base = stored(row.image, ask_for(row.image, spec)) if spec is not None else None
        wish = _wish(row, base, accept) if varies else Wish(None, frozenset())
        asks = [ask_for(row.image, spec, wish.extension)] if wish.extension is not None else []
        asks += [ask_for(row.image, spec)] if spec is not None else []
        for ask in asks:
            is_base = ask.name == ask.spec.name
            found, end = stored(row.image, ask), End.DONE
            if found is None:
                end = await self._make(row, ask, waits=is_base or not _answers_meanwhile(row, spec, base, wish))
                fresh = await self._catalogue.row(key, again=True) if end is End.DONE else row
                if fresh is None:
                    return None
                row = fresh
                found = stored(row.image, ask)
            if found is not None:
                return Answer(row.shown(found), True, varies)
            if is_base or end is End.LATE:
                return Answer(row.shown(_larger(row, ask, wish)), False, varies)
        return Answer(row.shown(None), True, varies)

    async def _make(self, row: Row, ask: Ask, *, waits: bool) -> End:
        variants = row.image.variants or ()
        is_new = all(each["name"] != ask.name for each in variants)
        if is_new and len(variants) >= self._settings.max_variants_per_picture:
            return End.FAILED
        if not is_new and self._is_anew_again(row, ask):
            return End.LATE
        return await self._makers.make(row.image, ask, waits=waits)

    def _is_anew_again(self, row: Row, ask: Ask) -> bool:
        """Whether the version was made anew a short time ago, and another gateway has replaced it."""
        kept = next(each for each in row.image.variants if each["name"] == ask.name)
        if (made_as(row.image, kept) or "").partition("@")[0] == ask.spec.definition:
            return False  # only its focal point is another one
        of, task_id, now = (row.image.id, ask.name), task_of(row.image, ask)[0], time.monotonic()
        before, until = self._anew.get(of, (task_id, 0.0))
        if before != task_id and now < until:
            return True
        self._anew[of] = task_id, now + _ANEW_EVERY_S
        if len(self._anew) > _MOST_ANEW:
            self._anew.popitem(last=False)
        return False

    async def stop(self) -> None:
        """End all waits."""
        await self._makers.stop()


def _is_picture_itself(row: Row, spec: VariantSpec) -> bool:
    """Whether the picture is no larger than this variant, which has no format and no quality of its own."""
    size = (row.image.width_px or 0, row.image.height_px or 0)
    if not all(size) or spec.format is not None or spec.quality is not None:
        return False
    return spec.size_for(size) == size or not spec.is_made_of(size)


def _wish(row: Row, base: StoredVariant | None, accept: str | None) -> Wish:
    return wish_of(accept, base["content_type"] if base is not None else row.image.content_type)


def _answers_meanwhile(row: Row, spec: VariantSpec | None, base: StoredVariant | None, wish: Wish) -> bool:
    """Whether the wanted size is stored in a format that the browser takes."""
    kind = row.image.content_type if spec is None else base["content_type"] if base is not None else None
    return kind in wish.types


def _larger(row: Row, ask: Ask, wish: Wish) -> StoredVariant | None:
    if not row.image.width_px or not row.image.height_px:
        return None
    return larger(row.image, ask, wish.types)
