"""XMP packets: XML about a picture, without what does not hold for the picture that results from it."""

import re
from xml.parsers import expat

_LARGEST = 16_000_000  # bytes
# Properties that are removed, by the address of their namespace: sizes, orientation and storage of the pixels,
# thumbnails, and references to data that other parts of the file hold
_REMOVED = {
    "http://ns.adobe.com/tiff/1.0/": re.compile(
        r"Orientation|ImageWidth|ImageLength|[XY]Resolution|ResolutionUnit|Compression|BitsPerSample|SamplesPerPixel"
        r"|PhotometricInterpretation|PlanarConfiguration|YCbCr\w+"
    ),
    "http://ns.adobe.com/exif/1.0/": re.compile(r"Pixel[XY]Dimension"),
    "http://ns.adobe.com/xap/1.0/": re.compile(r"Thumbnails"),
    "http://ns.adobe.com/xmp/note/": re.compile(r"HasExtendedXMP"),
    "http://ns.adobe.com/hdr-gain-map/1.0/": re.compile(r"\w+"),
    "http://ns.google.com/photos/1.0/container/": re.compile(r"\w+"),
    "http://ns.google.com/photos/1.0/camera/": re.compile(r"MicroVideo\w*|MotionPhoto\w*"),
}
_ORIENTATION = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])")
_TAG = re.compile(rb"<[^\s/>]+((?:\s+[^\s=/>]+\s*=\s*(?:\"[^\"]*\"|'[^']*'))*)\s*/?>")
_ATTRIBUTE = re.compile(rb"\s+([^\s=:/>]+):([^\s=/>]+)\s*=\s*(?:\"[^\"]*\"|'[^']*')")
_PANORAMA = re.compile(rb"(GPano:\w+Pixels\s*(?:=\s*[\"']|>)\s*)(\d{1,9})(?![\d.])")


def read_orientation(packet: bytes | None) -> int:
    """Return the EXIF orientation that a packet names, 1 to 8, or 1 if it names none."""
    match = _ORIENTATION.search(packet or b"")
    return int(match[1]) if match else 1


def clean_xmp(packet: bytes) -> bytes:
    """Remove properties that do not hold for a result, and leave everything else as it is, byte by byte.

    Raises:
        ValueError: if it is not XML in UTF-8, declares a document type, or is longer than 16 MB.
    """
    packet = packet.rstrip(b"\0")
    if len(packet) > _LARGEST:
        raise ValueError("too long")
    packet.decode("utf-8")
    spans = _Spans(packet)
    try:
        spans.parser.Parse(packet, True)
    except expat.ExpatError as error:
        raise ValueError(str(error)) from error
    kept, position = [], 0
    for start, end in sorted(spans.removed):
        if start >= position:  # else within an element that is removed
            kept.append(packet[position:start])
            position = end
    return b"".join([*kept, packet[position:]])


def scale_panorama(packet: bytes, factor: float) -> bytes:
    """Multiply the sizes in pixels that describe a panorama (GPano), which its viewers rely on."""
    return _PANORAMA.sub(lambda match: match[1] + b"%d" % round(int(match[2]) * factor), packet)


class _Spans:
    """Finds the positions of elements and attributes to remove."""

    def __init__(self, packet: bytes) -> None:
        self.removed: list[tuple[int, int]] = []
        self.packet = packet
        self.addresses: dict[str, str] = {}  # by prefix
        self.open: list[tuple[int, bool]] = []  # start of each open element, and whether it is to be removed
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.StartNamespaceDeclHandler = self.declare
        self.parser.StartDoctypeDeclHandler = self.refuse

    def declare(self, prefix: str | None, address: str) -> None:
        self.addresses[prefix or ""] = address

    def refuse(self, *_: object) -> None:
        raise ValueError("a document type is declared")  # which could define entities without end

    def start(self, name: str, attributes: dict[str, str]) -> None:
        position = self.parser.CurrentByteIndex
        address, _, local = name.rpartition(" ")
        self.open.append((position, _is_removed(address, local)))
        tag = _TAG.match(self.packet, position)
        for match in _ATTRIBUTE.finditer(self.packet, *tag.span(1)) if tag and attributes else ():
            if _is_removed(self.addresses.get(match[1].decode(), ""), match[2].decode()):
                self.removed.append(match.span())

    def end(self, name: str) -> None:
        start, removed = self.open.pop()
        if removed:
            position = self.parser.CurrentByteIndex
            is_tag = self.packet.startswith(b"</", position)  # else an empty element ends here
            self.removed.append((start, self.packet.index(b">", position) + 1 if is_tag else position))


def _is_removed(address: str, name: str) -> bool:
    pattern = _REMOVED.get(address)
    return bool(pattern and pattern.fullmatch(name))
