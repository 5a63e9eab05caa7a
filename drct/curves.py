"""Draw the curves of training runs: `python drct/curves.py experiments/<name> -o curves.png`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder
    from drct.cli import entry_point

    entry_point("curves")
