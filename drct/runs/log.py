"""The log of a run: on the terminal, and in a file once the run has a folder."""

import logging
import logging.handlers
from pathlib import Path

from drct.runtime import distributed

LOGGERS = ("basicsr", "drct")  # BasicSR's classes write to the first


class RunLog:
    """Keeps what is logged from the start of a run until there is a file for it, then writes to the file.

    Of several processes, the first logs; the others only tell of errors and of what goes wrong with their data.
    """

    def __init__(self) -> None:
        from basicsr.utils import get_root_logger

        get_root_logger()  # BasicSR gives its logger a handler for the terminal when first asked for it
        self._terminal = logging.StreamHandler()
        self._terminal.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        self._terminal.addFilter(_is_for_everybody)
        logging.getLogger("drct").addHandler(self._terminal)
        self._others = list(logging.getLogger("basicsr").handlers)  # not only this run's
        for handler in self._others:
            handler.setLevel(logging.INFO)
            handler.addFilter(_is_for_everybody)
        self._buffer = logging.handlers.MemoryHandler(capacity=100_000, flushLevel=logging.CRITICAL + 1)
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.DEBUG)
            logging.getLogger(name).addHandler(self._buffer)
        self._terminal.setLevel(logging.INFO)
        self._file: logging.FileHandler | None = None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self._buffer)
        logging.getLogger("drct").removeHandler(self._terminal)
        for handler in self._others:
            handler.removeFilter(_is_for_everybody)
        self._buffer.close()
        if self._file:
            self._file.close()

    def write_to(self, path: Path) -> None:
        """Write all messages, earlier ones too and more detailed than on the terminal, to a file."""
        if distributed.rank() != 0:
            return
        self._file = logging.FileHandler(path, "a", encoding="utf-8")
        self._file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
        self._buffer.setTarget(self._file)
        self._buffer.flush()
        self._buffer.flushLevel = logging.NOTSET  # from now on at once


def _is_for_everybody(record: logging.LogRecord) -> bool:
    return distributed.rank() == 0 or record.levelno >= logging.ERROR or record.name == "drct.data"
