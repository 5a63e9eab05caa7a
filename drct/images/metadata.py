"""What picture files say beside their pixels, and which of it each format of results can hold."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from drct.images.xmp import scale_panorama

# Names of the kinds of metadata, which are the fields of `Metadata`, in notes for the user
WORDS = {
    "icc_profile": "colour profile",
    "colour": "colour chunks",
    "exif": "EXIF",
    "xmp": "XMP",
    "iptc": "IPTC",
    "texts": "text",
    "density": "resolution",
}
# The kinds that can be written, by format: WebP has the resolution in its EXIF, JPEG only comments as text
HELD: dict[str, set[str]] = {
    "PNG": set(WORDS),
    "JPEG": set(WORDS) - {"colour"},
    "TIFF": set(WORDS) - {"colour", "texts"},
    "WEBP": {"icc_profile", "exif", "xmp", "density"},
    "BMP": {"density"},
}
COMMENT = "Comment"  # keyword of text that stands without one, in JPEG and GIF
_SEGMENT = 65533  # bytes of a JPEG segment
_JPEG_ROOM = {"exif": _SEGMENT, "xmp": _SEGMENT - 29, "iptc": _SEGMENT - 27}  # without the names they begin with
_LARGEST = {"JPEG": 65535, "PNG": 5e7, "BMP": 5e7, "TIFF": 4e9, "WEBP": 4e9}  # pixels per inch
# Colour chunks of PNG that say no more than sRGB, which is what pictures without any are taken for
_SRGB_GAMMA = b"\0\0\xb1\x8f"
_SRGB_CHROMATICITIES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
_SRGB_CODE = b"\x01\x0d\0\x01"
TRANSFERS = {16: "PQ", 18: "HLG"}  # of HDR, by code (ITU-T H.273)


class Text(NamedTuple):
    """A text with its keyword, as in PNG. Keywords are Latin-1 of up to 79 characters."""

    keyword: str
    text: str
    language: str = ""
    translated: str = ""  # keyword in that language


class Density(NamedTuple):
    """Pixels per inch along each axis; if not `is_absolute`, only their ratio is known."""

    x: float
    y: float
    is_absolute: bool = True

    def rounded(self, inches: float = 1) -> tuple[int, int]:
        """Return it as whole numbers of pixels per `inches` inches, or as a ratio of whole numbers."""
        exact = self.x == int(self.x) and self.y == int(self.y)
        factor = inches if self.is_absolute else 1 if exact else 1000 / min(self.x, self.y)
        return round(self.x * factor), round(self.y * factor)


@dataclass(frozen=True)
class Metadata:
    """What holds for an upright picture and for its enlargement. See `Density` and `Text`."""

    icc_profile: bytes | None = None  # of gray pixels if the picture is gray, else of RGB; None means sRGB
    colour: tuple[tuple[bytes, bytes], ...] = ()  # PNG's chunks about colour, such as cICP, by name
    exif: bytes | None = None  # as `PIL.Image.Exif.tobytes` returns it, with the tags that `drct.images.exif` selects
    xmp: bytes | None = None  # a packet in UTF-8
    iptc: bytes | None = None  # records of IPTC-IIM
    texts: tuple[Text, ...] = ()
    density: Density | None = None

    def enlarged(self, factor: float) -> "Metadata":
        """Return the metadata of the enlarged picture: its printed size stays, so its pixels per inch are more."""
        density = self.density
        if density and density.is_absolute:
            density = Density(density.x * factor, density.y * factor)
        return replace(self, density=density, xmp=self.xmp and scale_panorama(self.xmp, factor))


def valid_density(x: float, y: float, is_absolute: bool = True) -> Density | None:
    """Return a density, or None if the numbers are none: zero, infinite, or equal where only their ratio counts."""
    if not (0.01 < x < 1e7 and 0.01 < y < 1e7) or (not is_absolute and math.isclose(x, y)):
        return None
    return Density(float(x), float(y), is_absolute)


def turned_density(density: Density | None, orientation: int) -> Density | None:
    """Exchange the axes of a density if an EXIF orientation does."""
    return Density(density.y, density.x, density.is_absolute) if density and orientation >= 5 else density


def fit_metadata(metadata: Metadata, format: str) -> tuple[Metadata, list[str]]:
    """Reduce metadata to what a format can hold; also return notes of what is lost."""
    lost = [field.name for field in fields(metadata) if getattr(metadata, field.name)]
    lost = [kind for kind in lost if kind not in HELD[format]]
    fitted = _without(metadata, lost)
    notes = []
    if "colour" in lost and (meaning := colour_meaning(metadata)):
        notes.append(f"{format} has no {meaning}: dropped, so that it will be shown as sRGB")
    keywords = _keywords(metadata.texts)
    if words := [f"text ({keywords})" if kind == "texts" else WORDS[kind] for kind in lost if kind != "colour"]:
        notes.append(f"{format} has no {join_words(words, 'or')}: dropped")
    if format == "JPEG":
        fitted = _fit_jpeg(fitted, notes)
    density = fitted.density
    if density and (max(density[:2]) > _LARGEST[format] or (not density.is_absolute and format in ("WEBP", "BMP"))):
        what = f"resolution of {density.x:.0f} dpi" if density.is_absolute else "shape of pixels"
        notes.append(f"{format} has no {what}: dropped")
        fitted = replace(fitted, density=None)
    return fitted, notes


def _without(metadata: Metadata, kinds: Iterable[str]) -> Metadata:
    absent: dict[str, Any] = {kind: getattr(Metadata(), kind) for kind in kinds}
    return replace(metadata, **absent)


def _fit_jpeg(metadata: Metadata, notes: list[str]) -> Metadata:
    comments = tuple(text for text in metadata.texts if text.keyword == COMMENT and len(_encoded(text)) <= _SEGMENT)
    if names := _keywords(text for text in metadata.texts if text not in comments):
        notes.append(f"JPEG has no text but short comments: {names} dropped")
    metadata = replace(metadata, texts=comments)
    for kind, room in _JPEG_ROOM.items():
        if (size := len(getattr(metadata, kind) or b"")) > room:
            notes.append(f"JPEG has no room for {size} bytes of {WORDS[kind]}: dropped")
            metadata = _without(metadata, [kind])
    return metadata


def _keywords(texts: Iterable[Text]) -> str:
    return ", ".join(sorted({printable(text.keyword) for text in texts}))


def printable(text: str) -> str:
    """Replace characters of a file that could do harm in a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _encoded(text: Text) -> bytes:
    return text.text.encode("utf-8")


def colour_meaning(metadata: Metadata) -> str:
    """Describe what the colour chunks say beyond sRGB or the colour profile; "" if that is nothing."""
    chunks = dict(metadata.colour)
    code = chunks.get(b"cICP", b"")
    if code and code != _SRGB_CODE:
        transfer = TRANSFERS.get(code[1] if len(code) > 1 else 0)
        return f"cICP (HDR, {transfer})" if transfer else "cICP"
    if code or metadata.icc_profile or b"sRGB" in chunks:
        return ""
    odd = []
    if abs(int.from_bytes(chunks.get(b"gAMA", _SRGB_GAMMA), "big") - 45455) > 50:
        odd.append("gAMA")
    if (primaries := chunks.get(b"cHRM")) is not None:
        values = [int.from_bytes(primaries[start : start + 4], "big") for start in range(0, len(primaries), 4)]
        if len(values) != 8 or max(map(_distance, values, _SRGB_CHROMATICITIES)) > 100:
            odd.append("cHRM")
    return join_words(odd, "or")


def _distance(a: int, b: int) -> int:
    return abs(a - b)


def join_words(words: Iterable[str], last: str = "and") -> str:
    """Join words as in 'a, b and c'."""
    *most, final = list(words) or [""]
    return f"{', '.join(most)} {last} {final}" if most else final
