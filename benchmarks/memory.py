"""Memory for a picture: the peak of a real process of the pool, over the same process when idle.

    python -m benchmarks.memory [KIND …]

It prints the memory of an idle process, then measures one picture of each format and kind, as large as the default
limits allow.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import re
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from dream.errors import DreamError
from dream.imaging import Limits
from dream.imaging.pool import Pool

__all__ = ["LARGEST", "idle_mb", "main", "peak_mb"]

_SQUARE_JPEG_PX, _SQUARE_PX = 10_000, 6_320


def main() -> None:
    """Print a row for each kind."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"any of: {'; '.join(LARGEST)}".replace("%", "%%"))
    wanted: list[str] = parser.parse_args().kinds or list(LARGEST)
    if unknown := [name for name in wanted if name not in LARGEST]:
        parser.error(f"no kind is called {unknown[0]!r}: --help lists them")
    small = _encoded("RGB", 600, "JPEG")
    with tempfile.TemporaryDirectory() as folder:
        for first in ("JPEG", "PNG"):
            resident, addresses = idle_mb(Path(folder), _encoded("RGB", 600, first))
            print(f"Idle after a {first}: {resident:.0f} MB, and {addresses:.0f} MB of address space.", flush=True)
        print("\n| picture | peak over idle |\n| --- | --- |")
        for name in wanted:
            try:
                peak = f"{peak_mb(Path(folder), LARGEST[name](), small):.0f} MB"
            except DreamError as error:
                peak = str(error)
            print(f"| {name} | {peak} |", flush=True)


def peak_mb(folder: Path, data: bytes, warm_up: bytes) -> float:
    """Peak of resident memory for a picture over the memory of the idle process, in millions of bytes.

    Parameters:
      folder: the folder for the files.
      data: the picture.
      warm_up: a picture that the process works on first, so that it is no fresh process.
    """
    source = folder / "source"
    source.write_bytes(data)
    with _idle(folder, warm_up) as (pool, pid):
        idle = _status(pid, "VmRSS")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted from here
        pool.submit(source, folder / "target").wait(lambda: None)
        return (_status(pid, "VmHWM") - idle) / 1e6


def idle_mb(folder: Path, data: bytes) -> tuple[float, float]:
    """Resident memory and address space of a process after its first picture, in millions of bytes."""
    with _idle(folder, data) as (_, pid):
        return _status(pid, "VmRSS") / 1e6, _status(pid, "VmSize") / 1e6


@contextmanager
def _idle(folder: Path, warm_up: bytes) -> Iterator[tuple[Pool, int | None]]:
    """A pool of one process that has worked on a picture, and the id of that process."""
    (folder / "small").write_bytes(warm_up)
    pool = Pool(Limits(), processes=1, time_limit_s=60, child_memory_bytes=4 * 2**30)
    pool.start()
    try:
        (child,) = multiprocessing.active_children()
        pool.submit(folder / "small", folder / "target").wait(lambda: None)
        yield pool, child.pid
    finally:
        pool.stop()


def _status(pid: int | None, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def _picture(mode: str, edge_px: int) -> Image.Image:
    """A square picture that compresses well and is neither flat nor of few colours."""
    ramp = Image.linear_gradient("L").resize((edge_px, edge_px))
    bands = [ramp, ramp.rotate(90), ramp.rotate(180), ramp.rotate(270)][: len(Image.new(mode, (1, 1)).getbands())]
    return bands[0] if len(bands) == 1 else Image.merge(mode, bands)


def _encoded(mode: str, edge_px: int, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    _picture(mode, edge_px).save(out, format=kind, **options)
    return out.getvalue()


def _png(colour: int, depth: int, is_interlaced: bool = False) -> bytes:
    """A deep or interlaced PNG with few different rows; Pillow writes no such PNG."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    rows = zlib.compressobj(1)
    packed = b""
    for left, top, across, down in _PASSES if is_interlaced else ((0, 0, 1, 1),):
        width, height = -(-(_SQUARE_PX - left) // across), -(-(_SQUARE_PX - top) // down)
        row = b"\0" + bytes(range(256)) * (width * channels * depth // 8 // 256 + 1)
        packed += b"".join(rows.compress(row[: 1 + width * channels * depth // 8]) for _ in range(height))
    head = struct.pack(">IIBBBBB", _SQUARE_PX, _SQUARE_PX, depth, colour, 0, 0, int(is_interlaced))
    chunks = ((b"IHDR", head), (b"IDAT", packed + rows.flush()), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


#: The seven passes of Adam7: the start of each and the distance of its pixels.
_PASSES = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)


def _moving(kind: str, edge_px: int, frames: int, mode: str = "RGB") -> bytes:
    first = _picture(mode, edge_px)
    turned = [first.rotate(90 * (number % 4)) for number in range(1, frames)]
    if kind == "GIF":
        first, turned = first.quantize(16), [each.quantize(16) for each in turned]
    out = io.BytesIO()
    options = {"quality": 50, "method": 0} if kind == "WEBP" else {}
    first.save(out, format=kind, save_all=True, append_images=turned, duration=100, **options)
    return out.getvalue()


def _heic() -> bytes:
    from pillow_heif import from_pillow

    out = io.BytesIO()
    from_pillow(_picture("RGB", _SQUARE_PX)).save(out, quality=40)
    return out.getvalue()


_jpeg = partial(_encoded, edge_px=_SQUARE_JPEG_PX, kind="JPEG", quality=75)
_other = partial(_encoded, edge_px=_SQUARE_PX)

#: Pictures at the limits of pixels.
LARGEST: dict[str, Callable[[], bytes]] = {
    "JPEG, 100 MP": partial(_jpeg, "RGB"),
    "JPEG, 100 MP, CMYK": partial(_jpeg, "CMYK"),
    "progressive JPEG, 100 MP, grey": partial(_jpeg, "L", progressive=True),
    "progressive JPEG, 100 MP, 4:2:0": partial(_jpeg, "RGB", progressive=True),
    "progressive JPEG, 100 MP, 4:4:4": partial(_jpeg, "RGB", progressive=True, subsampling="4:4:4"),
    "progressive JPEG, 100 MP, CMYK": partial(_jpeg, "CMYK", progressive=True),
    "PNG, 40 MP": partial(_other, "RGB", kind="PNG", compress_level=1),
    "PNG, 40 MP, transparent": partial(_other, "RGBA", kind="PNG", compress_level=1),
    "PNG, 40 MP, interlaced and transparent": partial(_png, 6, 8, is_interlaced=True),
    "PNG, 40 MP, 16 bits a channel": partial(_png, 2, 16),
    "PNG, 40 MP, 16 bits a channel, transparent": partial(_png, 6, 16),
    "PNG, 40 MP, grey of 16 bits": partial(_png, 0, 16),
    "WebP, 40 MP": partial(_other, "RGB", kind="WEBP", method=0),
    "WebP, 40 MP, lossless and transparent": partial(_other, "RGBA", kind="WEBP", lossless=True, method=0, quality=0),
    "TIFF, 40 MP, one strip": partial(
        _other, "RGB", kind="TIFF", compression="tiff_adobe_deflate", tiffinfo={278: _SQUARE_PX}
    ),
    "TIFF, 40 MP, CMYK": partial(_other, "CMYK", kind="TIFF", compression="tiff_adobe_deflate"),
    "TIFF, 40 MP, floating-point": partial(_other, "F", kind="TIFF", compression="tiff_adobe_deflate"),
    "TIFF, 40 MP, JPEG inside": partial(_other, "RGB", kind="TIFF", compression="jpeg"),
    "GIF, 40 MP": partial(_other, "P", kind="GIF"),
    "AVIF, 40 MP": partial(_other, "RGB", kind="AVIF", speed=10, quality=50),
    "AVIF, 40 MP, 4:4:4 and transparent": partial(
        _other, "RGBA", kind="AVIF", speed=10, quality=50, subsampling="4:4:4"
    ),
    "HEIC, 40 MP": _heic,
    "GIF, 5 frames of 40 MP": partial(_moving, "GIF", _SQUARE_PX, 5),
    "GIF, 190 frames of 1 MP": partial(_moving, "GIF", 1_000, 190),
    "WebP, 5 frames of 40 MP": partial(_moving, "WEBP", _SQUARE_PX, 5),
    "WebP, 190 frames of 0.25 MP, transparent": partial(_moving, "WEBP", 500, 190, "RGBA"),
    "PNG, 5 frames of 40 MP": partial(_moving, "PNG", _SQUARE_PX, 5),
}

if __name__ == "__main__":
    main()
