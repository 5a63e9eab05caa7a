"""Only one run at a time writes to a folder."""

import os
from pathlib import Path

from drct.errors import DRCTError
from drct.files import lock


class Ownership:
    """Folders that a run writes to, which other runs refuse to use until `release` or the end of the process.

    It has no effect on Windows, where a folder with open files cannot be moved away, and on network file systems
    without locks.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[int, int], int] = {}  # file descriptors, by device and inode
        if hasattr(os, "register_at_fork"):
            # A loader's worker that outlives a killed run would keep the folder
            os.register_at_fork(after_in_child=self.release)

    def take(self, folder: Path) -> None:
        """Take a folder, if it exists; it stays taken if it is renamed.

        Raises:
            DRCTError: if another run has it.
        """
        if os.name != "posix" or not folder.is_dir():
            return
        status = folder.stat()
        identity = status.st_dev, status.st_ino
        if identity in self._held:
            return
        descriptor = os.open(folder, os.O_RDONLY)
        if lock(descriptor) is False:
            os.close(descriptor)
            raise DRCTError(f"another run is writing to {folder}: wait for it, or set another name")
        self._held[identity] = descriptor

    def release(self) -> None:
        """Give all folders back."""
        while self._held:
            os.close(self._held.popitem()[1])
