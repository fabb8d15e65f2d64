"""Pictures as HTML: every text is escaped once, nothing jumps, and browsers have a choice of widths and formats."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from math import cos, pi
from typing import Any, get_type_hints

import pytest
from django.conf import settings as django_settings
from django.template import Context, Engine
from jinja2 import Environment
from PIL import Image, ImageChops, ImageStat

from dream.errors import InvalidArguments
from dream.imaging.placeholder import placeholder
from dream.media.signatures import sign_with
from dream.messages.pictures import ImageInfo
from dream.messages.srcset import Source
from dream.pictures import Picture
from dream.pictures.thumbhash import data_url
from dream.settings import Settings
from tests.this_process import configured

NASTY = "\"'><script>alert(1)</script>&amp; &lt;é\x00\n ${x} {{ x }} {% x %}"
KEY = "dreams/20260101/" + "0" * 32


def url(behind: str = ".jpg") -> str:
    return f"http://127.0.0.1:8000/media/{KEY}{behind}"


def variant(name: str, width: int, kind: str = "jpg") -> dict[str, Any]:
    return {"name": name, "url": url(f"_{name}.{kind}"), "width_px": width, "height_px": width // 2}


def quarters() -> Image.Image:
    image = Image.new("RGB", (64, 48), (200, 30, 40))
    image.paste((20, 60, 220), (0, 0, 32, 24))
    image.paste((240, 230, 60), (32, 24, 64, 48))
    return image


def picture(*variants: dict[str, Any], **values: Any) -> Picture:
    about: dict[str, Any] = dict.fromkeys(get_type_hints(ImageInfo)) | {
        "id": 1,
        "url": url(),
        "position": 0,
        "state": "completed",
        "filename": NASTY,
        "width_px": 1000,
        "height_px": 500,
        "size_bytes": 5,
        "content_type": "image/jpeg",
        "placeholder": placeholder(quarters()),
        "dominant_colour": "#c81e28",
        "variants": list(variants),
        "task_id": "t",
    }
    return Picture.of(about | values)


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def elements(html: str) -> list[tuple[str, dict[str, str | None]]]:
    """The elements that a browser sees, without any text between them."""
    parser = _Elements()
    parser.feed(html)
    parser.close()
    assert parser.texts == []
    return parser.found


def only(html: str) -> dict[str, str | None]:
    ((tag, attributes),) = elements(html)
    assert tag == "img"
    return attributes


# --- widths and formats

LADDER = (variant("w640", 640), variant("w320", 320))


def test_an_image_has_its_widths_and_its_place_in_the_layout() -> None:
    image = only(picture(*LADDER).html(alt="A dog", sizes="(min-width: 60rem) 30rem, 100vw", css_class="wide card"))
    assert image["srcset"] == f"{url('_w320.jpg')} 320w, {url('_w640.jpg')} 640w, {url()} 1000w"
    assert image["src"] == url()
    assert (image["width"], image["height"]) == ("1000", "500")
    assert (image["alt"], image["class"], image["loading"]) == ("A dog", "wide card", "lazy")
    assert image["sizes"] == "(min-width: 60rem) 30rem, 100vw"


def test_an_image_of_one_width_has_no_choice() -> None:
    image = only(picture(variant("thumb", 320)).html())
    assert image["src"] == url()
    assert not {"srcset", "sizes"} & set(image)
    assert picture().srcset is None


FORMATS = (variant("w640.avif", 640, "avif"), variant("w320.avif", 320, "avif"), variant("full.avif", 1000, "avif"))


def test_a_format_that_has_every_width_is_offered_first() -> None:
    webp = [variant(f"{name}.webp", width, "webp") for name, width in (("w320", 320), ("w640", 640), ("full", 1000))]
    html = picture(*LADDER, *webp, *FORMATS).html(sizes="50vw")
    tags = elements(html)
    assert [(tag, attributes.get("type")) for tag, attributes in tags] == [
        ("picture", None),
        ("source", "image/avif"),
        ("source", "image/webp"),
        ("img", None),
    ]
    assert tags[1][1]["srcset"] == (
        f"{url('_w320.avif.avif')} 320w, {url('_w640.avif.avif')} 640w, {url('_full.avif.avif')} 1000w"
    )
    assert {attributes["sizes"] for _, attributes in tags[1:]} == {"50vw"}
    assert html.endswith("</picture>")


@pytest.mark.parametrize("missing", range(3))
def test_a_format_that_lacks_a_width_is_not_offered(missing: int) -> None:
    """The browser would look at no other source, and load a larger or a smaller file than it needs."""
    some = [each for at, each in enumerate(FORMATS) if at != missing]
    assert picture(*LADDER, *some).sources == []


def test_a_picture_of_one_width_has_other_formats_too() -> None:
    assert picture(FORMATS[2]).sources == [Source("image/avif", f"{url('_full.avif.avif')} 1000w")]
    assert picture(FORMATS[2], content_type="image/avif").sources == []


# --- texts of others


def test_no_text_is_html() -> None:
    """Each value arrives as it was given, with the file's name nowhere."""
    given = dict.fromkeys(("alt", "sizes", "css_class", "data_x", "title", "style"), NASTY)
    html = picture(*LADDER, *FORMATS).html(**given)
    image = elements(html)[-1][1]
    seen = {name: image[name] for name in ("alt", "sizes", "class", "data-x", "title")}
    assert seen == dict.fromkeys(seen, NASTY)
    assert str(image["style"]).endswith(f";{NASTY}")
    assert "<script" not in html


def test_rows_are_not_html_either() -> None:
    """Values that no run of dream writes, in a row that somebody else has changed."""
    about = {"url": f"http://x/{NASTY}", "dominant_colour": f"#aabbcc;{NASTY}", "placeholder": NASTY}
    image = only(picture(**about).html())
    assert image["src"] == f"http://x/{NASTY}"
    assert "style" not in image


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"loading": "soon"}, "loading must be lazy or eager, not 'soon'"),
        ({"sizes": " "}, "sizes must be a width in the layout, as in 100vw, not ' '"),
        ({"sizes": None}, "sizes must be a width in the layout, as in 100vw, not None"),
        ({"placeholder": "x"}, "placeholder must be blur, colour or none, not 'x'"),
        ({"src": "x"}, "the picture sets src"),
        ({"class_": "x"}, "the picture sets class; html.. takes .* css_class"),
        ({"a b": "x"}, "'a b' cannot be the name of an attribute"),
        ({"x>": "x"}, "cannot be the name"),
        ({'onload="x" y': "x"}, "cannot be the name"),
    ],
)
def test_a_wrong_argument_is_told(how: dict[str, Any], error: str) -> None:
    for each in (picture(), picture(state="pending", url=None)):
        with pytest.raises(InvalidArguments, match=error):
            each.html(**how)


def test_a_further_attribute_may_be_none() -> None:
    image = only(picture().html(data_id=7, fetchpriority="high", title=None))
    assert (image["data-id"], image["fetchpriority"], "title" in image) == ("7", "high", False)


@pytest.mark.parametrize("state", ["pending", "processing", "failed"])
def test_a_picture_that_is_not_stored_has_no_html(state: str) -> None:
    """A replay keeps the URL of an earlier run, whose object may be gone."""
    assert picture(state=state).html() == ""


def test_templates_escape_it_no_second_time() -> None:
    shown = picture(*LADDER)
    if not django_settings.configured:
        django_settings.configure()
    django = Engine().from_string("{{ picture.html }}").render(Context({"picture": shown}))
    jinja = Environment(autoescape=True).from_string("{{ picture.html(alt=alt) }}").render(picture=shown, alt=NASTY)
    assert django == shown.html()
    assert only(jinja)["alt"] == NASTY


# --- placeholders


def decoded(address: str) -> Image.Image:
    head, _, data = address.partition(",")
    assert head == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    image.load()
    return image


def by_definition(text: str, size: tuple[int, int]) -> list[tuple[float, float, float]]:
    """The pixels of an opaque hash, straight from the format's definition (https://evanw.github.io/thumbhash/)."""
    data = base64.b64decode(text)
    head, shape = int.from_bytes(data[:3], "little"), int.from_bytes(data[3:5], "little")
    nibbles = iter([data[5 + at // 2] >> 4 * (at % 2) & 15 for at in range(2 * len(data) - 10)])
    is_wide = shape >> 15
    across, down = max(3, 7 if is_wide else shape & 7), max(3, shape & 7 if is_wide else 7)

    def terms(nx: int, ny: int, scale: float) -> list[tuple[int, int, float]]:
        kept = [(x, y) for y in range(ny) for x in range(nx) if (x or y) and x * ny < nx * (ny - y)]
        return [(x, y, (next(nibbles) / 7.5 - 1) * scale) for x, y in kept]

    channels = [
        ((head & 63) / 63, terms(across, down, (head >> 18 & 31) / 31)),
        ((head >> 6 & 63) / 31.5 - 1, terms(3, 3, (shape >> 3 & 63) / 63 * 1.25)),
        ((head >> 12 & 63) / 31.5 - 1, terms(3, 3, (shape >> 9 & 63) / 63 * 1.25)),
    ]
    pixels = []
    for at in range(size[0] * size[1]):
        x, y = (at % size[0] + 0.5) / size[0], (at // size[0] + 0.5) / size[1]
        light, yellow, red = (
            mean + sum(2 * level * cos(pi * x * kx) * cos(pi * y * ky) for kx, ky, level in some)
            for mean, some in channels
        )
        blue = light - 2 / 3 * yellow
        full = (3 * light - blue + red) / 2
        pixels.append((full, full - red, blue))
    return pixels


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (64, 64), (600, 20), (20, 600), (1, 1)])
def test_a_placeholder_has_the_pixels_of_its_hash(size: tuple[int, int]) -> None:
    text = placeholder(quarters().resize(size))
    address = data_url(text)
    assert address is not None
    assert len(address) < 1000
    blurred = decoded(address)
    assert (blurred.width > blurred.height, blurred.width < blurred.height) == (size[0] > size[1], size[0] < size[1])
    wanted = [round(255 * min(1, max(0, part))) for pixel in by_definition(text, blurred.size) for part in pixel]
    assert max(abs(one - other) for one, other in zip(blurred.tobytes(), wanted, strict=True)) <= 1


def test_a_placeholder_looks_like_the_picture() -> None:
    image = Image.linear_gradient("L").resize((64, 48)).convert("RGB")
    address = data_url(placeholder(image))
    assert address is not None
    blurred = decoded(address)
    assert max(ImageStat.Stat(ImageChops.difference(blurred, image.resize(blurred.size))).mean) < 16


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (200, 30, 40), (20, 60, 220)])
def test_a_plain_picture_has_a_plain_placeholder(colour: tuple[int, int, int]) -> None:
    address = data_url(placeholder(Image.new("RGB", (40, 30), colour)))
    assert address is not None
    means = ImageStat.Stat(decoded(address)).mean
    assert all(abs(mean - part) < 12 for mean, part in zip(means, colour, strict=True))


def test_a_placeholder_fills_the_picture_until_it_has_loaded() -> None:
    shown = picture()
    assert str(only(shown.html())["style"]).startswith("background:#c81e28 url(data:image/png;base64,")
    assert only(shown.html(placeholder="colour"))["style"] == "background:#c81e28"
    assert "style" not in only(shown.html(placeholder="none"))
    assert str(only(shown.html(style="color:red"))["style"]).endswith(" no-repeat;color:red")


def test_a_transparent_picture_has_no_placeholder_that_would_stay_behind_it() -> None:
    image = Image.new("RGBA", (64, 48), (200, 30, 40, 90))
    for kind in ("blur", "colour"):
        assert "style" not in only(picture(placeholder=placeholder(image)).html(placeholder=kind))


@pytest.mark.parametrize("text", ["", "x", "AAAA", "AAAAAAA=", "not base64", "é", "A" * 8, "////" * 3, "A" * 4000])
def test_a_damaged_placeholder_is_none(text: str) -> None:
    """Of a damaged hash nothing is shown but the colour; a longer one has more than it needs."""
    for each in (text, text[:-1]):
        address = data_url(each)
        assert address is None or decoded(address).width <= 16
    assert only(picture(placeholder=text).html())["src"] == url()


# --- signed URLs


def test_urls_for_pages_are_signed_where_access_is(tmp_path: Any) -> None:
    environment = {
        "DREAM_MEDIA_ACCESS": "signed",
        "DREAM_MEDIA_KEYS": "k" * 32,
        "DREAM_DATABASE_URL": f"sqlite:///{tmp_path}/dream.db",
    }
    with configured(environment) as settings:
        shown = picture(*LADDER, *FORMATS)
        tags = elements(shown.html())
        assert shown.url == url()
        assert tags[-1][1]["src"] == shown.src == signed(settings, url())
        for _, attributes in tags[1:]:
            addresses = [each.split()[0] for each in str(attributes["srcset"]).split(", ")]
            assert len(addresses) == 3
            assert all(each == signed(settings, each) for each in addresses)


def signed(settings: Settings, address: str) -> str:
    return sign_with(settings, address)
