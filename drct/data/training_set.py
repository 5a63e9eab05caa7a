"""What a training run reads: an endless sequence of samples that can be entered anywhere."""

import logging
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from drct.errors import DRCTError
from drct.seeding import ORDER, SAMPLE, seed_all

logger = logging.getLogger("drct.data")  # its messages are shown for every process


class SampleOrder(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, sample), without end, the same for any number of processes and loader workers.

    Sample number n of the run is the (n mod `epoch_size`)-th of its epoch, whose order is a permutation drawn from
    the seed and the epoch. Each step takes the next `world_size * batch_size` samples, each process its part of them;
    so two processes with batches of 2 see in each step what one process with a batch of 4 sees.

    Args:
        epoch_size: Samples of an epoch.
        batch_size: Of one process.
        seed: Of the run.
        start: How many samples the run, all its processes together, has taken before.
        rank, world_size: Which of how many processes this one is.
    """

    def __init__(
        self, epoch_size: int, batch_size: int, seed: int, start: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.epoch_size = epoch_size
        self.batch_size = batch_size
        self.seed = seed
        self.start = start
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first = self.start + self.rank * self.batch_size
        epoch, order = -1, []
        while True:
            batch = []
            for n in range(first, first + self.batch_size):
                if n // self.epoch_size != epoch:
                    epoch = n // self.epoch_size
                    order = self._order(epoch)
                batch.append((epoch, int(order[n % self.epoch_size])))
            yield batch
            first += self.world_size * self.batch_size

    def _order(self, epoch: int) -> Any:
        seed_all(ORDER, self.seed, epoch)
        return torch.randperm(self.epoch_size)


class TrainingSet(Dataset):
    """A dataset of BasicSR as the run reads it: seeded sample by sample, and going on past unusable files.

    The draws of a sample (crop, flips) follow from (seed, epoch, sample), whichever worker makes it. Instead of an
    image that cannot be read or is too small for a patch the next usable one is given, and a warning names the file.

    Args:
        dataset: BasicSR's.
        seed: Of the run.
        ratio: How many samples an epoch makes of an image (BasicSR's dataset_enlarge_ratio).
        patience: After how many unusable images in a row to give up.

    Raises:
        DRCTError: on access, if `patience` images in a row cannot be used.
    """

    def __init__(self, dataset, seed: int, ratio: float = 1, patience: int = 20) -> None:
        self.dataset = dataset
        self.seed = seed
        self.ratio = ratio
        self.patience = min(patience, len(dataset))
        self.unusable: set[int] = set()
        # The order of a folder is the file system's, and not that of a copy of it or of an LMDB
        self.by_name = sorted(range(len(dataset)), key=self._name)

    def __len__(self) -> int:
        """Samples of an epoch."""
        return math.ceil(len(self.dataset) * self.ratio)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        """The sample of (epoch, sample number below `len`)."""
        epoch, sample = key
        reason = ""
        for offset in range(self.patience):
            i = self.by_name[(sample + offset) % len(self.dataset)]
            seed_all(SAMPLE, self.seed, epoch, sample)
            try:
                return self.dataset[i]
            except Exception as error:  # a broken file raises whatever its decoder raises
                reason = f"{self._path(i)}: {' '.join(map(str, error.args))}"
                if i not in self.unusable:
                    self.unusable.add(i)
                    logger.warning(f"training goes on without an image that cannot be used: {reason}")
        raise DRCTError(
            f"datasets.train: {self.patience} images in a row cannot be used. gt_size must not be larger than the "
            f"images, and those of dataroot_lq must be those of dataroot_gt reduced by the scale. The last: {reason}"
        )

    def _path(self, i: int) -> str:
        """The file of the i-th ground truth; of datasets that do not tell, its number."""
        paths = getattr(self.dataset, "paths", None)
        path = paths[i] if paths else f"{i:09d}"
        return path["gt_path"] if isinstance(path, dict) else str(path)

    def _name(self, i: int) -> str:
        return self._path(i).rpartition(".")[0] or self._path(i)
