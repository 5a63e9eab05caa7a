"""Making what an option file names: datasets, loaders, the model."""

import warnings
from typing import Any

from basicsr.data import build_dataset
from basicsr.models import build_model
from basicsr.utils import get_root_logger
from torch.utils.data import DataLoader, Dataset

from drct.errors import DRCTError


def make_dataset(phase: str, options: dict[str, Any]) -> Any:
    """Build a dataset. Raises `DRCTError` naming it when its files do not make one."""
    try:
        dataset = build_dataset(options)
    except (AssertionError, OSError, ValueError, KeyError, TypeError) as error:
        problem = f"has no {error}" if isinstance(error, KeyError) else str(error)
        raise DRCTError(
            f"datasets.{phase} ({options['name']}): {problem}. Ground truth and low-resolution files must "
            "have the same names; `python drct/prepare.py benchmark` makes such folders from high-resolution images."
        ) from error
    if not len(dataset):
        raise DRCTError(f"datasets.{phase} ({options['name']}) has no images")
    return dataset


def make_model(opt: dict[str, Any]) -> Any:
    """Build the model with its network, losses and optimizer. Raises `DRCTError` for options that make none."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            model = build_model(opt)
        for warning in caught:
            get_root_logger().warning(str(warning.message))
        return model
    except (AssertionError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        problem = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise DRCTError(f"the options make no {opt['model_type']}: {problem}") from error


class SkipUnusable(Dataset):
    """A training set that goes on past files that cannot be read or are too small for a patch.

    Instead of such an image the next usable one is given, and a warning names the file.

    Raises:
        DRCTError: on access, if `patience` images in a row cannot be used.
    """

    def __init__(self, dataset, patience: int = 20) -> None:
        self.dataset = dataset
        self.patience = min(patience, len(dataset))
        self.unusable: set[int] = set()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """The item of this index, or of the first usable one after it."""
        reason = ""
        for offset in range(self.patience):
            i = (index + offset) % len(self.dataset)
            try:
                return self.dataset[i]
            except Exception as error:  # a broken file raises whatever its decoder raises
                path = self.dataset.paths[i]
                reason = f"{path['gt_path'] if isinstance(path, dict) else path}: {' '.join(map(str, error.args))}"
                if i not in self.unusable:
                    self.unusable.add(i)
                    get_root_logger().warning(f"training goes on without an image that cannot be used: {reason}")
        raise DRCTError(
            f"datasets.train: {self.patience} images in a row cannot be used. gt_size must not be larger than the "
            f"images, and those of dataroot_lq must be those of dataroot_gt reduced by the scale. The last: {reason}"
        )


def evaluation_loaders(opt: dict[str, Any], phase: str) -> list[DataLoader]:
    """Loaders of the datasets `val`, `val_1`, .. or `test`, `test_1`, .., one image at a time."""
    return [
        DataLoader(make_dataset(name, options), batch_size=1)
        for name, options in sorted(opt["datasets"].items())
        if options["phase"] == phase
    ]
