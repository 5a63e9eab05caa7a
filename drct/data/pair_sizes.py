"""Sizes of ground truth and low-resolution image, which must differ by the scale."""

from collections.abc import Mapping

from drct.errors import DRCTError

Size = tuple[int, ...]  # height and width, in pixels


def scales_fit(gt: Size, lq: Size, scale: int) -> bool:
    """Whether ground truth is larger by the scale, but for a few pixels that reducing it has cut off."""
    return all(truth >= side * scale and round(truth / side) == scale for truth, side in zip(gt, lq, strict=True))


def whole_scale(gt: Size, lq: Size) -> int | None:
    """Return by which whole number both sides of a pair differ, None if by none."""
    scale = round(gt[0] / lq[0])
    return scale if all(truth == side * scale for truth, side in zip(gt, lq, strict=True)) else None


def mismatch(pair: Mapping[str, str], gt: Size, lq: Size, scale: int) -> str:
    """Describe a pair whose sizes do not fit, and the remedy."""
    words = (
        f"the ground truth {pair['gt_path']} is {gt[1]}x{gt[0]}, {pair['lq_path']} {lq[1]}x{lq[0]}: not {scale} times"
    )
    if scales_fit(lq, gt, scale):
        return f"{words} larger but smaller: exchange dataroot_gt and dataroot_lq"
    if gt == lq:
        return f"{words} larger but as large: set dataroot_lq to images of scale {scale}"
    found = round(gt[0] / lq[0])
    if found not in (0, scale) and scales_fit(gt, lq, found):
        return f"{words} larger but {found}: set dataroot_lq to images of scale {scale}, or scale: {found}"
    return f"{words} larger: reduce the ground truth again, with `drct prepare`"


def check_pair(pair: Mapping[str, str], gt: Size, lq: Size, scale: int) -> None:
    """Raise `DRCTError` if the sizes of a pair do not fit for validation, where ground truth may be cut a little."""
    if not scales_fit(gt, lq, scale):
        raise DRCTError(mismatch(pair, gt, lq, scale))


def check_patch(pair: Mapping[str, str], gt: Size, lq: Size, scale: int, gt_size: int) -> None:
    """Raise `DRCTError` if the sizes of a pair do not fit exactly, or are smaller than a training patch."""
    if any(truth != side * scale for truth, side in zip(gt, lq, strict=True)):
        raise DRCTError(mismatch(pair, gt, lq, scale))
    if min(gt) < gt_size:
        raise DRCTError(
            f"{pair['gt_path']} is {gt[1]}x{gt[0]}, smaller than gt_size {gt_size}: set a smaller gt_size, or take the "
            "image out of the set"
        )
