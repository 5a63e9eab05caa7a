"""Datasets that read ground truth only, and make the rest of a training pair themselves."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from basicsr.data.data_util import paths_from_lmdb
from basicsr.utils import FileClient, imfrombytes
from torch.utils.data import Dataset

from drct.images.listing import list_images


class GroundTruthDataset(Dataset):
    """Ground truth of a folder, a list of files or an LMDB.

    Args:
        opt: Options of the dataset. Required are `dataroot_gt` and `io_backend` (type: disk or lmdb). Optional is
            `meta_info_file` or `meta_info`, a list of files relative to `dataroot_gt`, one `name (h,w,c)` per line.

    Raises:
        ValueError: if there are no images.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__()
        self.opt = opt
        self.io_backend_opt = dict(opt["io_backend"])  # the name that BasicSR's datasets use
        self.file_client: FileClient | None = None  # created in the process that reads
        root, list_file = opt["dataroot_gt"], opt.get("meta_info_file") or opt.get("meta_info")
        if self.io_backend_opt["type"] == "lmdb":
            self.io_backend_opt |= {"db_paths": [root], "client_keys": ["gt"]}
            self.paths = paths_from_lmdb(root)
        elif list_file:
            lines = Path(list_file).read_text(encoding="utf-8").splitlines()
            self.paths = [str(Path(root, line.rpartition(" (")[0] or line.strip())) for line in lines if line.strip()]
        else:
            self.paths = [str(path) for path in list_images(root, recursive=True)]
        if not self.paths:
            raise ValueError(f"there are no images in {root}")

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, path: str) -> np.ndarray:
        """Read an image as (H, W, 3) BGR uint8. Raises `ValueError` if it cannot be read."""
        if self.file_client is None:
            options = dict(self.io_backend_opt)
            self.file_client = FileClient(options.pop("type"), **options)
        data, image = self.file_client.get(path, "gt"), None
        with suppress(AttributeError, TypeError, cv2.error):  # raised by BasicSR if the file cannot be decoded
            image = imfrombytes(data)
        if image is None:
            raise ValueError(f"cannot read image {path}")
        return image
