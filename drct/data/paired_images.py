"""DRCT's PairedImageDataset and SingleImageDataset, which take the place of BasicSR's in training and test runs.

They give the same tensors for the same files and draw the same random numbers. BasicSR's stumble over a blank line in a
list, a file that is no image, or a damaged one; and in validation, they cut ground truth of another scale to size.
"""

from pathlib import Path
from typing import Any

import numpy as np
from basicsr.data.transforms import augment, paired_random_crop
from basicsr.utils import bgr2ycbcr, rgb2ycbcr

from drct.data.file_lists import read_list, read_lmdb_list
from drct.data.image_files import ImageFiles
from drct.data.pair_sizes import check_pair, check_patch
from drct.data.pairs import dataset_images, find_pairs
from drct.images.bgr import as_float


class PairedImageDataset(ImageFiles):
    """Pairs of a ground-truth and a low-resolution image, from two folders, a list of files or two LMDBs.

    Args:
        opt: Options of the dataset. Required are `dataroot_gt`, `dataroot_lq`, `io_backend`, `phase` and `scale`; in
            training also `gt_size`, `use_hflip` and `use_rot`. Optional are `meta_info_file`, `filename_tmpl`,
            `color: y`, `mean` and `std`.

    Raises:
        DRCTError: if there are no images or they do not pair.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        self.gt_folder, self.lq_folder = opt["dataroot_gt"], opt["dataroot_lq"]
        self.paths = find_pairs(opt)
        if self.io_backend_opt["type"] == "lmdb":
            self.io_backend_opt |= {"db_paths": [self.lq_folder, self.gt_folder], "client_keys": ["lq", "gt"]}

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return `lq` (C, h, w), `gt` (C, h * scale, w * scale), RGB or Y, float32 in about [0, 1], and their paths.

        In training these are patches at the same random place, flipped and rotated alike; otherwise whole images, the
        ground truth without the few pixels beyond a multiple of the scale.

        Raises:
            DRCTError: if an image cannot be read, the sizes do not fit, or the image is smaller than a patch.
        """
        pair, scale = self.paths[index], self.opt["scale"]
        gt, lq = (as_float(self._read(pair[f"{kind}_path"], kind)) for kind in ("gt", "lq"))
        if self.opt["phase"] == "train":
            check_patch(pair, gt.shape[:2], lq.shape[:2], scale, self.opt["gt_size"])
            gt, lq = paired_random_crop(gt, lq, self.opt["gt_size"], scale, pair["gt_path"])
            gt, lq = augment([gt, lq], self.opt["use_hflip"], self.opt["use_rot"])
        else:
            check_pair(pair, gt.shape[:2], lq.shape[:2], scale)
        if self.opt.get("color") == "y":
            gt, lq = (bgr2ycbcr(image, y_only=True)[..., None] for image in (gt, lq))
        if self.opt["phase"] != "train":
            gt = gt[: lq.shape[0] * scale, : lq.shape[1] * scale]
        tensors = dict(zip(("gt", "lq"), self._tensors(gt, lq), strict=True))
        return tensors | pair


class SingleImageDataset(ImageFiles):
    """Low-resolution images without ground truth, from a folder, a list of files or an LMDB.

    Args:
        opt: Options of the dataset. Required are `dataroot_lq`, `io_backend` and `phase`; optional are
            `meta_info_file`, `color: y`, `mean` and `std`.

    Raises:
        DRCTError: if there are no images.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        self.lq_folder = opt["dataroot_lq"]
        if self.io_backend_opt["type"] == "lmdb":
            self.io_backend_opt |= {"db_paths": [self.lq_folder], "client_keys": ["lq"]}
            self.paths = list(read_lmdb_list(Path(self.lq_folder)))
        elif opt.get("meta_info_file"):
            self.paths = [str(Path(self.lq_folder, name)) for name, _ in read_list(Path(opt["meta_info_file"]))]
        else:
            self.paths = [str(path) for path in dataset_images(Path(self.lq_folder))]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return `lq` (C, h, w), RGB or Y, float32 in about [0, 1], and `lq_path`. Raises `DRCTError` as for pairs."""
        path = self.paths[index]
        image: np.ndarray = as_float(self._read(path, "lq"))
        if self.opt.get("color") == "y":
            image = rgb2ycbcr(image, y_only=True)[..., None]  # of BGR, as BasicSR has it
        return {"lq": self._tensors(image)[0], "lq_path": path}
