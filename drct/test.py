"""Evaluate or apply a network: `python drct/test.py -opt options/test/<name>.yml`, results in `results/<name>`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder
    from drct.cli import entry_point

    entry_point("test")
