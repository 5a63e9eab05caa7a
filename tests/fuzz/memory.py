"""Memory of a case: its limit, and what it has taken at most."""

import resource
from pathlib import Path

LIMIT = 3 << 30  # bytes of address space that a case may take beyond those of its parent
_start = {"anonymous": 0}


def start() -> None:
    """Count from here, and let allocations beyond `LIMIT` fail in this process and those that it starts."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + LIMIT, size + LIMIT))
    _start["anonymous"] = _entry("RssAnon")


def taken() -> int:
    """Return the peak of the bytes that this process has taken since `start`, without pages of files."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return max(0, peak - _entry("RssFile") - _start["anonymous"])


def _entry(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024
