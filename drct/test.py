"""Evaluate or apply a network: `python drct/test.py -opt options/test/<name>.yml`, results in `results/<name>`."""

import os
import sys

if __name__ == "__main__":
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120 - the repository
    from drct.cli import entry_point

    entry_point("test")
