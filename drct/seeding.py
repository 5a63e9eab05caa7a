"""Random numbers that depend on a seed and a position in the run, not on earlier draws.

A training run that seeds every draw in this way can be resumed exactly: no generator's state has to be saved, neither
of its processes nor of their loader workers.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# The purpose of a draw: the order of an epoch, a sample, a training step, the degradation of a sample
ORDER, SAMPLE, STEP, DEGRADATION = range(4)


def seed_all(*key: int) -> None:
    """Seed the generators of Python, NumPy and PyTorch, on every device.

    The key is a purpose (such as `SAMPLE`), the seed of the run, and a position in it, all non-negative integers. Keys
    that differ in any number give unrelated draws (`numpy.random.SeedSequence`).
    """
    words = np.random.SeedSequence(key).generate_state(3, np.uint64)
    random.seed(int(words[0]))
    np.random.seed(int(words[1] % 2**32))
    torch.manual_seed(int(words[2] >> np.uint64(1)))  # not every device accepts the sign bit


@contextmanager
def generators_kept(device: torch.device) -> Iterator[None]:
    """Give the generators of Python, NumPy, PyTorch and a device the state back that they had before the block."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
