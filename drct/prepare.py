"""Prepare data: `python drct/prepare.py --help`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository, not this folder
    from drct.commands.prepare import main

    sys.exit(main())
