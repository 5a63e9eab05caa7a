"""ImageNetPairedDataset: training pairs made on the fly from ground truth alone, for pretraining on ImageNet."""

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from basicsr.data.data_util import paths_from_lmdb
from basicsr.data.transforms import augment
from basicsr.utils import FileClient, bgr2ycbcr, imfrombytes, img2tensor
from basicsr.utils.matlab_functions import imresize
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset
from torchvision.transforms.functional import normalize

from drct.data.bicubic import reduce_region
from drct.images.bgr import as_float
from drct.images.listing import list_images


@DATASET_REGISTRY.register()
class ImageNetPairedDataset(Dataset):
    """Pairs of ground truth, read from a folder, a list of files or an LMDB, and the low-resolution image made of it.

    The ground truth is cropped to a multiple of the scale, enlarged (bilinear) where a side is below gt_size, and
    downscaled as a float image by MATLAB's antialiased bicubic. In training, both images are given the same random
    crop, flip and rotation (as in HAT, arXiv:2205.04437), and only the crop is downscaled.

    Args:
        opt: Options of the dataset. Required are `dataroot_gt`, `io_backend` (type: disk or lmdb), `phase` and `scale`;
            in training also `gt_size`, `use_hflip` and `use_rot`. Optional are `meta_info_file` (a list of files
            relative to `dataroot_gt`, one `name (h,w,c)` per line), `color: y`, `mean` and `std`.

    Raises:
        ValueError: if there are no images, or gt_size is not a multiple of the scale.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__()
        self.opt = opt
        self.mean, self.std = opt.get("mean"), opt.get("std")
        self.io_backend_opt = dict(opt["io_backend"])  # the name that BasicSR's datasets use
        self.file_client: FileClient | None = None  # created in the process that reads
        root = opt["dataroot_gt"]
        if self.io_backend_opt["type"] == "lmdb":
            self.io_backend_opt |= {"db_paths": [root], "client_keys": ["gt"]}
            self.paths = paths_from_lmdb(root)
        elif opt.get("meta_info_file"):
            lines = Path(opt["meta_info_file"]).read_text(encoding="utf-8").splitlines()
            self.paths = [str(Path(root, line.rpartition(" (")[0] or line.strip())) for line in lines if line.strip()]
        else:
            self.paths = [str(path) for path in list_images(root, recursive=True)]
        if opt["phase"] == "train" and opt["gt_size"] % opt["scale"]:
            raise ValueError(f"gt_size {opt['gt_size']} is not a multiple of the scale {opt['scale']}")
        if not self.paths:
            raise ValueError(f"there are no images in {root}")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return `lq` (C, h, w) and `gt` (C, h * scale, w * scale), RGB or Y, float32 in about [0, 1].

        `lq_path` and `gt_path` are both the path of the ground truth.

        Raises:
            ValueError: if the image cannot be read.
        """
        path = self.paths[index]
        image = self.prepare(self._read(path))
        if self.opt["phase"] == "train":
            gt, lq = self._random_patch(image)
        else:
            gt = as_float(image)
            lq = imresize(gt, 1 / self.opt["scale"])
        if self.opt.get("color") == "y":
            gt, lq = (bgr2ycbcr(np.ascontiguousarray(image), y_only=True)[..., None] for image in (gt, lq))
        gt, lq = img2tensor([np.ascontiguousarray(gt), np.ascontiguousarray(lq)], bgr2rgb=True, float32=True)
        if self.mean is not None or self.std is not None:
            normalize(lq, self.mean, self.std, inplace=True)
            normalize(gt, self.mean, self.std, inplace=True)
        return {"lq": lq, "gt": gt, "lq_path": path, "gt_path": path}

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Crop a uint8 image to a multiple of the scale; if a side is below gt_size, enlarge it, as float32."""
        height, width = (side - side % self.opt["scale"] for side in image.shape[:2])
        image = image[:height, :width]
        enlarged = tuple(max(side, self.opt.get("gt_size", 0)) for side in (height, width))
        if enlarged == (height, width):
            return image
        return cv2.resize(as_float(image), enlarged[::-1], interpolation=cv2.INTER_LINEAR)

    def _read(self, path: str) -> np.ndarray:
        """Read an image as (H, W, 3) BGR uint8."""
        if self.file_client is None:
            options = dict(self.io_backend_opt)
            self.file_client = FileClient(options.pop("type"), **options)
        data, image = self.file_client.get(path, "gt"), None
        with suppress(AttributeError, TypeError, cv2.error):  # raised by BasicSR if the file cannot be decoded
            image = imfrombytes(data)
        if image is None:
            raise ValueError(f"cannot read image {path}")
        return image

    def _random_patch(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the same random crop of the image and its downscaled version, flipped and rotated alike, float32.

        Random numbers are drawn as BasicSR's `paired_random_crop` and `augment` draw them, in the same order.
        """
        scale, size = self.opt["scale"], self.opt["gt_size"]
        small = size // scale
        top, left = (random.randint(0, side // scale - small) for side in image.shape[:2])
        gt = as_float(image[top * scale :, left * scale :][:size, :size])
        lq = reduce_region(image, scale, top, left, small, small)
        return augment([gt, lq], self.opt["use_hflip"], self.opt["use_rot"])
