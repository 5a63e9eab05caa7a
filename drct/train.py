"""Train a network: `python drct/train.py -opt options/train/<name>.yml`, results in `experiments/<name>`."""

import os
import sys

if __name__ == "__main__":
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120 - the repository
    from drct.cli import entry_point

    entry_point("train")
