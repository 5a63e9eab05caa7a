"""The log of a run: on the terminal, and in a file once the run has a folder."""

import logging
import logging.handlers
from pathlib import Path

from basicsr.utils import get_root_logger

from drct.errors import DRCTError
from drct.runs.ownership import Ownership
from drct.runtime import distributed

LOGGERS = ("basicsr", "drct")  # BasicSR's classes write to the first


class RunLog:
    """Log that holds messages in memory until the run has a folder, and then writes them to a file there.

    While it is open, the folders of its `ownership` are the run's. In several processes, only the first logs
    everything; the others log errors and problems with their data.
    """

    def __init__(self) -> None:
        self._others = list(get_root_logger().handlers)  # BasicSR's, made when first asked for; not only this run's
        self._terminal = logging.StreamHandler()
        self._terminal.setLevel(logging.INFO)
        self._terminal.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        self._terminal.addFilter(_is_shown)
        logging.getLogger("drct").addHandler(self._terminal)
        for handler in self._others:
            handler.setLevel(logging.INFO)
            handler.addFilter(_is_shown)
        self._buffer = logging.handlers.MemoryHandler(capacity=100_000, flushLevel=logging.CRITICAL + 1)
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.DEBUG)
            logging.getLogger(name).addHandler(self._buffer)
        self._file: logging.FileHandler | None = None
        self.ownership = Ownership()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self._buffer)
        logging.getLogger("drct").removeHandler(self._terminal)
        for handler in self._others:
            handler.removeFilter(_is_shown)
        self._buffer.close()
        self.ownership.release()
        if self._file is None:
            return
        try:
            self._file.close()
        except OSError as error:  # a full disk
            if kind is None:
                reason = error.strerror or error
                raise DRCTError(f"cannot write {self._file.baseFilename}: {reason}. Free space.") from error

    def write_to(self, path: Path) -> None:
        """Write all messages to a file from now on, starting with those so far; it also gets debug messages."""
        if distributed.rank() != 0:
            return
        self._file = logging.FileHandler(path, "a", encoding="utf-8")
        self._file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
        self._buffer.setTarget(self._file)
        self._buffer.flush()
        self._buffer.flushLevel = logging.NOTSET  # from now on at once


def _is_shown(record: logging.LogRecord) -> bool:
    return distributed.rank() == 0 or record.levelno >= logging.ERROR or record.name == "drct.data"
