"""Memory of freed tensors: kept for the next ones, in place of new pages from the system each time.

GNU's allocator hands blocks back to the system as soon as they are freed, if they are larger than a threshold or lie at
the end of its heap. The system clears each page that it gives out again, which took a quarter of the time of a small
image in bfloat16. The threshold rises by itself, to 32 MiB at most, but only when a block of such a size is freed.
"""

import ctypes
import os
import sys
from functools import cache

OWN_BLOCK = 32 << 20  # bytes from which a block is taken from the system and handed back, the most of GNU's own rule
KEPT_END = 256 << 20  # bytes that stay free at the end of the heap
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
USERS_CHOICE = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")


@cache
def keep_freed_memory() -> bool:
    """Let GNU's allocator keep freed blocks, for the whole process. Returns whether it does.

    Other systems' allocators stay as they are, and so does GNU's where the environment names settings for it
    (`MALLOC_...`, `GLIBC_TUNABLES`) or another allocator (`LD_PRELOAD`).
    """
    if sys.platform != "linux" or any(name.startswith(USERS_CHOICE) for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, OWN_BLOCK) and mallopt(_M_TRIM_THRESHOLD, KEPT_END))
