"""ImageNetPairedDataset: training pairs made on the fly from ground truth alone, for pretraining on ImageNet."""

import random
from typing import Any

import cv2
import numpy as np
from basicsr.data.transforms import augment
from basicsr.utils import bgr2ycbcr
from basicsr.utils.matlab_functions import imresize
from basicsr.utils.registry import DATASET_REGISTRY

from drct.data.bicubic import reduce_region
from drct.data.ground_truth import GroundTruthDataset
from drct.errors import DRCTError
from drct.images.bgr import as_float


@DATASET_REGISTRY.register()
class ImageNetPairedDataset(GroundTruthDataset):
    """Pairs of ground truth, read from a folder, a list of files or an LMDB, and the low-resolution image made of it.

    The ground truth is cropped to a multiple of the scale, enlarged (bilinear) where a side is below gt_size, and
    downscaled as a float image by MATLAB's antialiased bicubic. In training, both images are given the same random
    crop, flip and rotation (as in HAT, arXiv:2205.04437), and only the crop is downscaled.

    Args:
        opt: Options of the dataset. Required are `dataroot_gt`, `io_backend` (type: disk or lmdb), `phase` and `scale`;
            in training also `gt_size`, `use_hflip` and `use_rot`. Optional are `meta_info_file` (a list of files
            relative to `dataroot_gt`, one `name (h,w,c)` per line), `color: y`, `mean` and `std`.

    Raises:
        DRCTError: if there are no images.
        ValueError: if gt_size is not a multiple of the scale.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        if opt["phase"] == "train" and opt["gt_size"] % opt["scale"]:
            raise ValueError(f"gt_size {opt['gt_size']} is not a multiple of the scale {opt['scale']}")

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return `lq` (C, h, w) and `gt` (C, h * scale, w * scale), RGB or Y, float32 in about [0, 1].

        `lq_path` and `gt_path` are both the path of the ground truth.

        Raises:
            DRCTError: if the image cannot be read, or is too small to be reduced.
        """
        path = self.paths[index]
        original = self._read(path, "gt")
        image = self.prepare(original) if min(original.shape[:2]) >= self.opt["scale"] else original
        if min(image.shape[:2]) < 2 * self.opt["scale"]:  # the filter reaches that far
            size = f"{original.shape[1]}x{original.shape[0]}"
            raise DRCTError(
                f"{path} is {size}, too small to be reduced {self.opt['scale']} times: take it out of the set"
            )
        if self.opt["phase"] == "train":
            gt, lq = self._random_patch(image)
        else:
            gt = as_float(image)
            lq = imresize(gt, 1 / self.opt["scale"])
        if self.opt.get("color") == "y":
            gt, lq = (bgr2ycbcr(np.ascontiguousarray(image), y_only=True)[..., None] for image in (gt, lq))
        tensors = dict(zip(("gt", "lq"), self._tensors(gt, lq), strict=True))
        return tensors | {"lq_path": path, "gt_path": path}

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Crop a uint8 image to a multiple of the scale; if a side is below gt_size, enlarge it, as float32."""
        height, width = (side - side % self.opt["scale"] for side in image.shape[:2])
        image = image[:height, :width]
        enlarged = tuple(max(side, self.opt.get("gt_size", 0)) for side in (height, width))
        if enlarged == (height, width):
            return image
        return cv2.resize(as_float(image), enlarged[::-1], interpolation=cv2.INTER_LINEAR)

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
