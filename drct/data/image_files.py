"""What datasets of image files share: reading them through BasicSR's file client, and making tensors of them."""

from typing import Any

import numpy as np
import torch
from basicsr.utils import FileClient, img2tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import normalize

from drct.errors import DRCTError
from drct.images.bgr import decode_image


class ImageFiles(Dataset):
    """Base of datasets that read image files or an LMDB of them. Subclasses set `paths` and `io_backend_opt`.

    Args:
        opt: Options of the dataset, as BasicSR's datasets take them.
    """

    paths: list[Any]

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__()
        self.opt = opt
        self.mean, self.std = opt.get("mean"), opt.get("std")
        self.io_backend_opt = dict(opt["io_backend"])  # the name that BasicSR's datasets use
        self.file_client: FileClient | None = None  # created in the process that reads

    def __len__(self) -> int:
        return len(self.paths)

    def _read(self, path: str, kind: str) -> np.ndarray:
        """Read an image, `gt` or `lq`, as (H, W, 3) BGR uint8. Raises `DRCTError` if it cannot be read."""
        if self.file_client is None:
            options = dict(self.io_backend_opt)
            self.file_client = FileClient(options.pop("type"), **options)
        try:
            data = self.file_client.get(path, kind)
        except OSError as error:
            raise DRCTError(f"cannot read image {path}: {error.strerror or error}") from error
        return decode_image(data, path, thorough=self.opt["phase"] != "train")

    def _tensors(self, *images: np.ndarray) -> list[torch.Tensor]:
        """Convert float images (H, W, C), BGR or Y, to (C, H, W), RGB or Y, and subtract `mean`, divide by `std`."""
        tensors = img2tensor([np.ascontiguousarray(image) for image in images], bgr2rgb=True, float32=True)
        if self.mean is not None or self.std is not None:
            for tensor in tensors:
                normalize(tensor, self.mean, self.std, inplace=True)
        return tensors
