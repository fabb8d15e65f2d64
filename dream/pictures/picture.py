"""One picture of a dream, for code and templates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from dream.errors import InvalidArguments
from dream.media import viewable
from dream.messages.pictures import VariantRef
from dream.messages.srcset import Source, sources_of, srcset_of
from dream.messages.states import ImageState
from dream.pictures.html import Html, background, element, named, with_sources
from dream.pictures.thumbhash import data_url, is_transparent

__all__ = ["Picture"]

#: Values of `loading` and of `placeholder`.
_LOADING = ("lazy", "eager")
_PLACEHOLDERS = ("blur", "colour", "none")
#: Attributes that the picture itself decides.
_OWN = {"src", "srcset", "width", "height", "sizes", "alt", "loading", "class"}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with the fields of `dream.producer.ImageInfo`; a value that is not known (yet) is None.

    `url` and the URLs in `variants` are the canonical ones, for comparison. `src`, `srcset`, `sources` and `html` are
    for pages: with `DREAM_MEDIA_ACCESS=signed` their URLs are signed.
    """

    id: int
    url: str | None
    position: int
    state: ImageState
    filename: str
    width_px: int | None
    height_px: int | None
    size_bytes: int | None
    content_type: str | None
    placeholder: str | None
    dominant_colour: str | None
    found_focus: list[float] | None
    focus: list[float] | None
    variants: tuple[VariantRef, ...]
    duplicate_of: int | None
    error: str | None
    error_code: str | None
    task_id: str

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Self:
        """The picture that a list names."""
        values = {field.name: info[field.name] for field in fields(cls)}
        return cls(**values | {"state": ImageState(info["state"]), "variants": tuple(info["variants"] or ())})

    @property
    def width(self) -> int | None:
        """`width_px`, by the name that HTML has for it."""
        return self.width_px

    @property
    def height(self) -> int | None:
        """`height_px`, by the name that HTML has for it."""
        return self.height_px

    def variant(self, name: str) -> VariantRef | None:
        """The stored variant of that name; None if the picture has none."""
        return next((each for each in self.variants if each["name"] == name), None)

    @property
    def src(self) -> str | None:
        """The URL for a page; None if the picture is not stored."""
        return viewable(self.url) if self.url and self.state is ImageState.COMPLETED else None

    @property
    def srcset(self) -> str | None:
        """The picture and its ladder (`DREAM_WIDTHS`) by widths; None if there is one width only."""
        return srcset_of(self, viewable)

    @property
    def sources(self) -> list[Source]:
        """The formats, the best first, in which every width of `srcset` is stored."""
        return sources_of(self, viewable)

    def html(
        self,
        *,
        alt: str = "",
        sizes: str = "100vw",
        loading: str = "lazy",
        css_class: str = "",
        placeholder: str = "blur",
        **attributes: object,
    ) -> Html:
        """`<img>`, or `<picture>` with other formats before it. Every argument is escaped.

        Width and height keep the picture's place in the layout, and a placeholder fills it until the picture has
        loaded. A transparent picture has no placeholder, which would stay visible behind it.

        Parameters:
          alt: the picture in words; "" if it only decorates.
          sizes: the width that it takes in the layout, as in `(min-width: 60rem) 30rem, 100vw`.
          loading: `lazy` or `eager`; `eager` for pictures that are visible at once.
          css_class: for `class`.
          placeholder: `blur` (about 800 bytes), `colour` or `none`. It is in the attribute `style`, so a Content
            Security Policy must allow that.
          attributes: further attributes: `fetchpriority="high"`, or `data_id=7` for `data-id`.

        Returns:
          The HTML, which templates of Django and Jinja take as it is; "" if the picture is not stored.

        Raises:
          InvalidArguments: an argument is wrong.
        """
        _check(sizes, loading, placeholder)
        further = _further(attributes)
        if self.src is None:
            return Html()
        style = ";".join(filter(None, (self._background(placeholder), further.pop("style", ""))))
        chosen = {"alt": alt or "", "loading": loading, "class": css_class or None, "style": style or None}
        image, sources = element("img", named({**self._about(sizes), **chosen}) | further), self.sources
        return with_sources(sources, sizes, image) if sources else image

    def _about(self, sizes: str) -> dict[str, object]:
        """The attributes that name the files, and the place in the layout."""
        srcset = self.srcset
        place = {"width": self.width_px, "height": self.height_px}
        return {"src": self.src, "srcset": srcset, "sizes": sizes if srcset else None, **place}

    def _background(self, placeholder: str) -> str:
        if placeholder == "none" or is_transparent(self.placeholder or ""):
            return ""
        blurred = data_url(self.placeholder or "") if placeholder == "blur" else None
        return background(self.dominant_colour, blurred)


def _check(sizes: str, loading: str, placeholder: str) -> None:
    """Check arguments of `Picture.html`.

    Raises:
      InvalidArguments
    """
    if not isinstance(sizes, str) or not sizes.strip():
        raise InvalidArguments(f"sizes must be a width in the layout, as in 100vw, not {sizes!r:.100}")
    for name, value, allowed in (("loading", loading, _LOADING), ("placeholder", placeholder, _PLACEHOLDERS)):
        if value not in allowed:
            raise InvalidArguments(f"{name} must be {', '.join(allowed[:-1])} or {allowed[-1]}, not {value!r:.100}")


def _further(attributes: Mapping[str, object]) -> dict[str, str]:
    """The further attributes of `Picture.html`.

    Raises:
      InvalidArguments: one is no attribute, or the picture sets it.
    """
    further = named(attributes)
    if taken := _OWN.intersection(further):
        raise InvalidArguments(f"the picture sets {min(taken)}; html() takes alt, sizes, loading and css_class")
    return further
