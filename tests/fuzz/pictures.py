"""Mutated pictures of every format that can be read, through `drct upscale` with a tiny network."""

import random
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import tifffile
import torch
from picture_corpus import make_corpus
from PIL import Image

from drct.archs.drct_arch import DRCT
from drct.archs.execution import memory_needed
from drct.errors import DRCTError
from drct.images.pictures import Picture, read_picture, write_picture
from drct.runtime import checkpoint
from fuzz import memory
from fuzz.picture_mutations import mutate
from fuzz.pool import AS_USERS_DO
from fuzz.verdicts import DONE, Ended, Verdict, judge, run_as_users_do, run_here

FULL = 1500
SCALE = 2
NETWORK = {
    "embed_dim": 12,
    "gc": 4,
    "depths": (2,),
    "num_heads": (2,),
    "window_size": 4,
    "img_size": 16,
    "upscale": SCALE,
}
MOST_PIXELS = 2**16  # of larger pictures a corner is upscaled, to save time
ALLOWANCE = 64 << 20  # bytes for libraries that a case is the first to load, and for buffers of decoders


class Pictures:
    """A corpus of good pictures, and the weights of a tiny network."""

    def __init__(self, folder: Path) -> None:
        cases = [case for case in make_corpus(folder / "corpus") if case.path.is_file() and case.pixels is not None]
        self.paths = sorted({case.path for case in cases if "\n" not in case.path.name}, key=lambda path: path.name)
        self.weights = folder / "tiny.pth"
        self.network = DRCT(**NETWORK)
        checkpoint.save(self.weights, {"params": self.network.state_dict()})

    def run(self, number: int, seed: int) -> Verdict:
        """Run a mutated picture in the current folder."""
        rng = random.Random(f"pictures {seed} {number}")
        path = rng.choice(self.paths)
        data, words = mutate(path.read_bytes(), rng)
        what = f"{path.name}: {words}"
        Path("what.txt").write_text(what, errors="replace")
        file = Path(f"mutant{path.suffix if len(path.suffix) < 6 else ''}")
        file.write_bytes(data)
        picture = _read(file)
        if isinstance(picture, Picture) and picture.pixels[..., 0].size > MOST_PIXELS:
            file = Path("corner.png")
            write_picture(file, Picture(np.ascontiguousarray(picture.pixels[:64, :64])))
        run = run_as_users_do if number % AS_USERS_DO == 0 else run_here
        ended = run("upscale", file, "-o", "larger", "--weights", self.weights, "--device", "cpu")
        verdict = judge(ended)
        if verdict.good:
            verdict = self._fault(ended, file, data, picture) or self._excess(data, verdict) or verdict
        verdict.what = what
        return verdict

    def _fault(self, ended: Ended, file: Path, data: bytes, picture: Picture | str) -> Verdict | None:
        results = [path for path in Path("larger").rglob("*") if path.is_file()]
        if ended.status:
            return Verdict("wrong", "a result of a picture that was refused", str(results)) if results else None
        if isinstance(picture, str):
            return Verdict("wrong", "upscaled, though it cannot be read", picture)
        if len(results) != 1:
            return Verdict("wrong", "not one result", str(results))
        wanted = Image.open(file).size if file.name == "corner.png" else picture.pixels.shape[1::-1]
        with Image.open(results[0]) if results[0].suffix != ".tif" else tifffile.TiffFile(results[0]) as result:
            size = result.size if isinstance(result, Image.Image) else result.pages[0].shape[1::-1]
        if tuple(size) != tuple(SCALE * side for side in wanted):
            return Verdict("wrong", "a result of another size", f"{size} of {wanted}")
        if reason := unreadable(data):
            return Verdict("wrong", f"read, though {reason}", "")
        return None

    def need(self, width: int, height: int, upscaled: bool) -> int:
        """Return the bytes that a picture needs: 16 bits of 4 channels, and what its upscaling takes if it is done."""
        pixels = width * height
        if not upscaled:
            return 8 * pixels
        network = memory_needed(self.network, height, width, torch.float32, torch.device("cpu"))
        return 16 * pixels * (1 + SCALE**2) + network

    def _excess(self, data: bytes, verdict: Verdict) -> Verdict | None:
        """Return a verdict if a case took more than three times what its picture needs, as far as its size is known."""
        width, height = declared_size(data)
        upscaled = verdict.kind == DONE and width * height <= MOST_PIXELS
        most, taken = 3 * self.need(width, height, upscaled) + ALLOWANCE, memory.taken()
        if taken > most:
            return Verdict("memory", "over three times the need", f"{taken >> 20} MB for {width}x{height}")
        return None


def _read(file: Path) -> Picture | str:
    try:
        return read_picture(file)
    except DRCTError as error:
        return str(error)


def declared_size(data: bytes) -> tuple[int, int]:
    """Return the size that a file claims, (0, 0) if it cannot be told or is beyond the limit against bombs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(BytesIO(data)) as image:
                return image.size
        except Exception:  # noqa: BLE001 - decoders raise errors of any type for broken files
            pass
        try:
            with tifffile.TiffFile(BytesIO(data)) as file:
                page = file.pages[0]
                size = page.imagewidth, page.imagelength
                return size if size[0] * size[1] < 2 * Image.MAX_IMAGE_PIXELS else (0, 0)
        except Exception:  # noqa: BLE001
            return 0, 0


def unreadable(data: bytes) -> str:
    """Return why neither Pillow nor tifffile can read a picture, '' if one of them can."""
    reasons = []
    for read, content in ((_pillow, data), (tifffile.imread, data), (_pillow, _critical_chunks(data))):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(BytesIO(content))
            return ""
        except Exception as error:  # noqa: BLE001 - decoders raise errors of any type for broken files
            reasons.append(type(error).__name__)
    return f"Pillow raises {reasons[0]}"


def _pillow(file: BytesIO) -> None:
    with Image.open(file) as image:
        image.load()


def _critical_chunks(data: bytes) -> bytes:
    """Return a PNG file without the chunks that are no part of the picture, which a reader may skip if damaged."""
    start, kept = 8, data[:8]
    while kept.startswith(b"\x89PNG") and start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 5].isupper():
            kept += data[start:end]
        start = end
    return kept
