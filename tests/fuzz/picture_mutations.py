"""Mutations of picture files: of any bytes, and of the parts that PNG, JPEG, TIFF and RIFF files consist of."""

import random
import struct
import zlib
from collections.abc import Callable

NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    9,
    16,
    24,
    32,
    255,
    256,
    1000,
    32767,
    32768,
    65535,
    10**5,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
PNG_SIGN = b"\x89PNG\r\n\x1a\n"


def mutate(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Return a mutated file, and the mutations in words."""
    words = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        special = next((change for sign, change in BY_SIGN.items() if data.startswith(sign)), None)
        change = special if special and rng.random() < 0.6 else rng.choice(ANY)
        data, what = change(data, rng)
        words.append(what)
    return data, "; ".join(words)


def _bytes_changed(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    changed, count = bytearray(data), rng.choice((1, 1, 3, 20, 200))
    for _ in range(count):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed), f"{count} bytes changed"


def _bit_changed(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    changed, at = bytearray(data), rng.randrange(max(1, len(data)))
    if changed:
        changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed), f"a bit of byte {at} changed"


def _cut(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    at = rng.randrange(len(data) + 1)
    return data[:at], f"cut after {at} of {len(data)} bytes"


def _header_number(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    at, number = rng.randrange(min(len(data), 100) + 1), rng.choice(NUMBERS)
    size, order = rng.choice("HI"), rng.choice("<>")
    new = struct.pack(order + size, number & (0xFFFF if size == "H" else 0xFFFFFFFF))
    return data[:at] + new + data[at + len(new) :], f"number {number} at {at}"


def _part(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    part = data[a:b]
    new = {
        "removed": b"",
        "twice": part * 2,
        "zero": bytes(len(part)),
        "255": b"\xff" * len(part),
        "turned": part[::-1],
    }
    what = rng.choice(list(new))
    return data[:a] + new[what] + data[b:], f"bytes {a} to {b}: {what}"


def _inserted(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    at, count = rng.randrange(len(data) + 1), rng.choice((1, 4, 100, 5000))
    return data[:at] + rng.randbytes(count) + data[at:], f"{count} bytes inserted at {at}"


Chunks = list[tuple[bytes, bytes]]


def _shuffle(chunks: Chunks, rng: random.Random) -> str:
    """Drop, repeat, move or change a part of a file that consists of named parts."""
    if not chunks:
        return "no parts"
    at = rng.randrange(len(chunks))
    name, content = chunks[at]
    what = rng.choice(("dropped", "twice", "moved", "content changed", "content cut", "empty", "renamed", "number"))
    if what == "dropped":
        del chunks[at]
    elif what == "twice":
        chunks.insert(rng.randrange(len(chunks) + 1), chunks[at])
    elif what == "moved":
        chunks.insert(rng.randrange(len(chunks)), chunks.pop(at))
    elif what == "renamed":
        chunks[at] = rng.choice(chunks)[0], content
    else:
        changes = {"content changed": _bytes_changed, "content cut": _cut, "number": _header_number}
        chunks[at] = name, changes[what](content, rng)[0] if what in changes else b""
    return f"{name!r} {what}"


def _png(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    chunks: Chunks = []
    at = len(PNG_SIGN)
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    what = rng.choice(("header", "extra", "parts", "parts", "length", "checksum"))
    if what == "header" and chunks and len(chunks[0][1]) == 13:
        fields = list(struct.unpack(">2I5B", chunks[0][1]))
        field = rng.randrange(7)
        fields[field] = rng.choice(NUMBERS) if field < 2 else rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 32, 255))
        chunks[0] = chunks[0][0], struct.pack(">2I5B", *fields)
        words = f"IHDR {fields}"
    elif what == "extra":
        name, content = rng.choice(PNG_EXTRAS)
        content = content if rng.random() < 0.7 else _bytes_changed(content, rng)[0]
        chunks.insert(rng.randrange(len(chunks) + 1), (name, content))
        words = f"{name!r} added"
    else:
        words = _shuffle(chunks, rng)
    wrong = rng.randrange(max(1, len(chunks))) if what in ("length", "checksum") else -1
    file = bytearray(PNG_SIGN)
    for i, (name, content) in enumerate(chunks):
        length = rng.choice(NUMBERS) if i == wrong and what == "length" else len(content)
        checksum = zlib.crc32(name + content) ^ (i == wrong and what == "checksum")
        file += struct.pack(">I", length) + name + content + struct.pack(">I", checksum)
    return bytes(file), f"{words}, {what} of {wrong}" if wrong >= 0 else words


PNG_EXTRAS: Chunks = [
    *(
        (b"tRNS", b""),
        (b"tRNS", b"\0\1"),
        (b"tRNS", b"\0" * 6),
        (b"tRNS", b"\0" * 300),
        (b"PLTE", b"\1\2\3"),
        (b"PLTE", b"\1"),
    ),
    *(
        (b"eXIf", b"MM\0*\0\0\0\x08\xff\xff"),
        (b"eXIf", b""),
        (b"iCCP", b"x\0\0" + zlib.compress(b"short")),
        (b"iCCP", b"x"),
    ),
    *((b"gAMA", b"\0\0\0\0"), (b"gAMA", b"\xff" * 4), (b"gAMA", b""), (b"cHRM", b"\0" * 32), (b"cHRM", b"\xff" * 32)),
    *(
        (b"cICP", b"\x09\x10\0\1"),
        (b"cICP", b""),
        (b"sRGB", b"\xff"),
        (b"sRGB", b""),
        (b"pHYs", b"\0" * 9),
        (b"pHYs", b"\xff" * 9),
    ),
    *(
        (b"pHYs", b"\0"),
        (b"sBIT", b"\5\6\5"),
        (b"sBIT", b"\0"),
        (b"bKGD", b"\0"),
        (b"acTL", b"\0\0\0\5\0\0\0\0"),
        (b"acTL", b""),
    ),
    *(
        (b"fcTL", b"\0" * 26),
        (b"fdAT", b"\0\0\0\1x"),
        (b"tEXt", b"Comment\0\xff\xfe"),
        (b"tEXt", b""),
        (b"tEXt", b"x" * 5000),
    ),
    *(
        (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10**6))),
        (b"zTXt", b"c\0\7x"),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>"),
    ),
    *(
        (b"iTXt", b"a\0\1\0\0\0broken"),
        (b"tIME", b"\xff" * 7),
        (b"hIST", b""),
        (b"IDAT", b""),
        (b"IDAT", zlib.compress(b"\0" * 9)),
    ),
    *((b"IEND", b""), (b"abcD", b"any"), (b"ABCD", b"critical"), (b"\0\0\0\0", b"")),
]


def _jpeg(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    chunks: Chunks = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        length = max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
        chunks.append((data[at : at + 2], data[at + 4 : at + 2 + length]))
        at += 2 + length
    rest = data[at:]
    frames = [i for i, (name, _) in enumerate(chunks) if name in (b"\xff\xc0", b"\xff\xc2")]
    if frames and rng.random() < 0.3:
        name, content = chunks[frames[0]]
        field = rng.choice((0, 1, 3, 5, 6, 7, 8, 9))
        number = rng.choice((0, 1, 2, 3, 8, 12, 17, 34, 255))
        new = struct.pack(">H", rng.choice(NUMBERS) & 0xFFFF) if field in (1, 3) else bytes([number])
        chunks[frames[0]] = name, content[:field] + new + content[field + len(new) :]
        words = f"frame header, byte {field} = {new.hex()}"
    elif rng.random() < 0.3:
        name, content = rng.choice(JPEG_EXTRAS)
        chunks.insert(rng.randrange(len(chunks) + 1), (name, content))
        words = f"{name.hex()} {content[:12]!r} added"
    else:
        words = _shuffle(chunks, rng)
    parts = [name + struct.pack(">H", min(65535, len(content) + 2)) + content[:65533] for name, content in chunks]
    return b"\xff\xd8" + b"".join(parts) + rest, words


JPEG_EXTRAS: Chunks = [
    *(
        (b"\xff\xe1", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"),
        (b"\xff\xe1", b"Exif\0\0"),
        (b"\xff\xe1", b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x63\0\0\0"),
    ),
    *(
        (b"\xff\xe1", b"http://ns.adobe.com/xap/1.0/\0<broken"),
        (b"\xff\xe2", b"ICC_PROFILE\0\1\2x"),
        (b"\xff\xe2", b"ICC_PROFILE\0"),
    ),
    *(
        (b"\xff\xe2", b"ICC_PROFILE\0\0\0"),
        (b"\xff\xe2", b"MPF\0MM\0*\0\0\0\x08\0\0"),
        (b"\xff\xed", b"Photoshop 3.0\08BIM\4\4\0\0\xff\xff\xff\xff"),
    ),
    *(
        (b"\xff\xee", b"Adobe\0\x64\0\0\0\0\2"),
        (b"\xff\xee", b"Adobe\0\x64\0\0\0\0\0"),
        (b"\xff\xdd", b"\0\1"),
        (b"\xff\xfe", b"\xff\xfe\0"),
    ),
    *(
        (b"\xff\xe0", b"JFIF\0\1\2\1\0\0\0\0\0\0"),
        (b"\xff\xe0", b""),
        (b"\xff\xdb", b"\0" * 65),
        (b"\xff\xc4", b"\0" * 17),
    ),
]


def _tiff(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    order = "<" if data[:2] == b"II" else ">"
    file = bytearray(data)
    if len(file) < 10 or data[2:4] not in (b"*\0", b"\0*"):  # BigTIFF too
        return _header_number(data, rng)
    at = struct.unpack_from(order + "I", file, 4)[0]
    if at + 2 > len(file):
        return _bytes_changed(data, rng)
    count = struct.unpack_from(order + "H", file, at)[0]
    if rng.random() < 0.1 and at + 6 + 12 * count <= len(file):
        following = rng.choice((at, 8, 0, len(file), rng.randrange(len(file))))
        struct.pack_into(order + "I", file, at + 2 + 12 * count, following)
        return bytes(file), f"next page at {following}"
    entry = at + 2 + 12 * rng.randrange(max(1, count))
    if entry + 12 > len(file):
        return _bytes_changed(data, rng)
    tag, kind, number, value = struct.unpack_from(order + "2H2I", file, entry)
    what = rng.choice(("tag", "kind", "number", "value", "value", "value"))
    if what == "tag":
        tag = rng.choice(
            (
                254,
                256,
                257,
                258,
                259,
                262,
                266,
                273,
                274,
                277,
                278,
                279,
                284,
                317,
                320,
                322,
                323,
                330,
                338,
                339,
                34675,
                700,
                0,
            )
        )
    elif what == "kind":
        kind = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 16, 17, 255))
    elif what == "number":
        number = rng.choice(NUMBERS)
    else:
        value = rng.choice((*NUMBERS, 5, 6, 32773, 32946, 34712, 50001, value + 1, value * 2)) & 0xFFFFFFFF
        if kind == 3 and order == ">":
            value = (value & 0xFFFF) << 16
    struct.pack_into(order + "2H2I", file, entry, tag, kind, number, value)
    return bytes(file), f"tag {tag}, type {kind}, count {number}, value {value}"


def _riff(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    chunks: Chunks = []
    at = 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        chunks.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    words = _shuffle(chunks, rng)
    parts = [name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2) for name, content in chunks]
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body, words


Change = Callable[[bytes, random.Random], tuple[bytes, str]]
ANY: list[Change] = [_bytes_changed, _bit_changed, _cut, _header_number, _header_number, _part, _inserted]
BY_SIGN: dict[bytes, Change] = {PNG_SIGN: _png, b"\xff\xd8": _jpeg, b"II": _tiff, b"MM": _tiff, b"RIFF": _riff}
