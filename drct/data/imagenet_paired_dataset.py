"""ImageNetPairedDataset: pairs made on the fly from ground truth images alone, for pretraining on ImageNet."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from basicsr.data.data_util import paths_from_lmdb
from basicsr.data.transforms import augment, mod_crop, paired_random_crop
from basicsr.utils import FileClient, bgr2ycbcr, imfrombytes, img2tensor
from basicsr.utils.matlab_functions import imresize
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset
from torchvision.transforms.functional import normalize

from drct.data.images import list_images


@DATASET_REGISTRY.register()
class ImageNetPairedDataset(Dataset):
    """Ground truth from a folder, a list of files or an LMDB; the low-resolution image is computed.

    The ground truth is cropped to a multiple of the scale, enlarged (bilinear) where a side is below gt_size, and
    reduced by MATLAB's antialiased bicubic as a float image. Training then takes the same random patch, flip and
    rotation of both. (As in HAT, arXiv:2205.04437.)

    Args:
        opt: Options of the dataset: `dataroot_gt`; `io_backend` (type: disk or lmdb); optional `meta_info_file`, a
            list of files relative to `dataroot_gt`, one `name (h,w,c)` per line; `phase`, `scale`; `gt_size`,
            `use_hflip`, `use_rot` in training; optional `color: y`, `mean`, `std`.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__()
        self.opt = opt
        self.mean, self.std = opt.get("mean"), opt.get("std")
        self.backend = dict(opt["io_backend"])
        self.file_client: FileClient | None = None  # made in the process that reads
        root = opt["dataroot_gt"]
        if self.backend["type"] == "lmdb":
            self.backend |= {"db_paths": [root], "client_keys": ["gt"]}
            self.paths = paths_from_lmdb(root)
        elif opt.get("meta_info_file"):
            lines = Path(opt["meta_info_file"]).read_text(encoding="utf-8").splitlines()
            self.paths = [str(Path(root, line.rpartition(" (")[0] or line.strip())) for line in lines if line.strip()]
        else:
            self.paths = [str(path) for path in list_images(root, recursive=True)]
        if not self.paths:
            raise ValueError(f"there are no images in {root}")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One pair: `lq` (C, h, w) and `gt` (C, h * scale, w * scale), RGB or Y, float32 in about [0, 1]; paths."""
        path, scale = self.paths[index], self.opt["scale"]
        gt = self._read(path)
        gt = mod_crop(gt, scale)
        height, width = (max(side, self.opt.get("gt_size", 0)) for side in gt.shape[:2])
        if (height, width) != gt.shape[:2]:
            gt = cv2.resize(gt, (width, height), interpolation=cv2.INTER_LINEAR)
        lq = np.ascontiguousarray(imresize(gt, 1 / scale))  # in place flips need it
        if self.opt["phase"] == "train":
            gt, lq = paired_random_crop(gt, lq, self.opt["gt_size"], scale, path)
            gt, lq = augment([gt, lq], self.opt["use_hflip"], self.opt["use_rot"])
        if self.opt.get("color") == "y":
            gt, lq = (bgr2ycbcr(np.ascontiguousarray(image), y_only=True)[..., None] for image in (gt, lq))
        gt, lq = img2tensor([np.ascontiguousarray(gt), np.ascontiguousarray(lq)], bgr2rgb=True, float32=True)
        if self.mean is not None or self.std is not None:
            normalize(lq, self.mean, self.std, inplace=True)
            normalize(gt, self.mean, self.std, inplace=True)
        return {"lq": lq, "gt": gt, "lq_path": path, "gt_path": path}

    def _read(self, path: str) -> np.ndarray:
        """(H, W, 3), BGR, float32 in [0, 1]."""
        if self.file_client is None:
            options = dict(self.backend)
            self.file_client = FileClient(options.pop("type"), **options)
        data = self.file_client.get(path, "gt")
        try:
            return imfrombytes(data, float32=True)
        except (AttributeError, TypeError, cv2.error) as error:  # what an undecodable file comes to in BasicSR
            raise ValueError(f"cannot read image {path}") from error
