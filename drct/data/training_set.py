"""The data of a training run: an endless sequence of samples, which a resumed run can enter anywhere."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from drct.data.reading import read_item
from drct.errors import DRCTError
from drct.seeding import ORDER, SAMPLE, seed_all
from drct.text import first_line

logger = logging.getLogger("drct.data")  # this logger's messages are shown for every process


@dataclass
class SampleOrder(Sampler[list[tuple[int, int]]]):
    """An endless sequence of batches of (epoch, sample), independent of the number of processes and loader workers.

    Sample n of the run is number (n mod `epoch_size`) in the order of its epoch, a permutation drawn from the seed and
    the epoch. Each step takes the next `world_size * batch_size` samples and divides them among the processes, so two
    processes with batches of 2 see the same samples in each step as one process with a batch of 4.

    With a pool, the first `pool_size` samples fill it, and each later one is put in the place of a random sample of the
    pool, which is taken in its stead. The pool holds the keys of samples only, and is known wherever a run resumes.
    """

    epoch_size: int  # samples
    batch_size: int  # of one process
    seed: int  # of the run
    start: int = 0  # samples that the run has taken before, in all processes together
    rank: int = 0  # number of this process
    world_size: int = 1  # number of processes
    pool_size: int = 0  # samples

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        self._epoch, self._order, self._slots = -1, torch.empty(0), torch.empty(0)
        pool = self._pool_at(self.start)
        first = self.start
        while True:
            step = range(first, first + self.world_size * self.batch_size)
            keys = [self._exchange(n, pool) if self.pool_size else self._key(n) for n in step]
            yield keys[self.rank * self.batch_size :][: self.batch_size]
            first = step.stop

    def _exchange(self, n: int, pool: dict[int, tuple[int, int]]) -> tuple[int, int]:
        """Put sample n into the pool. Return the sample whose place it takes, or itself if that was empty."""
        slot, key = self._slot(n), self._key(n)
        taken = pool.get(slot, key)
        pool[slot] = key
        return taken

    def _pool_at(self, n: int) -> dict[int, tuple[int, int]]:
        """Return the pool before sample n: in each place the last sample that was put there."""
        pool: dict[int, tuple[int, int]] = {}
        while n > 0 and len(pool) < self.pool_size:
            n -= 1
            pool.setdefault(self._slot(n), self._key(n))
        return pool

    def _key(self, n: int) -> tuple[int, int]:
        """Return sample n of the run as (epoch, sample)."""
        self._enter(n // self.epoch_size)
        return self._epoch, int(self._order[n % self.epoch_size])

    def _slot(self, n: int) -> int:
        """Return the place of the pool into which sample n of the run is put."""
        self._enter(n // self.epoch_size)
        return n if n < self.pool_size else int(self._slots[n % self.epoch_size])

    def _enter(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        self._epoch = epoch
        seed_all(ORDER, self.seed, epoch)
        self._order = torch.randperm(self.epoch_size)
        if self.pool_size:
            self._slots = torch.randint(self.pool_size, (self.epoch_size,))


class TrainingSet(Dataset):
    """A wrapper around a dataset that seeds every sample and skips unusable files.

    The random crop and flips of a sample depend on (seed, epoch, sample) alone, whichever worker makes it. An image
    that cannot be read or is smaller than a patch is replaced by the next usable one, and a warning names the file,
    once in a run.

    Args:
        dataset: A dataset of BasicSR's kind.
        seed: Seed of the run.
        ratio: Number of samples per image in an epoch (BasicSR's dataset_enlarge_ratio).
        patience: Number of unusable images in a row after which to give up.
    """

    def __init__(self, dataset: Any, seed: int, ratio: float = 1, patience: int = 20) -> None:
        self.dataset = dataset
        self.seed = seed
        self.ratio = ratio
        self.patience = min(patience, len(dataset))
        self.unusable = torch.zeros(len(dataset), dtype=torch.bool).share_memory_()  # known to all loader workers
        # Sorted, because the order of a folder differs between file systems, and from that of an LMDB
        self.by_name = sorted(range(len(dataset)), key=self._name)

    def __len__(self) -> int:
        """Number of samples per epoch."""
        return math.ceil(len(self.dataset) * self.ratio)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        """Return a sample by its epoch and its number in that, from 0 to `len(self) - 1`.

        Raises:
            DRCTError: if `patience` images in a row cannot be used.
        """
        epoch, sample = key
        reason = ""
        for offset in range(self.patience):
            i = self.by_name[(sample + offset) % len(self.dataset)]
            seed_all(SAMPLE, self.seed, epoch, sample)
            try:
                return read_item(self.dataset, i)
            except Exception as error:  # decoders raise errors of any type for broken files
                reason = str(error) if isinstance(error, DRCTError) else f"{self._path(i)}: {first_line(error)}"
                if not self.unusable[i]:
                    self.unusable[i] = True
                    logger.warning(f"training goes on without an image that cannot be used: {reason}")
        raise DRCTError(f"datasets.train: {self.patience} images in a row cannot be used. The last: {reason}")

    def _path(self, i: int) -> str:
        """Return the path of the i-th ground truth image, or its number if the dataset has no list of paths."""
        paths = getattr(self.dataset, "paths", None)
        path = paths[i] if paths else f"{i:09d}"
        return path["gt_path"] if isinstance(path, dict) else str(path)

    def _name(self, i: int) -> str:
        """Return the path of the i-th image without suffix, the same as its key in an LMDB."""
        return self._path(i).rpartition(".")[0] or self._path(i)
