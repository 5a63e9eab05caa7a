"""Ctrl-C in a command: one word on stderr and status 130, at any moment from its first import to its last line.

Python raises KeyboardInterrupt wherever the main thread happens to be. While modules are imported, that may be in the
initialization of a C extension, which makes another error of it; in a destructor it is printed and lost. Nothing is
under way then that would have to be cleaned up, so the process ends at once.
"""

import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Any

STATUS = 128 + signal.SIGINT


def install() -> None:
    """Take over Ctrl-C, unless this process ignores it, as one started by `nohup` or in the background of a script."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
        sys.unraisablehook = _unraisable
        sys.excepthook = _excepthook


def finish() -> None:
    """End at once from now on: the work is done, and the interpreter is on its way out."""
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, _end)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _importing(frame):
        _end(number, frame)
    raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")  # print is not reentrant
    os._exit(STATUS)


def _unraisable(event: Any) -> None:
    if isinstance(event.exc_value, KeyboardInterrupt):
        _end(signal.SIGINT, None)
    sys.__unraisablehook__(event)


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        _end(signal.SIGINT, None)
    sys.__excepthook__(kind, error, trace)
