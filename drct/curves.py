"""Draw the curves of training runs: `python drct/curves.py experiments/<name> -o curves.png`."""

import os
import sys

if __name__ == "__main__":
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120 - the repository
    from drct.cli import entry_point

    entry_point("curves")
