"""Found focal points against the centre: the share of a photo's subject that crops show, and the time to find one.

    python -m benchmarks.focus --photos FOLDER [--sheet crops.png]

`SUBJECTS` says where the subject of each photo is, as a person marked it. A crop is as large as `cover` makes it. The
share counts against the most that the shape can show, so that a subject larger than the crop is no fault.
Each photo counts as it is, and cut to three quarters in four ways that put its subject towards a corner.

The photos are not in the repository. Four are the photos of the other benchmarks, the others lie in packages. FOLDER is
searched with its folders:

    pip download --no-deps -d FOLDER gradio==6.31.0 scikit-image==0.26.0 scikit-learn==1.9.1 ultralytics==8.4.190 \
        imgaug==0.4.0 insightface==2.1
    pip download --no-deps --no-binary :all: -d FOLDER face_recognition==1.3.0
    cd FOLDER; for each in *.whl; do unzip -qo $each; done; tar xf face_recognition-1.3.0.tar.gz
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageOps

from dream.imaging.crop import Box, Point, box_for
from dream.imaging.focus import FOCUS_EDGE_PX, found_focus
from dream.imaging.transform import swatch

__all__ = ["SUBJECTS", "main"]

#: Left, top, right and bottom of the subject, as shares of the upright photo: the face of a person, else the thing.
SUBJECTS: dict[str, Box] = {
    "astronaut.png": (0.18, 0.03, 0.48, 0.40),
    "biden.jpg": (0.40, 0.08, 0.76, 0.33),
    "bus.jpg": (0.05, 0.25, 0.95, 0.83),
    "camera.png": (0.38, 0.10, 0.70, 0.38),
    "canon450d_12mp.jpg": (0.05, 0.10, 0.75, 0.95),
    "cheetah.jpg": (0.16, 0.33, 0.77, 0.72),
    "cheetah1.jpg": (0.25, 0.05, 0.78, 0.76),
    "cheetah2.jpg": (0.02, 0.10, 0.95, 0.75),
    "chelsea.png": (0.25, 0.20, 0.82, 0.95),
    "china.jpg": (0.14, 0.05, 0.56, 0.86),
    "coffee.png": (0.29, 0.04, 0.67, 0.75),
    "flower.jpg": (0.27, 0.20, 0.70, 0.85),
    "groot.jpeg": (0.40, 0.02, 0.68, 0.75),
    "iphone4s_8mp_o6.jpg": (0.36, 0.64, 0.72, 0.86),
    "kodak_s1_16mp_icc.jpg": (0.25, 0.27, 1.00, 0.95),
    "lion.jpg": (0.27, 0.02, 0.73, 0.55),
    "motorcycle_left.png": (0.12, 0.14, 0.93, 0.92),
    "obama.jpg": (0.44, 0.02, 0.75, 0.36),
    "obama2.jpg": (0.38, 0.14, 0.78, 0.50),
    "obama3.jpg": (0.42, 0.09, 0.67, 0.31),
    "obama_partial_face.jpg": (0.00, 0.02, 0.35, 0.36),
    "obama_partial_face2.jpg": (0.66, 0.02, 1.00, 0.36),
    "quokka.jpg": (0.15, 0.07, 0.47, 0.60),
    "rocket.jpg": (0.44, 0.28, 0.58, 0.98),
    "samsung_s7_12mp.jpg": (0.20, 0.10, 0.80, 0.95),
    "t1.jpg": (0.03, 0.10, 1.00, 0.65),
    "tower.jpg": (0.25, 0.10, 0.90, 1.00),
    "zidane.jpg": (0.38, 0.04, 0.85, 0.50),
}
SHAPES = ((1, 1), (4, 3), (16, 9), (9, 16), (3, 1), (1, 3))
CENTRE: Point = (0.5, 0.5)
#: Shares that differ by less count as equal, and a share above the second as the whole subject.
_EQUAL, _WHOLE = 0.02, 0.95
#: The share of each side that is left of a photo whose subject moves towards a corner.
_CUT = 0.75
_THUMB_PX = 150


class Case(NamedTuple):
    """A photo, and its subject in shares of its sides."""

    name: str
    image: Image.Image
    subject: Box


class Score(NamedTuple):
    """The share of the subject that a crop around the found point shows, and a crop around the centre."""

    found: float
    centre: float


def main() -> None:
    """Print the shares and the times; write a sheet of crops if one is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="a folder with photos of SUBJECTS")
    parser.add_argument("--sheet", type=Path, help="where to write a PNG of all square and wide crops")
    options = parser.parse_args()
    cases = list(_cases(options.photos))
    if not cases:
        parser.error(f"{options.photos} has none of the {len(SUBJECTS)} photos in SUBJECTS")
    print("| photo | found point | share around it | around the centre |\n| --- | --- | --- | --- |")
    for case in cases:
        scores, (x, y) = _scores(case), found_focus(case.image)
        print(f"| {case.name} | {x:.2f}, {y:.2f} | {_mean_found(scores):.2f} | {_mean_centre(scores):.2f} |")
    _print_sum("photos as they are", cases)
    _print_sum("subject towards a corner", [moved for case in cases for moved in _moved(case)])
    _print_times(cases)
    if options.sheet:
        _sheet(cases).save(options.sheet)


def _cases(folder: Path) -> Iterator[Case]:
    found = {path.name: path for path in sorted(folder.rglob("*"), reverse=True) if path.name in SUBJECTS}
    for name, path in sorted(found.items()):
        with Image.open(path) as file:
            yield Case(name, ImageOps.exif_transpose(file).convert("RGB"), SUBJECTS[name])


def _moved(case: Case) -> Iterator[Case]:
    """The photo cut in four ways that keep as much of its subject as possible."""
    (left, top, right, bottom), size = case.subject, case.image.size
    for is_right, is_low in product((False, True), repeat=2):
        x, y = (
            min(max(0.0, end - _CUT if is_far else begin), 1 - _CUT)
            for begin, end, is_far in ((left, right, is_right), (top, bottom, is_low))
        )
        box = (round(x * size[0]), round(y * size[1]), round((x + _CUT) * size[0]), round((y + _CUT) * size[1]))
        shares = [(left - x) / _CUT, (top - y) / _CUT, (right - x) / _CUT, (bottom - y) / _CUT]
        subject = tuple(min(1.0, max(0.0, share)) for share in shares)
        yield Case(case.name, case.image.crop(box), subject)  # type: ignore[arg-type]


def _scores(case: Case) -> list[Score]:
    focus = found_focus(case.image)
    return [Score(_shown(case, shape, focus), _shown(case, shape, CENTRE)) for shape in SHAPES]


def _shown(case: Case, shape: tuple[int, int], focus: Point) -> float:
    """The share of the subject in a crop, of the most that a crop of this shape can show."""
    size = case.image.size
    box = box_for(size, shape, focus)
    share = 1.0
    for axis in (0, 1):
        begin, end = case.subject[axis] * size[axis], case.subject[axis + 2] * size[axis]
        seen = max(0.0, min(box[axis + 2], end) - max(box[axis], begin))
        share *= seen / min(end - begin, box[axis + 2] - box[axis])
    return share


def _mean_found(scores: list[Score]) -> float:
    return mean(each.found for each in scores)


def _mean_centre(scores: list[Score]) -> float:
    return mean(each.centre for each in scores)


def _print_sum(title: str, cases: list[Case]) -> None:
    scores = [score for case in cases for score in _scores(case)]
    found, centre = _mean_found(scores), _mean_centre(scores)
    better = sum(each.found > each.centre + _EQUAL for each in scores)
    worse = sum(each.found < each.centre - _EQUAL for each in scores)
    whole = sum(each.found >= _WHOLE for each in scores), sum(each.centre >= _WHOLE for each in scores)
    missed = sum(each.found < 1 / 2 for each in scores), sum(each.centre < 1 / 2 for each in scores)
    print(
        f"\n{title}: {len(cases)} photos, {len(scores)} crops\n"
        f"  mean share {found:.3f} around the found point, {centre:.3f} around the centre\n"
        f"  better in {better}, worse in {worse}; whole subject in {whole[0]} and {whole[1]}; "
        f"less than half in {missed[0]} and {missed[1]}"
    )


def _print_times(cases: list[Case]) -> None:
    """Processor time from the copy that the swatch needs anyway, and the time of that copy."""
    copies = [swatch(case.image, FOCUS_EDGE_PX) for case in cases]
    times_ms = []
    for copy in copies * 10:
        began = time.process_time()
        found_focus(copy)
        times_ms.append((time.process_time() - began) * 1e3)
    print(f"\nmedian {median(times_ms):.2f} ms, highest {max(times_ms):.2f} ms a photo")


def _sheet(cases: list[Case]) -> Image.Image:
    """Each photo with its subject and found point, then square and wide crops: found, centre."""
    cells = [_cells(case) for case in cases]
    across = 2
    width = sum(max(cell.width for cell in column) + 4 for column in zip(*cells, strict=True))
    sheet = Image.new("RGB", (across * (width + 20), -(-len(cells) // across) * (_THUMB_PX + 6)), "white")
    for number, row in enumerate(cells):
        x, y = number % across * (width + 20), number // across * (_THUMB_PX + 6)
        for cell in row:
            sheet.paste(cell, (x, y))
            x += cell.width + 4
    return sheet


def _cells(case: Case) -> list[Image.Image]:
    focus, size = found_focus(case.image), case.image.size
    seen = case.image.copy()
    pen, line = ImageDraw.Draw(seen), max(2, max(size) // 150)
    pen.rectangle([share * size[at % 2] for at, share in enumerate(case.subject)], outline="lime", width=line)
    x, y, radius = focus[0] * size[0], focus[1] * size[1], 4 * line
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill="red", outline="white", width=line)
    seen.thumbnail((_THUMB_PX, _THUMB_PX))
    crops = [
        case.image.resize(to, Image.Resampling.LANCZOS, box_for(size, to, point))
        for to in ((_THUMB_PX, _THUMB_PX), (_THUMB_PX, _THUMB_PX // 3), (_THUMB_PX // 3, _THUMB_PX))
        for point in (focus, CENTRE)
    ]
    return [seen, *crops]


if __name__ == "__main__":
    main()
