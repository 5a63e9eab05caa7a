"""A cache of decoded images in memory, for training runs that are slowed down by decoding PNG files."""

from typing import Any

import cv2
import numpy as np
from basicsr.utils import FileClient

from drct.errors import DRCTError


class DecodedFiles:
    """A file client that decodes every image once and then returns it uncompressed, as the bytes of a BMP file.

    The dataset decodes these bytes like any file, which for BMP is no more than a copy. It gets the same pixels as from
    the original file, because BasicSR's datasets read images as 8-bit BGR (`imfrombytes` with the flag `color`).

    Args:
        client: The client that reads files, or None to create it from `options` when it is first needed.
        options: BasicSR's `io_backend` options.
    """

    def __init__(self, client: FileClient | None, options: dict[str, Any]) -> None:
        self.client = client
        self.options = options
        self.images: dict[tuple[str, str], bytes] = {}

    def get(self, filepath: Any, client_key: str = "default") -> Any:
        """Return an image as BMP. A file that is not an image is returned as it is and not cached."""
        key = (client_key, str(filepath))
        if key not in self.images:
            data = self._reader().get(filepath, client_key)
            # Empty files, and keys that are not in the LMDB, have no data
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
            if image is None:
                return data
            self.images[key] = cv2.imencode(".bmp", image)[1].tobytes()
        return self.images[key]

    def get_text(self, filepath: Any) -> str:
        """Read a text file, without caching it."""
        return self._reader().get_text(filepath)

    def _reader(self) -> FileClient:
        if self.client is None:
            options = dict(self.options)
            self.client = FileClient(options.pop("type"), **options)
        return self.client

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the client (an open LMDB cannot be pickled) and the images: each loader worker has its own."""
        return {"client": None, "options": self.options, "images": {}}


def cache_images(dataset: Any) -> None:
    """Make a dataset keep its decoded images in memory, which takes 3 bytes per pixel in each loader worker.

    It must read files by `self.file_client.get(path, client_key)`, as BasicSR's do. The client may exist already, or be
    None until the dataset creates it from `self.io_backend_opt`.

    Raises:
        DRCTError: if the dataset reads files in another way.
    """
    client = getattr(dataset, "file_client", None)
    options = dict(getattr(dataset, "io_backend_opt", None) or {})
    if client is not None and hasattr(client, "backend"):
        options["type"] = client.backend  # BasicSR's datasets remove it when they create the client
    if isinstance(client, DecodedFiles):
        return
    if not hasattr(dataset, "file_client") or "type" not in options:
        raise DRCTError(
            f"the images of {type(dataset).__name__} cannot be cached, because it does not read them with BasicSR's "
            "file client: remove `cache: true` from its options"
        )
    dataset.file_client = DecodedFiles(client, options)
