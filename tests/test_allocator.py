"""Freed memory stays with the process where that can be had, and the user's choice of an allocator stays."""

import os
import platform
import subprocess
import sys

import pytest

from drct.runtime import allocator

BLOCKS, SIZE, ROUNDS = 20, 8 << 20, 5
FAULTS = f"""
import ctypes, resource, runpy, sys
keep_freed_memory = runpy.run_path(sys.argv[1])["keep_freed_memory"]
if sys.argv[2] == "keep":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def work():
    blocks = [libc.malloc({SIZE}) for _ in range({BLOCKS})]
    for block in blocks:
        ctypes.memset(block, 1, {SIZE})
    for block in blocks:
        libc.free(block)
work()
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")


@pytest.fixture
def environment():
    """Return the environment without settings of an allocator."""
    return {key: value for key, value in os.environ.items() if not key.startswith(allocator.USERS_CHOICE)}


@needs_glibc
def test_freed_memory_is_not_handed_back(environment):
    faults = {}
    for choice in ("leave", "keep"):
        command = [sys.executable, "-c", FAULTS, allocator.__file__, choice]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        faults[choice] = int(done.stdout)
    pages = ROUNDS * BLOCKS * SIZE // os.sysconf("SC_PAGE_SIZE")
    assert faults["leave"] > pages / 2
    assert faults["keep"] < pages / 100


@pytest.mark.parametrize(
    "variable",
    [
        {"MALLOC_ARENA_MAX": "2"},
        {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
        {"LD_PRELOAD": "libjemalloc.so.2"},
    ],
)
def test_the_users_allocator_stays(monkeypatch, environment, variable):
    monkeypatch.setattr(allocator.os, "environ", environment | variable)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: pytest.fail("changes the allocator"))
    assert allocator.keep_freed_memory.__wrapped__() is False


def test_other_systems_are_left_alone(monkeypatch, environment):
    monkeypatch.setattr(allocator.os, "environ", environment)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())  # of musl, which has no mallopt
    assert allocator.keep_freed_memory.__wrapped__() is False
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: pytest.fail("loads a library"))
    assert allocator.keep_freed_memory.__wrapped__() is False
