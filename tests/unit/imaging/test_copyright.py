"""Creator, copyright notice and licence go into the result, and nothing else does."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from described import KINDS, file_of, photo_exif, xmp_of
from hypothesis import given
from hypothesis import strategies as st
from imaging_pictures import encoded, heic, noise, quarters, run
from PIL import Image
from PIL.ExifTags import Base

from dream.imaging import Limits, process_file, variant_path
from dream.imaging.copyright import Credit, credit_of, write_credit
from dream.imaging.exif import first_directory
from dream.imaging.metadata import Metadata
from dream.imaging.xmp import packet
from dream.variants import VariantSpec
from tests import gain_maps

CREDIT = Credit(
    creators=("Ada & Co", "Zoë"),
    notice='© 2024 "Ada" <all rights>',
    web_statement="https://example.org/rights?a=1&b=2",
    licence="https://creativecommons.org/licenses/by/4.0/",
    licensor="https://example.org/buy",
)
PRIVATE = (b"Dreamer", b"2024:05", b"PRIVATE", b"Glass")
STATED = xmp_of(
    "<dc:creator><rdf:Seq><rdf:li>Ada &amp; Co</rdf:li><rdf:li>Zoë</rdf:li></rdf:Seq></dc:creator>"
    '<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">© 2024 "Ada" &lt;all rights&gt;</rdf:li>'
    '<rdf:li xml:lang="de">PRIVATE</rdf:li></rdf:Alt></dc:rights>'
    '<dc:description><rdf:Alt><rdf:li xml:lang="x-default">PRIVATE words</rdf:li></rdf:Alt></dc:description>'
    '<cc:license rdf:resource="https://creativecommons.org/licenses/by/4.0/"/>'
    '<plus:Licensor><rdf:Seq><rdf:li rdf:parseType="Resource"><plus:LicensorName>PRIVATE</plus:LicensorName>'
    "<plus:LicensorURL>https://example.org/buy</plus:LicensorURL></rdf:li></rdf:Seq></plus:Licensor>"
    "<photoshop:Credit>PRIVATE</photoshop:Credit>",
    'xmpRights:WebStatement="https://example.org/rights?a=1&amp;b=2" photoshop:City="PRIVATE"',
)


def stated(picture: Image.Image) -> Credit:
    """The credit of a result, read by Pillow's decoders and Python's parser of XML."""
    names = {
        "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
        "dc": "http://purl.org/dc/elements/1.1/",
        "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
        "cc": "http://creativecommons.org/ns#",
        "plus": "http://ns.useplus.org/ldf/xmp/1.0/",
    }
    packet = picture.info.get("xmp")
    if not packet:
        return Credit()
    root = ET.fromstring(packet)  # noqa: S314 (our own)

    def texts(path: str) -> tuple[str, ...]:
        return tuple(each.text or "" for each in root.findall(f".//{path}", names))

    licence = root.find(".//cc:license", names)
    return Credit(
        creators=texts("dc:creator/rdf:Seq/rdf:li"),
        notice="".join(texts("dc:rights/rdf:Alt/rdf:li")),
        web_statement="".join(texts("xmpRights:WebStatement")),
        licence="" if licence is None else licence.attrib[f"{{{names['rdf']}}}resource"],
        licensor="".join(texts("plus:Licensor/rdf:Seq/rdf:li/plus:LicensorURL")),
    )


def kept(folder: Path, data: bytes, **limits: Any) -> Image.Image:
    """The result, which must have the pixels that it has without its credit."""
    _, plain = run(folder, data, **{**limits, "keep_copyright": False})
    assert not {"exif", "xmp"} & plain.info.keys()
    _, out = run(folder, data, keep_copyright=True, **limits)
    assert (out.mode, out.size, out.tobytes()) == (plain.mode, plain.size, plain.tobytes())
    assert not any(word in (folder / "target").read_bytes() for word in PRIVATE)
    return out


@pytest.mark.parametrize("output", ["jpeg", "webp", "avif"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_format_carries_it_into_every_format(tmp_path: Path, kind: str, output: Any) -> None:
    assert stated(kept(tmp_path, file_of(quarters(), kind, photo_exif(), STATED), output_format=output)) == CREDIT


@pytest.mark.parametrize(
    ("picture", "output"),
    [
        (quarters().convert("LA"), "webp"),
        (quarters().convert("L"), "jpeg"),
        (Image.merge("RGBA", [*noise(96, 64).split(), Image.linear_gradient("L").resize((96, 64))]), "webp"),
        (Image.merge("RGBA", [*noise(96, 64).split(), Image.linear_gradient("L").resize((96, 64))]), "avif"),
        (noise(97, 63), "webp"),
        (noise(97, 63), "avif"),
    ],
)
def test_it_goes_beside_pixels_of_every_kind(tmp_path: Path, picture: Image.Image, output: Any) -> None:
    """Lossy and lossless, grey, transparent."""
    assert stated(kept(tmp_path, file_of(picture, "PNG", xmp=STATED), output_format=output)) == CREDIT


def test_an_animation_carries_it(tmp_path: Path) -> None:
    frames = [quarters().rotate(90 * turn) for turn in range(3)]
    out = io.BytesIO()
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:], duration=100, xmp=STATED)
    picture = kept(tmp_path, out.getvalue())
    assert stated(picture) == CREDIT
    assert picture.n_frames == 3  # type: ignore[attr-defined]


def test_a_jpeg_that_keeps_its_pixels_carries_it(tmp_path: Path) -> None:
    data = encoded(quarters(), "JPEG", quality=97, subsampling="4:4:4", exif=photo_exif(), xmp=STATED)
    out = kept(tmp_path, data)
    assert stated(out) == CREDIT
    assert out.tobytes() == Image.open(io.BytesIO(data)).tobytes()


@pytest.mark.parametrize("orientation", [1, 6], ids=["its pixels stay", "encoded anew"])
def test_an_hdr_photo_carries_it_in_the_packet_of_its_gain_map(tmp_path: Path, orientation: int) -> None:
    """A strict reader finds the gain map where it was, and the index has the new size of the picture."""
    data = gain_maps.photo(orientation=orientation, xmp=STATED).file()
    plain, _ = run(tmp_path, data)
    without = gain_maps.read((tmp_path / "target").read_bytes())
    processed, out = run(tmp_path, data, keep_copyright=True)
    result = (tmp_path / "target").read_bytes()
    found = gain_maps.read(result)
    assert found is not None
    assert without is not None
    assert (found.gain_map, found.numbers) == (without.gain_map, without.numbers)
    assert stated(out) == CREDIT
    assert b"PRIVATE" not in result
    assert (processed.width_px, processed.height_px) == (plain.width_px, plain.height_px)


def test_the_budget_holds_with_it(tmp_path: Path) -> None:
    """Also that of a JPEG that would just keep its pixels."""
    data = encoded(noise(400, 400), "JPEG", quality=90, xmp=STATED)
    for output in ("jpeg", "webp", "avif"):
        processed, out = run(tmp_path, data, keep_copyright=True, max_bytes=60_000, output_format=output)
        assert processed.size_bytes <= 60_000
        assert stated(out) == CREDIT
    bare, _ = run(tmp_path, data)
    processed, out = run(tmp_path, data, keep_copyright=True, max_bytes=bare.size_bytes + 10)
    assert processed.size_bytes <= bare.size_bytes + 10
    assert stated(out) == CREDIT


def test_a_small_budget_is_for_pixels(tmp_path: Path) -> None:
    """A credit of more than a sixteenth of it is left out."""
    _, out = run(tmp_path, file_of(quarters(), "JPEG", xmp=STATED), keep_copyright=True, max_bytes=10_000)
    assert stated(out) == Credit()


def test_variants_from_320_pixels_on_carry_it(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(file_of(noise(700, 500), "JPEG", xmp=STATED))
    specs = (VariantSpec("large", 320, 320), VariantSpec("small", 319, 319))
    processed = process_file(source, target, Limits(variants=specs, keep_copyright=True))
    for variant, credit in zip(processed.variants, (CREDIT, Credit()), strict=True):
        path = variant_path(target, variant.name)
        assert path.stat().st_size == variant.size_bytes
        with Image.open(path) as picture:
            assert stated(picture) == credit


def test_a_result_can_be_processed_again(tmp_path: Path) -> None:
    """A remake from the stored picture keeps the credit."""
    run(tmp_path, file_of(quarters(), "JPEG", xmp=STATED), keep_copyright=True)
    again = (tmp_path / "target").read_bytes()
    for output in ("jpeg", "webp", "avif"):
        assert stated(kept(tmp_path, again, output_format=output)) == CREDIT


def test_a_jpeg_has_ascii_in_its_exif_too(tmp_path: Path) -> None:
    """For readers that know no XMP. Other characters are in XMP only."""
    out = kept(tmp_path, file_of(quarters(), "JPEG", photo_exif(Artist="Ada; Bo", Copyright="(c) Ada")))
    assert dict(out.getexif()) == {Base.Artist: "Ada; Bo", Base.Copyright: "(c) Ada"}
    assert stated(out) == Credit(creators=("Ada", "Bo"), notice="(c) Ada")
    out = kept(tmp_path, file_of(quarters(), "JPEG", xmp=STATED))
    assert not out.getexif()


def test_a_file_without_a_credit_stays_as_it_was(tmp_path: Path) -> None:
    for data in (file_of(quarters(), "JPEG", photo_exif()), heic(quarters()), encoded(quarters(), "BMP")):
        _, out = run(tmp_path, data, keep_copyright=True)
        assert not {"exif", "xmp"} & out.info.keys()


@pytest.mark.parametrize("change", [(b"iloc\0", b"iloc\1"), (b"pitm", b"xxxx"), (b"meta", b"atem"), (b"iinf", b"fnii")])
def test_an_avif_that_is_written_in_another_way_stays_as_it_is(tmp_path: Path, change: tuple[bytes, bytes]) -> None:
    """By a later libavif: its pictures are worth more than the credit."""
    data = encoded(quarters(), "AVIF").replace(*change, 1)
    (tmp_path / "target").write_bytes(data)
    assert write_credit(tmp_path / "target", "image/avif", CREDIT) == len(data)
    assert (tmp_path / "target").read_bytes() == data


# --- reading


def iptc(*sets: tuple[int, int, bytes]) -> bytes:
    return b"".join(
        bytes((0x1C, record, number)) + struct.pack(">H", len(text)) + text for record, number, text in sets
    )


def with_iptc(data: bytes, sets: bytes) -> bytes:
    """A JPEG with these data sets in its APP13."""
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">L", len(sets)) + sets + bytes(len(sets) % 2)
    payload = b"Photoshop 3.0\0" + resource
    return data[:2] + b"\xff\xed" + struct.pack(">H", 2 + len(payload)) + payload + data[2:]


def test_iptc_counts_if_there_is_no_xmp_and_exif_if_there_is_neither(tmp_path: Path) -> None:
    sets = iptc(
        (1, 90, b"\x1b%G"), (2, 80, "Zoë".encode()), (2, 80, b"Ada"), (2, 116, b"\xa9 Ada"), (2, 120, b"PRIVATE")
    )
    data = with_iptc(file_of(quarters(), "JPEG", photo_exif(Artist="Exif", Copyright="Exif")), sets)
    assert stated(kept(tmp_path, data)) == Credit(creators=("Zoë", "Ada"), notice="© Ada")
    data = with_iptc(file_of(quarters(), "JPEG", photo_exif(Artist="Exif"), xmp=STATED), sets)
    assert stated(kept(tmp_path, data)) == CREDIT


@pytest.mark.parametrize(
    ("raw", "notice"),
    [(b"Ada\0Bo\0", "Ada; Bo"), (b" \0Bo\0", "Bo"), (b"Ada", "Ada"), (b" ", ""), ("Zoë".encode(), "Zoë")],
)
def test_exif_has_the_notices_of_photographer_and_editor(raw: bytes, notice: str) -> None:
    place = struct.pack("<L", 26) if len(raw) > 4 else raw.ljust(4, b"\0")
    exif = b"II*\0" + struct.pack("<LHHHL4s", 8, 1, Base.Copyright, 2, len(raw), place) + bytes(4) + raw
    assert credit_of(Metadata(exif=first_directory(exif))).notice == notice


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "ftp://example.org/", "https://a b", "https://é.example/", "https://e/" + "x" * 500]
)
def test_a_licence_is_an_address_of_the_web_or_none(url: str) -> None:
    said = xmp_of(f'<cc:license rdf:resource="{url}"/>', f'xmpRights:WebStatement="{url}"')
    assert credit_of(Metadata(xmp=said)) == Credit()


@pytest.mark.parametrize("name", ["x" * 129, "\u202e\u0000"[:1], "\u200b \ufeff"])
def test_a_name_that_is_too_long_or_unseen_is_left_out(name: str) -> None:
    said = xmp_of(f"<dc:creator><rdf:Seq><rdf:li>{name}</rdf:li><rdf:li>Ada</rdf:li></rdf:Seq></dc:creator>")
    assert credit_of(Metadata(xmp=said)).creators == ("Ada",)


def test_many_names_become_few() -> None:
    names = "".join(f"<rdf:li>{number}</rdf:li>" for number in range(5000))
    said = xmp_of(f"<dc:creator><rdf:Seq>{names}</rdf:Seq></dc:creator>")
    assert len(credit_of(Metadata(xmp=said)).creators) == 10


def test_markup_in_a_name_is_text(tmp_path: Path) -> None:
    name = "</rdf:li><x:y/>&amp]]>\"'"
    out = kept(tmp_path, file_of(quarters(), "PNG", photo_exif(Artist=name)))
    assert stated(out).creators == (name,)


@pytest.mark.slow
@given(st.binary(max_size=300), st.text(max_size=200))
def test_any_bytes_are_a_credit_or_none(data: bytes, text: str) -> None:
    """Each credit is good XML, and comes back from it."""
    shown = text.replace(";", ",")
    exif = Image.Exif()
    exif[Base.Artist] = shown.encode(errors="replace")
    for metadata in (
        Metadata(iptc=b"\x1c" + data),
        Metadata(iptc=iptc((2, 80, data), (2, 116, shown.encode(errors="replace")))),
        Metadata(exif=first_directory(exif.tobytes()), xmp=data),
    ):
        credit = credit_of(metadata)
        assert credit_of(Metadata(xmp=packet([credit.description]))) == credit
