"""Decoded images kept in memory, for sets that fit: a training run that waits for PNG files to be decoded."""

from typing import Any

import cv2
import numpy as np
from basicsr.utils import FileClient

from drct.errors import DRCTError


class DecodedFiles:
    """A file client that decodes each image once and then gives it uncompressed, as the bytes of a BMP file.

    The dataset decodes those as it decodes any file, which for BMP is a copy, and gets the same pixels as from the
    image itself: (H, W, 3), BGR, uint8, gray repeated, alpha dropped, 16 bits reduced to 8, which is how BasicSR's
    datasets read images (`imfrombytes` with its flag `color`).

    Args:
        client: The client that reads, or None to make it from `options` at the first reading.
        options: BasicSR's `io_backend` options.
    """

    def __init__(self, client: FileClient | None, options: dict[str, Any]) -> None:
        self.client = client
        self.options = options
        self.images: dict[tuple[str, str], bytes] = {}

    def get(self, filepath: Any, client_key: str = "default") -> Any:
        """The image as BMP; what is no image, as it is and read anew each time."""
        key = (client_key, str(filepath))
        if key not in self.images:
            data = self._reader().get(filepath, client_key)
            bitmap = _bitmap(data)
            if bitmap is None:
                return data
            self.images[key] = bitmap
        return self.images[key]

    def get_text(self, filepath: Any) -> str:
        """A text file, which is not kept."""
        return self._reader().get_text(filepath)

    def _reader(self) -> FileClient:
        if self.client is None:
            options = dict(self.options)
            self.client = FileClient(options.pop("type"), **options)
        return self.client

    def __getstate__(self) -> dict[str, Any]:
        """A loader's worker opens its own client (an open LMDB cannot be sent to it) and has images of its own."""
        return {"client": None, "options": self.options, "images": {}}


def cache_images(dataset: Any) -> None:
    """Let a dataset of BasicSR keep its decoded images in memory: 3 bytes per pixel, in each loader worker.

    Args:
        dataset: One that reads by `self.file_client.get(path, client_key)`, made already or, as usual, by the first
            reading from `self.io_backend_opt`.

    Raises:
        DRCTError: if it reads otherwise.
    """
    client = getattr(dataset, "file_client", None)
    options = dict(getattr(dataset, "io_backend_opt", None) or {})
    if client is not None and hasattr(client, "backend"):
        options["type"] = client.backend  # BasicSR's datasets take it out when they make the client
    if isinstance(client, DecodedFiles):
        return
    if not hasattr(dataset, "file_client") or "type" not in options:
        raise DRCTError(
            f"the images of {type(dataset).__name__} cannot be cached, because it does not read them by BasicSR's "
            "file client: remove `cache: true` from its options"
        )
    dataset.file_client = DecodedFiles(client, options)


def _bitmap(data: Any) -> bytes | None:
    if not data:  # a key that an LMDB does not have, an empty file
        return None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else cv2.imencode(".bmp", image)[1].tobytes()
