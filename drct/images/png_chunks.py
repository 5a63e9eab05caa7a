"""The chunks of PNG files that hold metadata, read within limits and written."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO

from PIL import Image
from PIL.PngImagePlugin import putchunk

from drct.images.exif import with_density
from drct.images.found import Found
from drct.images.iptc import read_resources, records_of, resources_with
from drct.images.metadata import Metadata, Text, valid_density
from drct.images.png16 import walk_chunks

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR = {b"cICP": 4, b"cHRM": 32, b"gAMA": 4, b"sRGB": 1, b"mDCV": 24, b"cLLI": 8}  # their lengths
# Left out in silence: the file's date, the depth and background of the old pixels, and frames, of which a note tells
_SILENT = (b"tIME", b"sBIT", b"bKGD", b"hIST", b"sPLT", b"acTL", b"fcTL", b"fdAT", b"iDOT", b"vpAg", b"orNT")
_NAMES = {b"caBX": "content credentials (C2PA)"}
_XMP = "XML:com.adobe.xmp"
_RAW = "Raw profile type "  # keywords under which ImageMagick stores what PNG had no chunks for
_LARGEST = 16_000_000  # bytes of a chunk, decompressed
_INCH = 0.0254  # metres


def split_chunks(data: bytes) -> tuple[bytes, list[tuple[bytes, bytes | None]]]:
    """Divide a PNG file into what its pixels need, as a file of its own, and the chunks that only describe them.

    Of a truncated file, the pixels' part is truncated too. A describing chunk whose checksum is wrong is None.
    """
    kept: list[bytes] = [data[:8]]
    others: list[tuple[bytes, bytes | None]] = []
    for name, start, end in walk_chunks(data):
        if name[:1].isupper() or name == b"tRNS":
            kept.append(data[start:end])
        elif end <= len(data):
            is_whole = zlib.crc32(data[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
            others.append((name, data[start + 8 : end - 4] if is_whole else None))
    return b"".join(kept), others


def count_frames(chunks: list[tuple[bytes, bytes | None]]) -> int:
    """Return the number of frames of an animation, 1 if it is none."""
    control = next((content for name, content in chunks if name == b"acTL"), None) or b""
    return int.from_bytes(control[:4], "big") if len(control) == 8 else 1


def find_metadata(chunks: list[tuple[bytes, bytes | None]]) -> Found:
    """Collect the metadata that chunks contain. What is damaged or too large is left out."""
    found = _FoundInPng()
    for name, content in chunks:
        word = _NAMES.get(name, f"chunk {name.decode('latin-1')}")
        if name in _SILENT:
            continue
        try:
            if content is None:
                raise ValueError("wrong checksum")
            if not _take(found, name, content):
                found.lost.append(word if word.isascii() and word.isprintable() else "chunk without a proper name")
        except (ValueError, IndexError, struct.error, zlib.error):
            found.damaged.append(_KINDS.get(name, word))
    found.get_tags = lambda: _loaded(found.raw_exif)
    return found


class _FoundInPng(Found):
    raw_exif: bytes = b""


def _loaded(exif: bytes) -> Image.Exif:
    tags = Image.Exif()
    tags.load(exif)
    return tags


_KINDS = {b"iCCP": "colour profile", b"eXIf": "EXIF", b"tEXt": "text", b"zTXt": "text", b"iTXt": "text"}


def _take(found: _FoundInPng, name: bytes, content: bytes) -> bool:
    """Add a chunk to the metadata. Returns False if it is of an unknown kind."""
    if name == b"iCCP":
        found.icc_profile = _inflate(content[content.index(b"\0") + 2 :])
    elif name == b"eXIf":
        found.raw_exif = content
    elif name == b"pHYs":
        x, y, unit = struct.unpack(">2IB", content)
        found.density = valid_density(*((x * _INCH, y * _INCH) if unit == 1 else (x, y)), unit == 1)
    elif name in (b"tEXt", b"zTXt", b"iTXt"):
        text = _read_text(name, content)
        if text.keyword == _XMP:
            found.xmp = text.text.encode()
        elif text.keyword.startswith(_RAW):
            return _take_raw_profile(found, text)
        else:
            found.texts.append(text)
    elif name in _COLOUR:
        if len(content) != _COLOUR[name]:  # Pillow opens no file with such a chunk
            raise ValueError("wrong length")
        found.colour = [(other, kept) for other, kept in found.colour if other != name] + [(name, content)]
    else:
        return False
    return True


def _take_raw_profile(found: _FoundInPng, text: Text) -> bool:
    """Add what ImageMagick has stored as text: a newline, its name, its length and its bytes in hexadecimal digits."""
    kind = text.keyword.removeprefix(_RAW)
    content = bytes.fromhex("".join(text.text.split("\n")[3:]))
    if kind in ("exif", "APP1") and content.startswith(b"Exif\0\0"):
        found.raw_exif = found.raw_exif or content
    elif kind == "xmp" or content.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
        found.xmp = found.xmp or content.removeprefix(b"http://ns.adobe.com/xap/1.0/\0")
    elif kind in ("iptc", "8bim"):
        found.iptc = content if content.startswith(b"\x1c") else records_of(read_resources(content))[0]
    elif kind in ("icc", "icm"):
        found.icc_profile = found.icc_profile or content
    else:
        return False
    return True


def _read_text(name: bytes, content: bytes) -> Text:
    keyword, _, rest = content.partition(b"\0")
    if not 1 <= len(keyword) <= 79:
        raise ValueError("no keyword")
    if name != b"iTXt":
        rest = _inflate(rest[1:]) if name == b"zTXt" else rest
        if b"\0" in rest:
            raise ValueError("not a text")
        return Text(keyword.decode("latin-1"), rest.decode("latin-1"))
    is_compressed, method = rest[:2]
    language, translated, text = rest[2:].split(b"\0", 2)
    if is_compressed and method:
        raise ValueError("unknown compression")
    text = _inflate(text) if is_compressed else text
    return Text(keyword.decode("latin-1"), text.decode(), language.decode("latin-1"), translated.decode())


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    result = inflater.decompress(data, _LARGEST)
    if not inflater.eof:
        raise ValueError("truncated, or too large")
    return result


def metadata_chunks(metadata: Metadata) -> bytes:
    """Encode metadata as chunks to follow the header of a PNG file."""
    file = BytesIO()
    for name, content in _chunks_of(metadata):
        putchunk(file, name, content)
    return file.getvalue()


def with_chunks(png: bytes, metadata: Metadata) -> bytes:
    """Insert metadata into a PNG file that has none."""
    header = len(SIGNATURE) + 25
    return png[:header] + metadata_chunks(metadata) + png[header:]


def _chunks_of(metadata: Metadata) -> Iterator[tuple[bytes, bytes]]:
    yield from metadata.colour
    if metadata.icc_profile:
        yield b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc_profile)
    if density := metadata.density:
        yield b"pHYs", struct.pack(">2IB", *density.rounded(1 / _INCH), density.is_absolute)
    if metadata.exif:
        yield b"eXIf", with_density(metadata.exif, density).tobytes().removeprefix(b"Exif\0\0")
    if metadata.xmp:
        yield b"iTXt", _XMP.encode() + bytes(5) + metadata.xmp
    if metadata.iptc:
        content = resources_with(metadata.iptc)
        digits = content.hex()
        lines = "\n".join(digits[start : start + 72] for start in range(0, len(digits), 72))
        text = f"\niptc\n{len(content):8}\n{lines}\n".encode()
        yield b"zTXt", f"{_RAW}iptc".encode() + bytes(2) + zlib.compress(text)
    for entry in metadata.texts:
        yield _text_chunk(entry)


def _text_chunk(text: Text) -> tuple[bytes, bytes]:
    keyword, content = text.keyword.encode("latin-1"), text.text.replace("\0", "\n")
    if not (text.language or text.translated):
        with suppress(UnicodeEncodeError):  # tEXt is Latin-1
            return b"tEXt", keyword + b"\0" + content.encode("latin-1")
    return b"iTXt", keyword + bytes(3) + text.language.encode(
        "latin-1"
    ) + b"\0" + text.translated.encode() + b"\0" + content.encode()
