"""Metadata as picture files contain it, and the choice of what holds for an upright result."""

from collections.abc import Callable
from dataclasses import dataclass, field

from PIL import Image

from drct.images.exif import read_tags
from drct.images.iptc import read_resources, records_of
from drct.images.jpeg import EXTENDED_XMP, ICC, KNOWN, PHOTOSHOP
from drct.images.metadata import COMMENT, Density, Metadata, Text, join_words, printable, turned_density, valid_density
from drct.images.xmp import clean_xmp, read_orientation


@dataclass
class Found:
    """Metadata as it stands in a file."""

    get_tags: Callable[[], Image.Exif] = Image.Exif  # of EXIF; errors of any type if they are damaged
    icc_profile: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    colour: list[tuple[bytes, bytes]] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    density: Density | None = None  # None: that of the EXIF tags counts
    only_tags_turn: bool = False  # an orientation in XMP does not count even if the tags have none, as in TIFF
    is_turned: bool = False  # its pixels are decoded upright, whatever the tags say
    lost: list[str] = field(default_factory=list)  # names of what no result keeps
    damaged: list[str] = field(default_factory=list)  # names of what cannot be read

    def settle(self, channels: int) -> tuple[Metadata, int, str]:
        """Choose what holds for an upright picture of this number of channels.

        Returns:
            The metadata, the EXIF orientation that is still to be applied to the pixels, and a note for the user.
        """
        tags = read_tags(self.get_tags)
        lost, damaged = [*self.lost, *tags.lost], [*self.damaged, *["EXIF"] * tags.is_damaged]
        xmp = None
        try:
            xmp = clean_xmp(self.xmp) if self.xmp else None
        except ValueError:
            damaged.append("XMP")
        orientation = tags.orientation or (1 if self.only_tags_turn else read_orientation(xmp and self.xmp))
        profile, complaint = matching_profile(self.icc_profile, channels)
        notes = [complaint] if complaint else []
        if damaged := list(dict.fromkeys(damaged)):
            notes.append(f"its {join_words(damaged)} cannot be read: dropped")
        if lost := list(dict.fromkeys(lost)):
            notes.append(f"its {join_words(lost)}: dropped")
        metadata = Metadata(
            icc_profile=profile,
            colour=tuple(self.colour),
            exif=tags.exif,
            xmp=xmp,
            iptc=self.iptc,
            texts=tuple(self.texts),
            density=turned_density(self.density or tags.density, orientation),
        )
        return metadata, 1 if self.is_turned else orientation, "; ".join(notes)


def matching_profile(profile: bytes | None, channels: int) -> tuple[bytes | None, str]:
    """Return a colour profile if its colour model is that of the pixels, else None and a note."""
    if not profile:
        return None, ""
    if len(profile) < 132 or profile[36:40] != b"acsp" or int.from_bytes(profile[:4], "big") > len(profile):
        return None, "its colour profile cannot be read: dropped"
    model = b"GRAY" if channels < 3 else b"RGB "
    if profile[16:20] == model:
        return profile, ""
    models = (printable(profile[16:20].decode("latin-1")).strip(), model.decode().strip())
    of, pixels = (name.lower() if name == "GRAY" else name for name in models)
    return None, f"its colour profile is of {of}, its pixels are {pixels}: profile dropped"


def found_by_pillow(image: Image.Image) -> Found:
    """Collect the metadata of a Pillow image, which must be loaded."""
    info = image.info
    found = Found(image.getexif, _bytes(info.get("icc_profile")), _bytes(info.get("xmp")))
    found.only_tags_turn = image.format == "TIFF"
    density = info.get("dpi")
    if hasattr(image, "applist"):
        _add_segments(found, image.applist)
        density = None
        if (unit := info.get("jfif_unit")) is not None:
            x, y = info["jfif_density"]
            factor = {1: 1, 2: 2.54}.get(unit, 1)
            found.density = valid_density(x * factor, y * factor, unit in (1, 2))
    elif comment := _bytes(info.get("comment")):
        found.texts.append(Text(COMMENT, _decoded(comment)))
    if density:
        found.density = valid_density(*density)
    return found


def _add_segments(found: Found, segments: list[tuple[str, bytes]]) -> None:
    """Collect what the segments of a JPEG file contain beyond what Pillow reports."""
    blocks = b"".join(data[len(PHOTOSHOP) :] for _, data in segments if data.startswith(PHOTOSHOP))
    found.iptc, lost = records_of(read_resources(blocks))
    found.lost += lost
    if found.icc_profile is None and any(data.startswith(ICC) for _, data in segments):
        found.damaged.append("colour profile")
    for name, data in segments:
        if name == "COM" and data:
            found.texts.append(Text(COMMENT, _decoded(data)))
        elif data.startswith(EXTENDED_XMP):
            found.lost.append("extended XMP")
        elif name == "APP11" and (b"jumb" in data[:64] or b"c2pa" in data):
            found.lost.append("content credentials (C2PA)")
        elif not data.startswith(KNOWN):
            found.lost.append(f"segment {name}")


def _decoded(data: bytes) -> str:
    """Decode text of an unknown encoding: UTF-8 if it is that, else Latin-1, in which every byte is a character."""
    data = data.rstrip(b"\0")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _bytes(value: object) -> bytes | None:
    return value.encode("utf-8", "replace") if isinstance(value, str) else value if isinstance(value, bytes) else None
