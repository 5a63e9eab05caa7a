"""Ctrl-C and SIGTERM: asking a run to stop between two steps."""

import os
import signal
import sys
import time
from types import FrameType
from typing import Any

from drct.engine import distributed

ECHO = 5.0  # seconds after Ctrl-C in which torchrun passes it on to processes that the terminal has already told


class Stopped(Exception):  # noqa: N818 - not an error
    """The run was asked to stop, and has saved what it had.

    Args:
        signal_number: The signal that asked.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.status = 128 + signal_number  # as a shell counts it


class StopRequest:
    """While active, the first Ctrl-C or SIGTERM asks for a stop; a second Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._asked_at = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.signal_number is not None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is None:
            self.signal_number, self._asked_at = number, time.monotonic()
            if distributed.rank() == 0:
                again = "; Ctrl-C again ends at once" if number == signal.SIGINT else ""
                print(f"\nstopping after this step and saving{again}", file=sys.stderr, flush=True)
        elif number == signal.SIGINT and not self._is_echo():
            os._exit(128 + number)

    def _is_echo(self) -> bool:
        return distributed.under_torchrun() and time.monotonic() - self._asked_at < ECHO
