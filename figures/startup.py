"""Where the time of `drct upscale` goes from its start to the first result, as a table for docs/speed.md.

Runs the command on a 64x64 picture several times, and tells processor time, as others may be using the machine.

    python figures/startup.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from drct.text import markdown_table

# Run in a new process: each line is a phase and the seconds of processor time until its end
PHASES = """
import time
def told(phase):
    print(phase, time.process_time(), flush=True)
told("Python")
import torch
told("PyTorch")
import drct.inference.batch
told("this project and other packages")
import drct
upscaler = drct.load()
told("weights")
import sys
picture = upscaler.upscale(sys.argv[1])
told("first picture")
picture.save(sys.argv[2])
told("result")
"""


def main() -> None:
    """Print the table."""
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "picture.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(source)
        for _ in range(5):
            command = [sys.executable, "-c", PHASES, str(source), str(Path(folder) / "result.png")]
            lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
            before = 0.0
            for phase, until in (line.rsplit(" ", 1) for line in lines):
                times.setdefault(phase, []).append(float(until) - before)
                before = float(until)
    total = sum(median(seconds) for seconds in times.values())
    rows = [[phase, f"{median(s):.2f}", f"{median(s) / total:.0%}"] for phase, s in times.items()]
    print(markdown_table(["until", "processor s", "share"], [*rows, ["all", f"{total:.2f}", "100%"]], left=1))


if __name__ == "__main__":
    main()
