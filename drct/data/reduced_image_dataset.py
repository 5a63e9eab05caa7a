"""ReducedImageDataset: test pairs made on the fly from ground truth, equal to those that `drct prepare` writes."""

from pathlib import Path
from typing import Any

from basicsr.utils import bgr2ycbcr
from basicsr.utils.registry import DATASET_REGISTRY

from drct.data.ground_truth import GroundTruthDataset
from drct.data.prepare import ground_truths, reduce_image
from drct.errors import DRCTError
from drct.images.bgr import as_float


@DATASET_REGISTRY.register()
class ReducedImageDataset(GroundTruthDataset):
    """Ground truth, and its reductions by MATLAB's antialiased bicubic, rounded to 8 bits.

    In a folder that has only `*HR.png` and `*LR.png` files, the HR files are the ground truth.

    Args:
        opt: Options of the dataset. Required are `dataroot_gt`, `io_backend`, `phase` (test or val) and `scale`;
            optional are `meta_info_file`, `color: y`, `mean` and `std`.

    Raises:
        DRCTError: if there are no images, or they are to be trained on.
    """

    recursive = False  # as `drct prepare` reads folders

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        if opt["phase"] == "train":
            raise DRCTError("ReducedImageDataset has no patches to train on: use ImageNetPairedDataset")
        if self.from_folder:
            self.paths = [str(path) for path in ground_truths(map(Path, self.paths))]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return `lq` (C, h, w) and `gt` (C, h * scale, w * scale), RGB or Y, float32 in about [0, 1].

        `lq_path` and `gt_path` are both the path of the ground truth, which is cropped to a multiple of the scale.

        Raises:
            DRCTError: if the image cannot be read, or is too small to be reduced.
        """
        path, scale = self.paths[index], self.opt["scale"]
        image = self._read(path, "gt")
        try:
            reduced = reduce_image(image, scale)
        except DRCTError as error:
            raise DRCTError(f"{path}: {error}") from error
        gt, lq = as_float(image[: reduced.shape[0] * scale, : reduced.shape[1] * scale]), as_float(reduced)
        if self.opt.get("color") == "y":
            gt, lq = (bgr2ycbcr(image, y_only=True)[..., None] for image in (gt, lq))
        tensors = dict(zip(("gt", "lq"), self._tensors(gt, lq), strict=True))
        return tensors | {"lq_path": path, "gt_path": path}
