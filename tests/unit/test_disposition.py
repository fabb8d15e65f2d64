"""The header under which a browser saves a file: any name gives one valid line."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream.messages.disposition import attachment, picture_name


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("photo.jpg", 'attachment; filename="photo.jpg"'),
        ("my photo (1).jpg", 'attachment; filename="my photo (1).jpg"'),
        ("../../etc/passwd", 'attachment; filename="_.._etc_passwd"'),
        ("", 'attachment; filename="original"'),
        ("...", 'attachment; filename="original"'),
        (
            "a\r\nSet-Cookie: x=y.jpg",
            "attachment; filename=\"a__Set-Cookie_ x_y.jpg\"; filename*=UTF-8''a__Set-Cookie%3A%20x%3Dy.jpg",
        ),
        ("Bär.jpg", "attachment; filename=\"B_r.jpg\"; filename*=UTF-8''B%C3%A4r.jpg"),
    ],
)
def test_a_name_becomes_a_header(name: str, header: str) -> None:
    assert attachment(name) == header


@given(st.text(max_size=400))
def test_no_name_ends_the_header_or_names_a_folder(name: str) -> None:
    header = attachment(name)
    assert header.isascii()
    assert header.isprintable()
    assert len(header) < 2500
    assert header.count('"') == 2
    saved = unquote(header.rpartition("''")[2]) if "''" in header else header.split('"')[1]
    assert saved
    assert not set(saved) & set("/\\\r\n")
    assert not saved.startswith(".")


def test_a_long_name_keeps_its_end_because_there_is_its_extension() -> None:
    assert attachment("x" * 1000 + ".jpg").endswith('x.jpg"')


def test_a_name_that_is_turned_around_shows_its_extension() -> None:
    assert "%E2%80%AE" not in attachment("photo\u202egpj.exe")


@pytest.mark.parametrize(
    ("name", "content_type", "expected"),
    [
        ("a.jpg", "image/jpeg", "a.jpg"),
        ("a.JPEG", "image/jpeg", "a.JPEG"),
        ("a.heic", "image/jpeg", "a.jpg"),
        ("a.b.png", "image/webp", "a.b.webp"),
        ("page.html", "image/avif", "page.avif"),
        ("no extension", "image/webp", "no extension.webp"),
        ("old.gif", "image/gif", "old.gif"),
        ("a.jpg", None, "a.jpg"),
        ("a.html", "text/html", "a.html"),
    ],
)
def test_a_processed_picture_has_the_extension_of_its_format(
    name: str, content_type: str | None, expected: str
) -> None:
    assert picture_name(name, content_type) == expected
