"""How many planted faults `drct prepare check` finds, and how many sound images it calls faulty.

Photographs of a folder are cut into patches. So that they are sound, the softest tenth of the photographs is left out,
and of each the less detailed half of its patches, such as sky and what is out of focus; both are ranks, without
measures or limits of the check. Some patches stay as they are, others get one fault each. Some photographs are set
aside as a benchmark, and parts of them leak into the set. The limits of the check were chosen with a third of the
photographs, by their names; it is measured with the others. All is done in a temporary folder and with a seed that is
drawn anew in each run, and printed.
"""

import argparse
import random
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import drct  # noqa: F401 - mends BasicSR when that is imported

# isort: split

import cv2
import numpy as np
from PIL import Image

from drct.data.doctor.check import Checked, check_images
from drct.data.image_lists import find_images
from drct.data.prepare import reduce_image
from drct.errors import DRCTError, one_line_errors
from drct.images.bgr import read_image
from drct.text import markdown_table

Fault = Callable[[random.Random, np.ndarray], np.ndarray]
PairFault = Callable[[random.Random, np.ndarray, int], np.ndarray]
CV_KERNELS = (cv2.INTER_CUBIC, cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_LANCZOS4)
PILLOW_KERNELS = (Image.Resampling.LANCZOS, Image.Resampling.BILINEAR)
BENCHMARK = 20  # photographs
SOFT_SHARE = 0.1  # of the photographs, which are not sound
PARTS = 3  # of the photographs, one of which is for choosing limits


def flat(rng: random.Random, image: np.ndarray) -> np.ndarray:
    """Take away nearly all contrast, or replace the image by a soft gradient."""
    if rng.random() < 0.5:
        return _rounded(rng.uniform(30, 220) + (image.astype(np.float32) - image.mean()) * rng.uniform(0, 0.05))
    height, width = image.shape[:2]
    ramp = np.linspace(0, rng.uniform(0, 120), width)[None, :, None] + np.zeros((height, 1, 3))
    return _rounded(rng.uniform(0, 100) + ramp)


def blurred(rng: random.Random, image: np.ndarray) -> np.ndarray:
    """Blur as a lens out of focus, a moving camera or a Gaussian filter does."""
    kind = rng.randrange(3)
    if kind == 0:
        return cv2.GaussianBlur(image, (0, 0), rng.uniform(1, 3))
    size = rng.randrange(7, 16, 2)
    kernel: np.ndarray = np.zeros((size, size), np.float32)
    middle = size // 2
    if kind == 1:
        kernel[middle] = 1
        kernel = cv2.warpAffine(kernel, cv2.getRotationMatrix2D((middle, middle), rng.uniform(0, 180), 1), (size, size))
    else:
        cv2.circle(kernel, (middle, middle), max(2, middle - 1), 1, -1)
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def enlarged(rng: random.Random, image: np.ndarray) -> np.ndarray:
    """Enlarge a reduced image, 1.5 to 4 times, by a common kernel."""
    height, width = image.shape[:2]
    factor = rng.uniform(1.5, 4)
    small = cv2.resize(image, (round(width / factor), round(height / factor)), interpolation=cv2.INTER_AREA)
    kernel = rng.choice((cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4))
    return cv2.resize(small, (width, height), interpolation=kernel)


def jpeg(rng: random.Random, image: np.ndarray, lowest: int = 10, highest: int = 80) -> np.ndarray:
    """Save as JPEG and cut off a few pixels, so that blocks begin anywhere."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, rng.randint(lowest, highest)])
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return decoded[rng.randrange(8) :, rng.randrange(8) :]


def varied(rng: random.Random, image: np.ndarray) -> np.ndarray:
    """Save again, resize, mirror, brighten or crop a little: a near-duplicate."""
    kind = rng.randrange(5)
    if kind == 0:
        return jpeg(rng, image, 30, 90)
    if kind == 1:
        return reduced(rng, image, 0.4)
    if kind == 2:
        return image[:, ::-1]
    if kind == 3:
        return _rounded(image * rng.uniform(0.8, 1.2) + rng.uniform(-15, 15))
    return cropped(rng, image, 0.95, 0.99)


def cropped(rng: random.Random, image: np.ndarray, least: float = 0.5, most: float = 0.9) -> np.ndarray:
    """Cut out a part of the height and width."""
    height, width = (round(side * rng.uniform(least, most)) for side in image.shape[:2])
    y, x = rng.randint(0, image.shape[0] - height), rng.randint(0, image.shape[1] - width)
    return image[y : y + height, x : x + width]


def flipped(rng: random.Random, image: np.ndarray) -> np.ndarray:
    """Mirror and turn."""
    image = image[:, ::-1] if rng.random() < 0.5 else image[::-1]
    return np.rot90(image, rng.randrange(4))


def reduced(rng: random.Random, image: np.ndarray, least: float = 0.3) -> np.ndarray:
    """Reduce by a factor down to `least`."""
    factor = rng.uniform(least, 0.9)
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def all_at_once(rng: random.Random, image: np.ndarray) -> np.ndarray:
    """Crop, flip, reduce and save as JPEG."""
    return jpeg(rng, reduced(rng, flipped(rng, cropped(rng, image, 0.6)), 0.5), 40, 90)


def shifted(rng: random.Random, image: np.ndarray, scale: int) -> np.ndarray:
    """Shift by 0.1 to 3 low-resolution pixels before reducing."""
    distance, angle = rng.uniform(0.1, 3) * scale, rng.uniform(0, 2 * np.pi)
    matrix = np.array([[1, 0, distance * np.cos(angle)], [0, 1, distance * np.sin(angle)]], np.float32)
    size = image.shape[1::-1]
    moved = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101)
    return reduce_image(moved, scale)


def other_kernel(rng: random.Random, image: np.ndarray, scale: int) -> np.ndarray:
    """Reduce by a kernel of OpenCV or Pillow, or by a Gaussian filter."""
    size = (image.shape[1] // scale, image.shape[0] // scale)
    kind = rng.choice((*CV_KERNELS, *PILLOW_KERNELS, None))
    if kind is None:
        soft = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.8) * scale)
        return cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR)
    if kind in PILLOW_KERNELS:
        return np.asarray(Image.fromarray(image).resize(size, kind))
    return cv2.resize(image, size, interpolation=kind)


def other_colour(rng: random.Random, image: np.ndarray, scale: int) -> np.ndarray:
    """Exchange red and blue, or change brightness, contrast or gamma, by 3 % or 3 levels at least."""
    small = reduce_image(image, scale)
    kind = rng.randrange(4)
    if kind == 0:
        return small[..., ::-1]
    if kind == 1:
        return _rounded(small * (1 + rng.choice((-1, 1)) * rng.uniform(0.03, 0.15)))
    if kind == 2:
        return _rounded(small + np.array([rng.choice((-1, 1)) * rng.uniform(3, 10) for _ in range(3)]))
    return _rounded(255 * (small / 255) ** rng.choice((0.8, 0.9, 1.1, 1.2)))


def other_size(rng: random.Random, image: np.ndarray, scale: int) -> np.ndarray:
    """Reduce by another scale, or cut off a row or column."""
    small = reduce_image(image, scale)
    return rng.choice((lambda: small[1:], lambda: small[:, :-1], lambda: reduce_image(image, scale - 1)))()


def _rounded(image: np.ndarray) -> np.ndarray:
    return image.round().clip(0, 255).astype(np.uint8)


IMAGE_FAULTS: dict[str, tuple[str, Fault]] = {  # name: kind of finding, and how to plant it
    "flat": ("flat", flat),
    "blurred": ("soft", blurred),
    "enlarged before": ("soft", enlarged),
    "JPEG": ("jpeg", jpeg),
}
PAIR_FAULTS: dict[str, tuple[str, PairFault]] = {
    "shifted": ("shift", shifted),
    "other kernel": ("kernel", other_kernel),
    "other colour": ("colour", other_colour),
    "other size": ("size", other_size),
}
COPIES: dict[str, tuple[str, Fault]] = {
    "duplicate": ("identical", lambda _, image: image),
    "near-duplicate": ("similar", varied),
}
LEAKS: dict[str, tuple[str, Fault]] = {
    "leak, cropped": ("leak", cropped),
    "leak, flipped": ("leak", flipped),
    "leak, JPEG": ("leak", lambda rng, image: jpeg(rng, image, 30, 90)),
    "leak, reduced": ("leak", reduced),
    "leak, all of it": ("leak", all_at_once),
}


@dataclass
class PlantedSet:
    """A folder of images with known faults."""

    folder: Path
    scale: int
    rng: random.Random
    sound: list[str] = field(default_factory=list)
    planted: dict[str, dict[str, str]] = field(default_factory=dict)  # fault: image, and the image it is a copy of

    def write(self, name: str, image: np.ndarray, pair: PairFault | None = None) -> None:
        """Write an image, cropped to a multiple of the scale, and its reduction, which may be faulty."""
        height, width = (side - side % self.scale for side in image.shape[:2])
        image = np.ascontiguousarray(image[:height, :width])
        small = pair(self.rng, image, self.scale) if pair else reduce_image(image, self.scale)
        self.save(f"GT/{name}.png", image)
        self.save(f"LR/{name}.png", np.ascontiguousarray(small))

    def save(self, name: str, image: np.ndarray) -> None:
        """Write a file, which need not outlast a failure."""
        file = self.folder / name
        file.parent.mkdir(exist_ok=True)
        if not cv2.imwrite(str(file), image):
            raise DRCTError(f"cannot write {file}: is there space?")


def plant(files: list[Path], planted: PlantedSet, images: int, faulty: int, side: int) -> None:
    """Write sound and faulty images.

    Raises:
        DRCTError: if the photographs are too few.
    """
    rng = planted.rng
    rng.shuffle(files)
    held_out, others = files[:BENCHMARK], sharp(files[BENCHMARK:])
    needed, there = images + faulty * len(IMAGE_FAULTS | PAIR_FAULTS), _count_patches(others, side)
    if there < needed:
        raise DRCTError(
            f"{needed} patches of {side} pixels are needed, but {len(others)} photographs have {there}: "
            "lower --images, --faulty or --side"
        )
    for number, file in enumerate(held_out):
        planted.save(f"benchmark/{number}.png", read_image(file))
    jobs: list[tuple[str, Fault | None, PairFault | None]] = []
    for number in range(images):
        planted.sound.append(f"sound_{number}.png")
        jobs.append((f"sound_{number}", None, None))
    for fault, (_, change) in IMAGE_FAULTS.items():
        jobs += [(name, change, None) for name in _names(planted, fault, faulty)]
    for fault, (_, reduce) in PAIR_FAULTS.items():
        jobs += [(name, None, reduce) for name in _names(planted, fault, faulty)]
    rng.shuffle(jobs)
    for patch, (name, image_fault, pair_fault) in zip(_patches(others, side), jobs, strict=False):
        planted.write(name, image_fault(rng, patch) if image_fault else patch, pair_fault)
    for fault, (_, change) in COPIES.items():
        for name, original in zip(_names(planted, fault, faulty), rng.sample(planted.sound, faulty), strict=True):
            planted.planted[fault][f"{name}.png"] = original
            planted.write(name, change(rng, read_image(planted.folder / "GT" / original)))
    for fault, (_, change) in LEAKS.items():
        for name in _names(planted, fault, faulty):
            planted.write(name, change(rng, read_image(rng.choice(held_out))))


def _names(planted: PlantedSet, fault: str, number: int) -> list[str]:
    names = [f"{''.join(filter(str.isalpha, fault))}_{i}" for i in range(number)]
    planted.planted[fault] = {f"{name}.png": "" for name in names}
    return names


def part_of(files: list[Path], tuning: bool) -> list[Path]:
    """Return the photographs with which limits are chosen, or the others, which are the same in each run."""
    return [file for file in files if (zlib.crc32(file.name.encode()) % PARTS == 0) == tuning]


def sharp(files: list[Path]) -> list[Path]:
    """Leave out the softest of the photographs, by the mean second derivative of the whole over the mean first one."""
    sharpness = {}
    for file in files:
        gray = cv2.cvtColor(read_image(file), cv2.COLOR_BGR2GRAY)
        first = cv2.magnitude(*(cv2.Sobel(gray, cv2.CV_32F, *order) for order in ((1, 0), (0, 1))))
        sharpness[file] = np.abs(cv2.Laplacian(gray, cv2.CV_32F)).mean() / max(first.mean(), 1e-6)
    softest = sorted(files, key=lambda file: sharpness[file])[: int(SOFT_SHARE * len(files))]
    return [file for file in files if file not in softest]


def _patches(files: list[Path], side: int) -> Iterator[np.ndarray]:
    """Yield the more detailed half of the patches of each photograph, which overlap by half at most."""
    for file in files:
        image = read_image(file)
        patches = [image[y : y + side, x : x + side] for y, x in _places(image.shape[:2], side)]
        patches.sort(key=_detail, reverse=True)
        yield from patches[: _halved(len(patches))]


def _count_patches(files: list[Path], side: int) -> int:
    count = 0
    for file in files:
        with Image.open(file) as image:
            count += _halved(len(_places(image.size, side)))
    return count


def _places(size: tuple[int, ...], side: int) -> list[tuple[int, int]]:
    rows, columns = (range(0, length - side + 1, side // 2) for length in size)
    return [(y, x) for y in rows for x in columns]


def _halved(number: int) -> int:
    return (number + 1) // 2


def _detail(image: np.ndarray) -> float:
    return float(np.abs(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.CV_32F)).mean())


def evaluate(checked: Checked, planted: PlantedSet) -> list[list[str]]:
    """Return a row for each fault: planted, found, and sound images that are called so."""
    found = {(finding.name, finding.kind) for finding in checked.findings}
    copied = {original for copies in planted.planted.values() for original in copies.values()}
    sound = [name for name in planted.sound if name not in copied]
    rows = []
    for fault, (kind, _) in (IMAGE_FAULTS | PAIR_FAULTS | COPIES | LEAKS).items():
        names = planted.planted[fault]
        hits = sum((name, kind) in found or (original, kind) in found for name, original in names.items())
        alarms = sum((name, kind) in found for name in sound)
        recall, rate = (f"{part:.1%}" for part in (hits / len(names), alarms / len(sound)))
        rows.append([fault, str(len(names)), str(hits), recall, str(alarms), rate])
    return rows


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, help="folder, searched recursively")
    parser.add_argument("--images", type=int, default=1000, help="sound patches, default %(default)s")
    parser.add_argument("--faulty", type=int, default=100, help="patches with each fault, default %(default)s")
    parser.add_argument("--side", type=int, default=220, help="of a patch, in pixels, default %(default)s")
    parser.add_argument("--scale", type=int, default=4, choices=[2, 3, 4], help="default 4")
    parser.add_argument("--tuning", action="store_true", help="take the photographs with which limits are chosen")
    parser.add_argument("--seed", type=int, help="of all that is random; default: a new one")
    parser.add_argument("--processes", type=int, default=2, help="default 2")
    parser.add_argument("--missed", action="store_true", help="also name the faults that were missed, and false alarms")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Print recall and false alarms. Returns 0, or 1 if recall is below 95 % or false alarms reach 1 % for a fault."""
    args = argument_parser().parse_args(argv)
    if args.faulty * len(COPIES) >= args.images:
        raise DRCTError(f"--images {args.images}: more than {args.faulty * len(COPIES)} are needed, as some are copied")
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        planted = PlantedSet(Path(folder), args.scale, random.Random(seed))
        plant(
            part_of(find_images(args.photographs, recursive=True), args.tuning),
            planted,
            args.images,
            args.faulty,
            args.side,
        )
        start = time.perf_counter()
        root = planted.folder
        checked = check_images(root / "GT", root / "LR", [root / "benchmark"], args.processes)
        took = time.perf_counter() - start
    rows = evaluate(checked, planted)
    print(markdown_table(["fault", "planted", "found", "recall", "false alarms", "of sound images"], rows), end="")
    print(f"{checked.images} images of {args.side}x{args.side} in {took:.0f} s, {args.processes} processes")
    if args.missed:
        _print_mistakes(checked, planted)
    sound = args.images - len(
        {original for copies in planted.planted.values() for original in copies.values() if original}
    )
    missed = [row[0] for row in rows if int(row[2]) < 0.95 * int(row[1]) or int(row[4]) >= 0.01 * sound]
    return int(bool(missed))


def _print_mistakes(checked: Checked, planted: PlantedSet) -> None:
    found = {(finding.name, finding.kind): finding for finding in checked.findings}
    for fault, (kind, _) in (IMAGE_FAULTS | PAIR_FAULTS | COPIES | LEAKS).items():
        for name, original in planted.planted[fault].items():
            if (name, kind) not in found and (original, kind) not in found:
                others = [finding.words for (other, _), finding in found.items() if other == name]
                print(f"missed: {fault}: {name}: {'; '.join(others)}")
    copied = {original for copies in planted.planted.values() for original in copies.values()}
    for (name, kind), finding in found.items():
        if name in planted.sound and name not in copied:
            print(f"sound: {kind}: {name}: {finding.words} {finding.other}")


if __name__ == "__main__":
    sys.exit(main())
