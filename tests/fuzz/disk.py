"""A small disk that can be filled: a tmpfs where this user may mount one, else a limit of the size of files."""

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

SIZE = 48 << 20  # bytes


class SmallDisk:
    """A file system of `SIZE` bytes in a folder, mounted within the `with` block.

    Without the right to mount, `fill` does nothing, and `kind` says so.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kind = "not mounted: never full"

    def __enter__(self) -> "SmallDisk":
        self.folder.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(self.folder)]
        if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("mount"):
            done = subprocess.run(mount, capture_output=True, check=False)
            self.kind = f"tmpfs of {SIZE >> 20} MB" if done.returncode == 0 else self.kind
        return self

    def __exit__(self, *_: object) -> None:
        if self.kind.startswith("tmpfs"):
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False)

    def fill(self, left: int) -> None:
        """Fill the disk, but for some bytes."""
        if not self.kind.startswith("tmpfs"):
            return
        with suppress(OSError), open(self.folder / "filler", "ab", buffering=0) as file:  # until it is full
            while True:
                file.write(bytes(4096))
        with suppress(OSError):
            os.truncate(self.folder / "filler", max(0, (self.folder / "filler").stat().st_size - left))

    def free(self) -> None:
        """Make room again."""
        (self.folder / "filler").unlink(missing_ok=True)
