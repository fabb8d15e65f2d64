"""Colours that a file gives by numbers (cICP, nclx, gAMA, cHRM) come out as `light.py` works them out."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from imaging_pictures import encoded, is_near, pixel, png, png_chunk, run
from light import PRIMARIES, TRANSFERS, hlg_level, in_srgb, pq_level
from moving import GREEN, RED, Part, apng
from PIL import Image, ImageCms, ImageSequence
from pillow_heif import from_bytes, from_pillow
from profiles import ADOBE_RGB, DISPLAY_P3, rgb_profile, to_srgb

from dream.imaging import Limits, VariantSpec, process_file, variant_path

Colour = tuple[int, int, int]
COLOURS: tuple[Colour, ...] = ((200, 60, 60), (60, 160, 90), (70, 80, 190), (128, 128, 128), (255, 255, 255), (0, 0, 0))
P3_RED, P3_RED_IN_SRGB = (200, 60, 60), (217, 42, 52)
PQ, HLG = (9, 16), (9, 18)
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def cicp(primaries: int, transfer: int, matrix: int = 0, full: int = 1) -> bytes:
    return png_chunk(b"cICP", bytes((primaries, transfer, matrix, full)))


def gama(value: int) -> bytes:
    return png_chunk(b"gAMA", struct.pack(">I", value))


def chrm(*places: float) -> bytes:
    return png_chunk(b"cHRM", struct.pack(">8I", *(round(place * 100_000) for place in places)))


def chrm_of(primaries: int) -> bytes:
    return chrm(*(value for place in PRIMARIES[primaries] for value in place))


def png_of(colour: Colour, *chunks: bytes, depth: int = 8) -> bytes:
    levels = struct.pack(">3H", *(level * 257 for level in colour)) if depth == 16 else bytes(colour)
    return png(32, 32, depth, 2, (b"\0" + levels * 32) * 32, *chunks)


def grey_png(level: int, *chunks: bytes, depth: int = 8) -> bytes:
    return png(32, 32, depth, 0, (b"\0" + (bytes((level,)) * (depth // 8)) * 32) * 32, *chunks)


def heic_of(colour: Colour, primaries: int, transfer: int, **options: Any) -> bytes:
    out = io.BytesIO()
    numbers = {"color_primaries": primaries, "transfer_characteristics": transfer, "matrix_coefficients": 6}
    from_pillow(Image.new("RGB", (64, 64), colour)).save(
        out, quality=100, chroma=444, full_range_flag=1, **numbers, **options
    )
    return out.getvalue()


def avif_of(colour: Colour, primaries: int, transfer: int, **options: Any) -> bytes:
    data = encoded(Image.new("RGB", (64, 64), colour), "AVIF", quality=100, subsampling="4:4:4", **options)
    assert b"colrnclx\0\x01\0\r" in data
    return data.replace(b"colrnclx\0\x01\0\r", b"colrnclx" + struct.pack(">HH", primaries, transfer))


def seen(folder: Path, data: bytes, **limits: Any) -> tuple[int, ...]:
    return pixel(run(folder, data, **limits)[1], 0.5, 0.5)[:3]


@pytest.mark.parametrize("primaries", PRIMARIES)
def test_png_primaries(tmp_path: Path, primaries: int) -> None:
    for colour in COLOURS:
        assert is_near(seen(tmp_path, png_of(colour, cicp(primaries, 13))), in_srgb(colour, primaries), 3)
        (tmp_path / "target").unlink()


@pytest.mark.parametrize("transfer", TRANSFERS)
@pytest.mark.parametrize("primaries", [1, 9])
def test_png_transfers(tmp_path: Path, primaries: int, transfer: int) -> None:
    for colour in COLOURS:
        assert is_near(
            seen(tmp_path, png_of(colour, cicp(primaries, transfer))), in_srgb(colour, primaries, transfer), 3
        )
        (tmp_path / "target").unlink()


@pytest.mark.parametrize("depth", [8, 16])
def test_narrow_range(tmp_path: Path, depth: int) -> None:
    assert is_near(
        seen(tmp_path, png_of((180, 60, 60), cicp(12, 13, full=0), depth=depth)),
        in_srgb((180, 60, 60), 12, narrow=True),
        3,
    )


@pytest.mark.parametrize(("gamma", "exponent"), [(100_000, 1.0), (55_556, 1.8), (35_714, 2.8), (45_455, 2.2)])
def test_gama_with_chrm(tmp_path: Path, gamma: int, exponent: float) -> None:
    for colour in COLOURS[:4]:
        data = png_of(colour, gama(gamma), chrm_of(12))
        assert is_near(seen(tmp_path, data), in_srgb(colour, 12, exponent), 3)
        (tmp_path / "target").unlink()


def test_gama_alone_is_of_srgb_s_primaries(tmp_path: Path) -> None:
    assert is_near(seen(tmp_path, png_of((100, 30, 60), gama(100_000))), in_srgb((100, 30, 60), 1, 1.0), 3)


def test_chrm_alone_has_srgb_s_curve(tmp_path: Path) -> None:
    assert is_near(seen(tmp_path, png_of(P3_RED, chrm_of(12))), P3_RED_IN_SRGB, 3)


def test_chrm_of_adobe_rgb(tmp_path: Path) -> None:
    adobe = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
    out = seen(tmp_path, png_of((100, 160, 60), gama(45_455), chrm(*adobe)))
    assert is_near(out, to_srgb((100, 160, 60), ADOBE_RGB), 3)


def test_the_gamma_that_means_srgb_changes_nothing(tmp_path: Path) -> None:
    assert is_near(seen(tmp_path, png_of((10, 30, 60), gama(45_455))), (10, 30, 60), 2)


@pytest.mark.parametrize("depth", [8, 16])
def test_grey_with_gama(tmp_path: Path, depth: int) -> None:
    _, out = run(tmp_path, grey_png(60, gama(100_000), depth=depth), output_format="jpeg")
    assert out.mode == "L"
    assert is_near(pixel(out, 0.5, 0.5), in_srgb((60, 60, 60), 1, 1.0), 2)


@pytest.mark.parametrize(
    "chunks",
    [
        [gama(0)],
        [gama(1)],
        [gama(2**31 - 1)],
        [gama(2**32 - 1)],
        [chrm(*(0.3,) * 8)],
        [chrm(*(0.0,) * 8)],
        [gama(45_455), chrm(0.3127, 0.329, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3)],
        [chrm(0.9, 0.9, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)],
        [png_chunk(b"cHRM", b"\xff" * 32)],
        [cicp(0, 13)],
        [cicp(99, 13)],
        [cicp(12, 0)],
        [cicp(12, 200)],
        [cicp(12, 13, matrix=1)],
        [png_chunk(b"cICP", b"\x0c\x0d")],
        [cicp(2, 2)],
        [png_chunk(b"iCCP", b"broken")],
    ],
)  # fmt: skip
def test_nonsense_changes_nothing(tmp_path: Path, chunks: list[bytes]) -> None:
    assert is_near(seen(tmp_path, png_of(P3_RED, *chunks)), P3_RED, 3)


def iccp(profile: bytes) -> bytes:
    return png_chunk(b"iCCP", b"x\0\0" + zlib.compress(profile))


SRGB_CHUNK = png_chunk(b"sRGB", b"\0")


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([cicp(12, 13), iccp(SRGB_PROFILE), SRGB_CHUNK, gama(100_000)], P3_RED_IN_SRGB),
        ([gama(100_000), SRGB_CHUNK, iccp(SRGB_PROFILE), cicp(12, 13)], P3_RED_IN_SRGB),
        ([iccp(rgb_profile(DISPLAY_P3)), SRGB_CHUNK, gama(100_000)], (219, 37, 49)),
        ([SRGB_CHUNK, gama(100_000), chrm_of(12)], P3_RED),
        ([iccp(b"broken"), SRGB_CHUNK, gama(100_000)], P3_RED),
        ([iccp(b"broken"), gama(45_455), chrm_of(12)], in_srgb(P3_RED, 12, 2.2)),
        ([cicp(12, 13, matrix=9), SRGB_CHUNK], P3_RED),
        ([cicp(99, 13), iccp(rgb_profile(DISPLAY_P3))], (219, 37, 49)),
    ],
)
def test_what_counts_most(tmp_path: Path, chunks: list[bytes], expected: Colour) -> None:
    assert is_near(seen(tmp_path, png_of(P3_RED, *chunks)), expected, 4)


@pytest.mark.parametrize("make", [heic_of, avif_of])
@pytest.mark.parametrize(
    ("primaries", "transfer"), [(12, 13), (11, 13), (9, 1), (9, 14), (1, 8), (1, 4), (5, 5), (6, 6), (2, 2)]
)
def test_nclx(tmp_path: Path, make: Any, primaries: int, transfer: int) -> None:
    meant = (1, 13) if primaries == 2 else (primaries, transfer)
    for colour in COLOURS[:4]:
        assert is_near(seen(tmp_path, make(colour, primaries, transfer)), in_srgb(colour, *meant), 5)
        (tmp_path / "target").unlink()


@pytest.mark.parametrize("numbers", [(99, 13), (12, 99), (0, 0), (3, 3), (2, 3)])
def test_a_reserved_nclx_changes_nothing(tmp_path: Path, numbers: tuple[int, int]) -> None:
    assert is_near(seen(tmp_path, avif_of(P3_RED, *numbers)), P3_RED, 4)
    (tmp_path / "target").unlink()
    heic = heic_of(P3_RED, 12, 13).replace(b"colrnclx\0\x0c\0\r", b"colrnclx" + struct.pack(">HH", *numbers))
    assert is_near(seen(tmp_path, heic), P3_RED, 4)


def both(data: bytes, profile: bytes) -> bytes:
    """The file with an nclx for Display P3 put in place of the one that stands beside its profile."""
    at = data.index(b"colrnclx")
    assert b"prof" in data or b"rICC" in data
    return data[: at + 8] + struct.pack(">HH", 12, 13) + data[at + 12 :]


@pytest.mark.parametrize("profile", [SRGB_PROFILE, rgb_profile(ADOBE_RGB)], ids=["sRGB", "Adobe RGB"])
def test_a_profile_counts_more_than_nclx(tmp_path: Path, profile: bytes) -> None:
    picture = Image.new("RGB", (64, 64), (100, 160, 60))
    data = encoded(picture, "AVIF", quality=100, subsampling="4:4:4", icc_profile=profile)
    expected = seen(tmp_path, encoded(picture, "PNG", icc_profile=profile))
    assert is_near(seen(tmp_path, both(data, profile)), expected, 4)


def test_an_animated_avif(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (64, 64), (60, 200, 60))]
    data = avif_of(P3_RED, 12, 13, save_all=True, append_images=frames, duration=100)
    assert data[8:12] == b"avis"
    _, out = run(tmp_path, data)
    shown = [pixel(frame.copy(), 0.5, 0.5)[:3] for frame in ImageSequence.Iterator(out)]
    assert is_near(shown[0], P3_RED_IN_SRGB, 6)
    assert is_near(shown[1], in_srgb((60, 200, 60), 12), 10)


def test_an_animated_png(tmp_path: Path) -> None:
    header_end = 33
    data = apng(Part(RED), Part(GREEN))
    _, out = run(tmp_path, data[:header_end] + cicp(12, 13) + data[header_end:])
    shown = [pixel(frame.copy(), 0.5, 0.5)[:3] for frame in ImageSequence.Iterator(out)]
    assert is_near(shown[0], in_srgb(RED[:3], 12), 6)
    assert is_near(shown[1], in_srgb(GREEN[:3], 12), 6)


def test_transparency_stays(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (32, 32), (*P3_RED, 128))
    data = encoded(picture, "PNG")
    _, out = run(tmp_path, data[:33] + cicp(12, 13) + data[33:])
    assert is_near(pixel(out, 0.5, 0.5), (*P3_RED_IN_SRGB, 128), 4)


def test_a_palette_and_a_transparent_colour(tmp_path: Path) -> None:
    picture = Image.new("P", (32, 32), 1)
    picture.putpalette([0, 0, 0, *P3_RED])
    data = encoded(picture, "PNG", transparency=0)
    assert is_near(seen(tmp_path, data[:33] + cicp(12, 13) + data[33:]), P3_RED_IN_SRGB, 3)
    key = png_chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))
    assert is_near(seen(tmp_path, png_of(P3_RED, cicp(12, 13), key)), P3_RED_IN_SRGB, 3)


def test_variants_placeholders_and_colours_are_of_it(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(avif_of(P3_RED, 12, 13))
    processed = process_file(source, target, Limits(variants=(VariantSpec.within("thumb", 32),)))
    with Image.open(variant_path(target, "thumb")) as small:
        assert is_near(pixel(small, 0.5, 0.5), P3_RED_IN_SRGB, 4)
    assert is_near(tuple(bytes.fromhex(processed.dominant_colour[1:])), P3_RED_IN_SRGB, 4)


def greys(folder: Path, make: Any, levels: list[int]) -> list[int]:
    """The levels that greys of these levels become."""
    out = []
    for level in levels:
        colour = seen(folder, make((level,) * 3))
        assert max(colour) - min(colour) <= 3
        out.append(colour[1])
        (folder / "target").unlink()
    return out


NITS = [0, 1, 20, 100, 203, 400, 1000]


@pytest.mark.parametrize(
    "make",
    [
        lambda colour: png_of(colour, cicp(*PQ)),
        lambda colour: grey_png(colour[0], cicp(*PQ)),
        lambda colour: png_of(colour, cicp(*PQ), depth=16),
        lambda colour: heic_of(colour, *PQ),
        lambda colour: avif_of(colour, *PQ),
        lambda colour: heic_of(colour, 2, 16),
        lambda colour: avif_of(colour, 12, 16),
    ],
)
def test_pq_is_tone_mapped(tmp_path: Path, make: Any) -> None:
    """Reference white is 87% of white, and what is brighter than that is told apart from it."""
    out = greys(tmp_path, make, [pq_level(nits) for nits in NITS])
    assert out == sorted(out)
    assert out[0] <= 1
    assert abs(out[4] - 239) <= 3
    assert 0.84 <= TRANSFERS[13](out[4] / 255) <= 0.92
    assert out[4] + 7 <= out[5] <= out[6] <= 255
    # Shares of reference white stay as they are, but for the slope: 100 nits are half of it.
    assert abs(TRANSFERS[13](out[3] / 255) - 0.95 * 100 / 203) < 0.03


@pytest.mark.parametrize(
    "make",
    [
        lambda colour: png_of(colour, cicp(*HLG)),
        lambda colour: grey_png(colour[0], cicp(*HLG)),
        lambda colour: heic_of(colour, *HLG),
        lambda colour: avif_of(colour, *HLG),
    ],
)
def test_hlg_is_tone_mapped(tmp_path: Path, make: Any) -> None:
    out = greys(tmp_path, make, [hlg_level(nits) for nits in NITS])
    assert out == sorted(out)
    assert abs(out[4] - 239) <= 3
    assert out[4] + 7 <= out[5] < out[6] >= 254
    assert abs(TRANSFERS[13](out[3] / 255) - 0.95 * 100 / 203) < 0.03


def test_pq_and_hlg_of_the_same_light_look_alike(tmp_path: Path) -> None:
    pq = greys(tmp_path, lambda colour: png_of(colour, cicp(*PQ)), [pq_level(nits) for nits in NITS[2:-1]])
    hlg = greys(tmp_path, lambda colour: png_of(colour, cicp(*HLG)), [hlg_level(nits) for nits in NITS[2:-1]])
    assert all(abs(a - b) <= 4 for a, b in zip(pq, hlg, strict=True)), (pq, hlg)


def test_pq_keeps_hues(tmp_path: Path) -> None:
    """A red of 100 cd/m² of BT.709 light, in BT.2020's primaries: it stays a red without green and blue."""
    light = (0.6274, 0.0691, 0.0164)  # BT.2087
    red = tuple(pq_level(100 * part) for part in light)
    out = seen(tmp_path, png_of(red, cicp(*PQ)))  # type: ignore[arg-type]
    assert is_near(out, (181, 0, 0), 14)


def test_a_heic_of_10_bits(tmp_path: Path) -> None:
    levels = struct.pack("<3H", *(pq_level(203, bits=16),) * 3) * 64 * 64
    file = from_bytes("RGB;16", (64, 64), levels)
    out = io.BytesIO()
    file.save(
        out, quality=100, color_primaries=9, transfer_characteristics=16, matrix_coefficients=9, full_range_flag=1
    )
    assert abs(seen(tmp_path, out.getvalue())[1] - 239) <= 3


def pq_profile(tagged: bool) -> bytes:
    """A profile of BT.2020's primaries and PQ: by a table of 1,024 lights, or by a cicp tag and whatever curve."""
    bt2020 = ((0.67348, 0.27904, -0.00194), (0.16567, 0.67534, 0.02999), (0.12506, 0.04561, 0.79686))
    profile = rgb_profile(bt2020)
    count = struct.unpack_from(">L", profile, 128)[0]
    tags = {}
    for number in range(count):
        name, start, size = struct.unpack_from(">4sLL", profile, 132 + 12 * number)
        tags[name] = profile[start : start + size]
    if tagged:
        tags[b"cicp"] = b"cicp\0\0\0\0" + bytes((*PQ, 0, 1))
    else:
        table = [round(65_535 * _pq_light(number / 1023)) for number in range(1024)]
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv\0\0\0\0" + struct.pack(">L1024H", 1024, *table))
    head, body, at = struct.pack(">L", len(tags)), b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        head += name + struct.pack(">LL", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    whole = profile[:128] + head + body
    return struct.pack(">L", len(whole)) + whole[4:]


def _pq_light(signal: float) -> float:
    power = signal ** (32 / 2523)
    light: float = (max(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)) ** (16_384 / 2610)
    return light


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_a_profile_of_pq_is_tone_mapped(tmp_path: Path, kind: str, tagged: bool) -> None:
    picture = Image.new("RGB", (64, 64), (pq_level(203),) * 3)
    out = seen(
        tmp_path, encoded(picture, kind, icc_profile=pq_profile(tagged), **({"quality": 95} if kind != "PNG" else {}))
    )
    assert abs(out[1] - 239) <= 3
