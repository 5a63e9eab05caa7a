"""Ctrl-C, SIGTERM and the end of a terminal: asking a run to stop between two steps."""

import os
import signal
from types import FrameType
from typing import Any

from drct.runtime import distributed


def stop_signals() -> list[int]:
    """Ctrl-C, SIGTERM, and SIGHUP, the end of the terminal, unless `nohup` has made this process outlast it."""
    signals = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # Windows has none
        signals.append(signal.SIGHUP)
    return [int(number) for number in signals]


class Stopped(Exception):  # noqa: N818 - not an error
    """The run was asked to stop, and has saved what it had.

    Args:
        signal_number: The signal that asked.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.status = 128 + signal_number  # as a shell counts it


class StopRequest:
    """While active, the first of `stop_signals` asks for a stop; a second Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        # torchrun passes Ctrl-C on to processes that the terminal has already told
        self._echoes = 1 if distributed.under_torchrun() else 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in stop_signals():
            self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind and distributed.world_size() > 1:
            return  # the launcher, too, ends this process when another one has died; first it tells why
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.signal_number is not None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is None:
            self.signal_number = number
            if distributed.rank() == 0:
                again = b"; Ctrl-C again ends at once" if number == signal.SIGINT else b""
                os.write(2, b"\nstopping after this step and saving" + again + b"\n")  # print might be at work itself
        elif number == signal.SIGINT and self._echoes:
            self._echoes -= 1
        elif number == signal.SIGINT:
            os._exit(128 + number)
