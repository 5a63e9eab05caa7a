"""Metadata of every kind in every format: it is found in the result by another reader, or a note names it."""

import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from picture_files import (
    exif_bytes,
    gray_profile,
    pillow_bytes,
    png_bytes,
    scene,
    srgb_profile,
    tifffile_bytes,
    turned,
)
from PIL import ExifTags, Image, IptcImagePlugin, PngImagePlugin

from drct.images import metadata as metadata_module
from drct.images.iptc import in_order, read_resources, records_of, resources_with
from drct.images.metadata import WORDS, Density, Metadata, Text, colour_meaning, fit_metadata
from drct.images.pictures import WRITABLE, Picture, from_pil, read_picture, to_pil, write_picture
from drct.images.xmp import clean_xmp

SCALE = 4
PROFILE = srgb_profile()  # which has the time of its making in it
PQ = bytes((9, 16, 0, 1))  # BT.2020 primaries, perceptual quantizer, RGB, full range
TITLE = "A bird 鳥"
RECORDS = b"\x1c\x02\x05\x00\x05Title\x1c\x02\x50\x00\x06Author"
XMP = (
    "<?xpacket begin='\ufeff' id='W5M0MpCehiHzreSzNTczkc9d'?><x:xmpmeta xmlns:x='adobe:ns:meta/'>"
    "<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description rdf:about=''"
    " xmlns:t='http://ns.adobe.com/tiff/1.0/' xmlns:dc='http://purl.org/dc/elements/1.1/'"
    " xmlns:xmp='http://ns.adobe.com/xap/1.0/' t:ImageWidth='27' xmp:Rating='5'>"
    f"<t:ImageLength>20</t:ImageLength><dc:title>{TITLE}</dc:title>"
    "<xmp:Thumbnails><rdf:Alt><rdf:li>the old picture</rdf:li></rdf:Alt></xmp:Thumbnails>"
    "</rdf:Description></rdf:RDF></x:xmpmeta>\n<?xpacket end='w'?>"
).encode()
KINDS = ("icc_profile", "exif", "xmp", "iptc", "texts", "density", "colour")


def chunk_of(text: str, content: bytes) -> tuple[bytes, bytes]:
    return b"iTXt", text.encode() + bytes(5) + content


def png_source(kind: str, pixels: np.ndarray) -> bytes:
    raw = resources_with(RECORDS)
    chunks = {
        "icc_profile": (b"iCCP", b"x\0\0" + zlib.compress(PROFILE)),
        "exif": (b"eXIf", exif_bytes().removeprefix(b"Exif\0\0")),
        "xmp": chunk_of("XML:com.adobe.xmp", XMP),
        "iptc": (b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(f"\niptc\n{len(raw)}\n{raw.hex()}\n".encode())),
        "texts": chunk_of("Comment", TITLE.encode()),
        "density": (b"pHYs", struct.pack(">2IB", 11811, 11811, 1)),
        "colour": (b"cICP", PQ),
    }
    return png_bytes(pixels, [chunks[kind]])


def tiff_source(kind: str, pixels: np.ndarray) -> bytes | None:
    options: dict = {"photometric": "rgb", "resolution": (300, 300), "resolutionunit": "inch", "software": False}
    if kind == "exif":  # the directories of EXIF are written by Pillow only
        tags = Image.Exif()
        tags.load(exif_bytes())
        tags[ExifTags.Base.Make] = "Müller & 山田".encode()
        return pillow_bytes(pixels, "TIFF", exif=tags) if pixels.dtype == np.uint8 else None
    content = {"icc_profile": (34675, PROFILE), "xmp": (700, XMP), "iptc": (33723, RECORDS)}.get(kind)
    if content:
        options["extratags"] = [(content[0], 7, len(content[1]), content[1], True)]
    elif kind != "density":
        return None
    return tifffile_bytes(pixels, **options)


def jpeg_source(kind: str, pixels: np.ndarray) -> bytes | None:
    segment = b"Photoshop 3.0\0" + resources_with(RECORDS)
    options = {
        "icc_profile": {"icc_profile": PROFILE},
        "exif": {"exif": exif_bytes()},
        "xmp": {"xmp": XMP},
        "iptc": {"extra": b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment},
        "texts": {"comment": TITLE.encode()},
        "density": {"dpi": (300, 300)},
    }
    return pillow_bytes(pixels, "JPEG", **options[kind]) if kind in options else None


def other_source(format: str, kind: str, pixels: np.ndarray) -> bytes | None:
    exif = Image.Exif()
    exif[282] = exif[283] = 300.0
    options = {
        "icc_profile": {"icc_profile": PROFILE},
        "exif": {"exif": exif_bytes()},
        "xmp": {"xmp": XMP},
        "density": {"exif": exif},
    }
    if format == "BMP":
        options = {"density": {"dpi": (300, 300)}}
    if format == "GIF":
        options = {"texts": {"comment": TITLE.encode()}}
    return pillow_bytes(pixels, format, **options[kind]) if kind in options else None


def sources(kind: str) -> dict[str, bytes]:
    """A file of each format that can hold this kind of metadata, by the format's name."""
    pixels, deep = scene(20, 27), scene(20, 27).astype(np.uint16) * 257
    files = {
        "PNG": png_source(kind, pixels),
        "PNG of 16 bits": png_source(kind, deep),
        "gray PNG": png_source(kind, pixels[..., :1]) if kind != "icc_profile" else None,
        "TIFF": tiff_source(kind, pixels),
        "TIFF of 16 bits": tiff_source(kind, deep),
        "JPEG": jpeg_source(kind, pixels),
    }
    for format in ("WEBP", "AVIF", "BMP", "GIF"):
        if format in Image.SAVE:
            files[format] = other_source(format, kind, pixels)
    return {format: data for format, data in files.items() if data}


def holds(path: Path, kind: str) -> bool:
    """Whether Pillow finds the metadata in a file, or a search for its bytes if Pillow cannot read it."""
    with Image.open(path) as image:
        image.load()
        info, exif = image.info, image.getexif()
        if kind == "icc_profile":
            return info.get("icc_profile") == PROFILE
        if kind == "exif":
            return exif.get(ExifTags.Base.Make, "").startswith("M") and exif.get_ifd(ExifTags.IFD.GPSInfo)[1] == "N"
        if kind == "xmp":
            packet = info.get("xmp") or info.get("XML:com.adobe.xmp", "").encode()
            return TITLE.encode() in packet and b"Rating='5'" in packet
        if kind == "iptc":
            if image.format == "PNG":
                lines = info.get("Raw profile type iptc", "").split("\n")
                return RECORDS in bytes.fromhex("".join(lines[3:]))
            return (IptcImagePlugin.getiptcinfo(image) or {}).get((2, 5)) == b"Title"
        if kind == "texts":
            return TITLE in (info.get("Comment", ""), info.get("comment", b"").decode())
        if kind == "density":
            found = info.get("dpi") or (exif.get(282, 0), exif.get(283, 0))
            return found == pytest.approx((300 * SCALE, 300 * SCALE), abs=0.1)
    return b"\0\0\0\4cICP" + PQ in path.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_metadata_is_in_the_result_or_a_note_names_it(kind, suffix, tmp_path):
    source, result = tmp_path / "source", tmp_path / f"result{suffix}"
    written = sources(kind)
    assert written
    for format, data in written.items():
        source.write_bytes(data)
        picture = read_picture(source)
        assert getattr(picture.metadata, kind), format
        enlarged = replace(picture, metadata=picture.metadata.enlarged(SCALE))

        note = "; ".join(filter(None, (picture.note, write_picture(result, enlarged, quality=100))))

        word = "cICP (HDR, PQ)" if kind == "colour" else WORDS[kind]
        assert holds(result, kind) != (word in note), (format, note)
        # nothing else is said to be lost, and the depth of 16 bits is told elsewhere
        others = [other for name, other in WORDS.items() if name != kind and other in note]
        assert not [other for other in others if other != "text" or kind != "texts"], (format, note)
        again = read_picture(result).metadata
        if holds(result, kind) and kind not in ("density", "exif"):
            assert getattr(again, kind) == getattr(enlarged.metadata, kind), format


def test_every_kind_is_in_the_table_of_formats():
    assert set(WORDS) == set(KINDS) == set(vars(Metadata()))
    assert set(metadata_module.HELD) == set(WRITABLE.values())


def test_the_documentation_has_the_table_of_formats():
    page = (ROOT / "docs" / "upscale.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    rows = rows[next(i for i, row in enumerate(rows) if "PNG" in row[1:]) :]
    rows = [row for row in rows if len(row) == len(rows[0])]
    formats = [name.upper() for name in rows[0][1:]]
    said = {tuple(format for format, cell in zip(formats, row[1:], strict=True) if cell) for row in rows[2:]}
    assert said == {tuple(format for format in formats if kind in metadata_module.HELD[format]) for kind in KINDS}


def test_metadata_that_describes_old_pixels_is_taken_out(tmp_path):
    packet = clean_xmp(XMP)
    assert TITLE.encode() in packet
    for old in (b"ImageWidth", b"ImageLength", b"the old picture", b"Thumbnails"):
        assert old in XMP and old not in packet
    assert packet.startswith("<?xpacket begin='\ufeff'".encode()) and packet.endswith(b"<?xpacket end='w'?>")
    assert clean_xmp(packet) == packet
    nothing = b'<x:xmpmeta xmlns:x=\'adobe:ns:meta/\'> <a b="1>2" /><!-- tiff:Orientation="6" --></x:xmpmeta>'
    assert clean_xmp(nothing + b"\0\0") == nothing
    nested = (
        b"<a xmlns:c='http://ns.google.com/photos/1.0/container/' xmlns:h='http://ns.adobe.com/hdr-gain-map/1.0/' "
        b'h:Version="1>0"  k="v"><c:Directory><b><c:Item/></b></c:Directory><c:Item  x="1" /><d/></a>'
    )
    assert clean_xmp(nested).endswith(b'hdr-gain-map/1.0/\'  k="v"><d/></a>')


@pytest.mark.parametrize(
    "packet",
    [
        b"no XML",
        XMP[:-60],
        b"<a>\xff</a>",
        b'<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;&b;">]><a>&d;</a>',
        XMP.decode().encode("utf-16"),
    ],
)
def test_damaged_xmp_is_left_out(packet, tmp_path):
    with pytest.raises(ValueError):
        clean_xmp(packet)
    path = tmp_path / "picture.webp"
    path.write_bytes(pillow_bytes(scene(9, 9), "WEBP", xmp=packet))
    picture = read_picture(path)
    assert picture.metadata.xmp is None
    assert picture.note == "its XMP cannot be read: dropped"


def test_hostile_xmp_takes_no_time():
    many = b"<tiff:Orientation>" * 100_000 + b"</tiff:Orientation>" * 100_000
    packet = b"<a xmlns:tiff='http://ns.adobe.com/tiff/1.0/'>" + many + b"</a>"
    assert clean_xmp(packet) == b"<a xmlns:tiff='http://ns.adobe.com/tiff/1.0/'></a>"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("in_exif", [True, False])
@pytest.mark.parametrize(
    "form", ["tiff:Orientation='6'", 'tiff:Orientation="6"', "<tiff:Orientation>6</tiff:Orientation>"]
)
def test_orientation_is_applied_once(suffix, in_exif, form, tmp_path):
    """Viewers that heed EXIF or XMP show the result as the source."""
    attribute, element = ("", form) if form.endswith(">") else (form, "")
    packet = f"<a xmlns:tiff='http://ns.adobe.com/tiff/1.0/' {attribute}>{element}</a>".encode()
    exif = exif_bytes(6) if in_exif else b""
    source, result = tmp_path / f"source{suffix}", tmp_path / f"result{suffix}"
    stored = np.ascontiguousarray(turned(scene(8, 12), 6))
    if suffix == ".png":
        chunks = [chunk_of("XML:com.adobe.xmp", packet)]
        source.write_bytes(png_bytes(stored, chunks + [(b"eXIf", exif[6:])] * in_exif))
    elif suffix == ".tif":
        tags = [(700, 7, len(packet), packet, True)] + [(274, 3, 1, 6, True)] * in_exif
        source.write_bytes(tifffile_bytes(stored, photometric="rgb", extratags=tags))
    else:
        source.write_bytes(pillow_bytes(stored, WRITABLE[suffix], xmp=packet, exif=exif))

    picture = read_picture(source)
    write_picture(result, picture)

    upright = in_exif or suffix != ".tif"  # in TIFF the tag alone counts
    assert picture.pixels.shape == ((8, 12, 3) if upright else (12, 8, 3))
    assert b"Orientation" not in (picture.metadata.xmp or b"")
    assert b"Orientation" not in result.read_bytes()
    with Image.open(result) as image:
        assert ExifTags.Base.Orientation not in image.getexif()
    assert np.array_equal(read_picture(result).pixels.shape, picture.pixels.shape)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
def test_resolution_keeps_its_axes_and_its_unit(suffix, tmp_path):
    path = tmp_path / f"picture{suffix}"
    turn = np.ascontiguousarray(turned(scene(20, 27), 6))
    for orientation, expected in ((1, (200, 100)), (6, (100, 200))):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        exif[282], exif[283], exif[296] = 200 / 2.54, 100 / 2.54, 3  # pixels per centimetre
        path.write_bytes(pillow_bytes(turn, "JPEG", exif=exif))
        picture = read_picture(path)
        assert picture.metadata.density and picture.metadata.density[:2] == pytest.approx(expected, abs=0.01)
        assert write_picture(path, picture) == ""
        again = read_picture(path).metadata.density
        assert again and again[:2] == pytest.approx(expected, abs=0.02)
    ratio = Picture(turn, metadata=Metadata(density=Density(59, 54, False)).enlarged(4))  # pixels of PAL are not square
    note = write_picture(path, ratio)
    assert ("shape of pixels" in note) == (suffix in (".bmp", ".webp"))
    again = read_picture(path).metadata.density
    if note:
        assert again is None
    else:
        assert again and again.x / again.y == pytest.approx(59 / 54) and not again.is_absolute


def test_resolution_that_is_none_is_left_out(tmp_path):
    path = tmp_path / "picture.png"
    for content in (bytes(9), struct.pack(">2IB", 0, 11811, 1), struct.pack(">2IB", 1, 1, 0)):
        path.write_bytes(png_bytes(scene(4, 4), [(b"pHYs", content)]))
        assert read_picture(path).metadata.density is None
    tags = [(282, 5, 1, (1, 0), True), (283, 5, 1, (1, 0), True)]
    (tmp_path / "a.tif").write_bytes(tifffile_bytes(scene(4, 4), photometric="rgb", extratags=tags))
    assert read_picture(tmp_path / "a.tif").metadata.density is None
    large = Picture(scene(4, 4), metadata=Metadata(density=Density(70_000, 70_000)))
    assert write_picture(tmp_path / "a.jpg", large) == "JPEG has no resolution of 70000 dpi: dropped"


@pytest.mark.parametrize("depth", [8, 16])
def test_a_damaged_chunk_is_left_out_and_the_picture_read(depth, tmp_path):
    pixels = scene(9, 9) if depth == 8 else scene(9, 9).astype(np.uint16) * 257
    path = tmp_path / "picture.png"
    whole = png_bytes(pixels)
    for name, word in (
        (b"iCCP", "colour profile"),
        (b"eXIf", "EXIF"),
        (b"tEXt", "text"),
        (b"zTXt", "text"),
        (b"iTXt", "text"),
        (b"pHYs", "chunk pHYs"),
        (b"cICP", "chunk cICP"),
    ):
        chunk = png_bytes(pixels, [(name, b"some content")])[33 : 33 + 24]
        wrong = chunk[:-1] + bytes([chunk[-1] ^ 1])
        path.write_bytes(whole[:33] + wrong + whole[33:])
        picture = read_picture(path)
        assert np.array_equal(picture.pixels, pixels)
        assert picture.note == f"its {word} cannot be read: dropped"
        assert picture.metadata == Metadata()
    path.write_bytes(png_bytes(pixels, [(b"abCd", b"x"), (b"caBX", b"y"), (b"tIME", b"z"), (b"sBIT", b"\5\5\5")]))
    assert read_picture(path).note == "its chunk abCd and content credentials (C2PA): dropped"


@pytest.mark.parametrize(
    "name", [b"cICP", b"cHRM", b"gAMA", b"sRGB", b"mDCV", b"cLLI", b"pHYs", b"iCCP", b"eXIf", b"tEXt"]
)
def test_a_chunk_of_a_wrong_length_makes_no_result_that_others_cannot_open(name, tmp_path):
    pixels = scene(9, 9)
    for length in (*range(10), 23, 24, 25, 31, 32, 33):
        (tmp_path / "picture.png").write_bytes(png_bytes(pixels, [(name, bytes(length))]))
        picture = read_picture(tmp_path / "picture.png")
        if name not in (b"pHYs", b"eXIf"):  # which may say nothing
            assert picture.metadata != Metadata() or picture.note.startswith("its ")
        write_picture(tmp_path / "result.png", picture)
        with Image.open(tmp_path / "result.png") as image:
            assert np.array_equal(np.asarray(image), pixels)


def test_damaged_metadata_never_loses_the_picture(tmp_path):
    """Change any byte of any metadata of a PNG, TIFF or WebP file: its pixels stay."""
    random = np.random.default_rng(0)
    pixels = scene(9, 9)
    path = tmp_path / "picture"
    for kind in KINDS:
        start, end = 33, len(png_source(kind, pixels)) - len(png_bytes(pixels)) + 33
        for _ in range(40):
            data = bytearray(png_source(kind, pixels))
            place = random.integers(start + 8, end - 4)  # not the length and name
            data[place] = random.integers(256)
            data[end - 4 : end] = struct.pack(">I", zlib.crc32(data[start + 4 : end - 4]))
            path.write_bytes(data)
            picture = read_picture(path)
            assert np.array_equal(picture.pixels, pixels)
            write_picture(tmp_path / "result.png", picture)
            with Image.open(tmp_path / "result.png") as image:
                image.load()


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "TIFF", "TIFF of 16 bits"])
def test_damaged_metadata_never_loses_the_picture_of_other_formats(format, tmp_path):
    random = np.random.default_rng(0)
    path = tmp_path / "picture"
    contents = {"icc_profile": PROFILE, "exif": b"Exif\0\0MM" + bytes(170), "xmp": XMP, "iptc": RECORDS}
    for kind, content in contents.items():
        if not (whole := sources(kind).get(format)):
            continue
        start = whole.find(content[:6])
        for _ in range(30 if start >= 0 else 0):
            data = bytearray(whole)
            for place in random.integers(start, start + len(content) - 8, 3):
                data[place] = random.integers(256)
            path.write_bytes(data)
            assert read_picture(path).pixels.shape == (20, 27, 3)
            write_picture(tmp_path / "result.png", read_picture(path))


def test_texts_keep_their_languages_and_repeated_keywords(tmp_path):
    texts = (
        Text("parameters", "a bird\nSteps: 20"),
        Text("Comment", "first"),
        Text("Comment", "second"),
        Text("Title", "鳥", "ja", "題"),
        Text("Größe", "x" * 70_000),
    )
    path = tmp_path / "a.png"
    assert write_picture(path, Picture(scene(4, 4), metadata=Metadata(texts=texts))) == ""
    assert read_picture(path).metadata.texts == texts
    with Image.open(path) as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        image.load()
        assert image.text["parameters"] == texts[0].text
        assert image.text["Title"].lang == "ja"
    note = write_picture(tmp_path / "a.jpg", read_picture(path))
    assert note == "JPEG has no text but short comments: Größe, Title, parameters dropped"
    kept = read_picture(tmp_path / "a.jpg").metadata.texts
    assert kept == texts[1:3]
    assert write_picture(path, read_picture(tmp_path / "a.jpg")) == ""
    assert read_picture(path).metadata.texts == kept


def test_notes_have_no_characters_that_steer_a_terminal(tmp_path):
    hostile = Metadata(texts=(Text("a\x1b[2J\n", "b"),))
    for suffix in (".jpg", ".webp"):
        assert write_picture(tmp_path / f"a{suffix}", Picture(scene(4, 4), metadata=hostile)).isprintable()
    profile = PROFILE[:16] + b"\x1b[2J" + PROFILE[20:]
    (tmp_path / "a.png").write_bytes(pillow_bytes(scene(4, 4), "PNG", icc_profile=profile))
    note = read_picture(tmp_path / "a.png").note
    assert "colour profile is of ?[2J" in note and note.isprintable()


def test_what_does_not_fit_in_a_segment_of_jpeg_is_told(tmp_path):
    path = tmp_path / "a.jpg"
    for kind, content, limit in (("xmp", XMP, 65504), ("iptc", RECORDS, 65506)):
        for size, fits in ((limit, True), (limit + 1, False)):
            padded = content.ljust(size, b" ")
            note = write_picture(path, Picture(scene(4, 4), metadata=Metadata(**{kind: padded})))
            assert note == ("" if fits else f"JPEG has no room for {size} bytes of {WORDS[kind]}: dropped")
            assert (getattr(read_picture(path).metadata, kind) is not None) == fits


def test_further_parts_of_a_jpeg_are_told(tmp_path):
    def segment(marker: int, data: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data

    paths = b"8BIM" + struct.pack(">HxxI", 2000, 2) + b"xy"
    for extra, note in (
        (segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(40)), "its extended XMP: dropped"),
        (segment(0xEB, b"JP\0\0\0\0\0\0jumbc2pa"), "its content credentials (C2PA): dropped"),
        (segment(0xED, b"Photoshop 3.0\0" + paths), "its Photoshop's paths: dropped"),
        (segment(0xE4, b"of the maker"), "its segment APP4: dropped"),
        (segment(0xE2, b"ICC_PROFILE\0\2\2" + PROFILE), "its colour profile cannot be read: dropped"),
        (segment(0xEE, b"Adobe\0\x64\0\0\0\0\1"), ""),
    ):
        path = tmp_path / "a.jpg"
        path.write_bytes(pillow_bytes(scene(9, 9), "JPEG", extra=extra))
        assert read_picture(path).note == note


def test_raw_profiles_of_imagemagick_are_read_as_what_they_are(tmp_path):
    pixels = np.ascontiguousarray(turned(scene(8, 12), 6))
    path, result = tmp_path / "a.png", tmp_path / "b.png"

    def raw(kind: str, content: bytes) -> tuple[bytes, bytes]:
        text = f"\n{kind}\n{len(content):8}\n{content.hex()}\n".encode()
        return b"zTXt", f"Raw profile type {kind}".encode() + bytes(2) + zlib.compress(text)

    chunks = [raw("exif", exif_bytes(6)), raw("xmp", XMP), raw("icc", PROFILE), raw("8bim", RECORDS)]
    path.write_bytes(png_bytes(pixels, [*chunks, raw("other", b"x")]))
    picture = read_picture(path)
    write_picture(result, picture)
    assert picture.pixels.shape == (8, 12, 3)
    assert picture.note == "its chunk zTXt: dropped"
    assert all(holds(result, kind) for kind in ("exif", "xmp", "icc_profile", "iptc"))
    assert not picture.metadata.texts
    with Image.open(result) as image:
        assert ExifTags.Base.Orientation not in image.getexif()


def test_colour_without_a_profile_is_kept_or_told(tmp_path):
    wide = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    narrow = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    profile = (b"iCCP", b"x\0\0" + zlib.compress(PROFILE))
    gamma = (b"gAMA", struct.pack(">I", 45455))
    for chunks, meaning in (
        ([(b"cICP", PQ), (b"mDCV", bytes(24)), (b"cLLI", bytes(8))], "cICP (HDR, PQ)"),
        ([(b"cICP", bytes((9, 18, 0, 1))), gamma], "cICP (HDR, HLG)"),
        ([(b"cICP", bytes((12, 13, 0, 1)))], "cICP"),
        ([(b"cICP", bytes((1, 13, 0, 1)))], ""),
        ([(b"gAMA", struct.pack(">I", 100_000))], "gAMA"),
        ([gamma, (b"cHRM", wide)], "cHRM"),
        ([(b"gAMA", struct.pack(">I", 55556)), (b"cHRM", wide)], "gAMA or cHRM"),
        ([gamma, (b"cHRM", narrow)], ""),
        ([gamma, (b"sRGB", b"\0")], ""),
        ([profile, (b"gAMA", struct.pack(">I", 55556)), (b"cHRM", wide)], ""),
    ):
        for pixels in (scene(9, 9), scene(9, 9).astype(np.uint16) * 257):
            (tmp_path / "a.png").write_bytes(png_bytes(pixels, chunks))
            picture = read_picture(tmp_path / "a.png")
            assert colour_meaning(picture.metadata) == meaning
            assert write_picture(tmp_path / "b.png", picture) == ""
            data = (tmp_path / "b.png").read_bytes()
            for name, content in chunks:
                assert name == b"iCCP" or name + content in data[: data.index(b"IDAT")]
            expected = f"WEBP has no {meaning}: dropped, so that it will be shown as sRGB" if meaning else ""
            assert fit_metadata(picture.metadata, "WEBP")[1] == ([expected] if expected else [])


def test_a_profile_of_another_colour_model_is_told(tmp_path):
    path = tmp_path / "a.png"
    for pixels, profile, note in (
        (scene(9, 9, 1), PROFILE, "its colour profile is of RGB, its pixels are gray: profile dropped"),
        (scene(9, 9), gray_profile(), "its colour profile is of gray, its pixels are RGB: profile dropped"),
        (scene(9, 9), b"nonsense", "its colour profile cannot be read: dropped"),
        (scene(9, 9), PROFILE[:-100], "its colour profile cannot be read: dropped"),
    ):
        for deep in (pixels, pixels.astype(np.uint16) * 257):
            path.write_bytes(png_bytes(deep, [(b"iCCP", b"x\0\0" + zlib.compress(profile))]))
            picture = read_picture(path)
            assert (picture.metadata.icc_profile, picture.note) == (None, note)
        path.with_suffix(".tif").write_bytes(
            tifffile_bytes(
                pixels if pixels.shape[2] == 3 else pixels[..., 0],
                photometric="rgb" if pixels.shape[2] == 3 else "minisblack",
                extratags=[(34675, 7, len(profile), profile, True)],
            )
        )
        assert read_picture(path.with_suffix(".tif")).note == note


def test_iptc_blocks_and_orders():
    blocks = read_resources(
        b"8BIM" + struct.pack(">HB", 1005, 3) + b"abc" + struct.pack(">I", 3) + b"xyz\0" + resources_with(RECORDS)
    )
    assert blocks == {1005: b"xyz", 1028: RECORDS}
    assert records_of(blocks) == (RECORDS, [])
    assert read_resources(resources_with(RECORDS)[:-2]) == {}
    records = RECORDS + b"\0" * (-len(RECORDS) % 4)
    exchanged = np.frombuffer(records, ">u4").astype("<u4").tobytes()
    assert in_order(exchanged) == in_order(records) == records


def test_sizes_of_panoramas_grow_with_them():
    packet = b'<a GPano:FullPanoWidthPixels="4000"><GPano:CroppedAreaTopPixels>7</GPano:CroppedAreaTopPixels></a>'
    larger = Metadata(xmp=packet).enlarged(2.5).xmp
    expected = b'<a GPano:FullPanoWidthPixels="10000"><GPano:CroppedAreaTopPixels>18</GPano:CroppedAreaTopPixels></a>'
    assert larger == expected


def test_pillow_images_keep_their_metadata():
    image = Image.fromarray(scene(9, 9))
    image.info |= {"icc_profile": PROFILE, "exif": exif_bytes(), "xmp": XMP, "dpi": (300, 300)}
    back = to_pil(from_pil(image))
    assert back.info["icc_profile"] == PROFILE
    assert back.info["xmp"] == clean_xmp(XMP)
    assert back.info["dpi"] == (300, 300)
    assert "Müller & 山田".encode() in back.info["exif"]
