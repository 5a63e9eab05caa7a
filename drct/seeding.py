"""Random numbers that follow from a seed and a place, not from what was drawn before.

A training run whose every draw is of this kind goes on exactly where it stopped: there is no generator whose state
would have to be saved, in any of its processes and of their loader workers.
"""

import random

import numpy as np
import torch

ORDER, SAMPLE, STEP = range(3)  # what draws: the order of an epoch, a sample, a training step


def seed_all(*key: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators, on every device, by what draws, a seed, and a place.

    Keys that differ in any number, by however little, give unrelated draws (`numpy.random.SeedSequence`).
    """
    words = np.random.SeedSequence(key).generate_state(3, np.uint64)
    random.seed(int(words[0]))
    np.random.seed(int(words[1] % 2**32))
    torch.manual_seed(int(words[2] >> np.uint64(1)))  # the sign bit is not taken on all devices
