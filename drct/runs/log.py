"""The log of a run: on the terminal, and in a file once the run has a folder."""

import logging
import logging.handlers
import sys
from pathlib import Path

from basicsr.utils import get_root_logger

from drct.runs.ownership import Ownership
from drct.runtime import distributed

LOGGERS = ("basicsr", "drct")  # BasicSR's classes write to the first


class _LogFile(logging.FileHandler):
    """Log file that may be on a full disk: one line on stderr says that messages are missing in it."""

    told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Take the place of logging's traceback for each message that cannot be written."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self._tell(error)
        else:
            super().handleError(record)

    def close(self) -> None:
        """Write what is left and close the file."""
        try:
            super().close()
        except OSError as error:
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        if not self.told:
            self.told = True
            reason = error.strerror or error
            print(f"error: cannot write {self.baseFilename}, in which messages are missing: {reason}", file=sys.stderr)


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
        self._file: _LogFile | None = None
        self.ownership = Ownership()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self._buffer)
        logging.getLogger("drct").removeHandler(self._terminal)
        for handler in self._others:
            handler.removeFilter(_is_shown)
        self._buffer.close()
        if self._file:
            self._file.close()
        self.ownership.release()

    def write_to(self, path: Path) -> None:
        """Write all messages to a file from now on, starting with those so far; it also gets debug messages."""
        if distributed.rank() != 0:
            return
        # Names of files may hold what is no text; on the terminal, it looks the same
        self._file = _LogFile(path, "a", encoding="utf-8", errors="backslashreplace")
        self._file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
        self._buffer.setTarget(self._file)
        self._buffer.flush()
        self._buffer.flushLevel = logging.NOTSET  # from now on at once


def _is_shown(record: logging.LogRecord) -> bool:
    return distributed.rank() == 0 or record.levelno >= logging.ERROR or record.name == "drct.data"
