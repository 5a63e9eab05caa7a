"""Signals that ask a run to stop between two steps: Ctrl-C, SIGTERM and the end of the terminal."""

import os
import signal
from types import FrameType
from typing import Any

from drct.runtime import distributed


def stop_signals() -> list[int]:
    """Return the signals that stop a run: Ctrl-C, SIGTERM, and SIGHUP (end of the terminal) unless under `nohup`."""
    signals = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # Windows has none
        signals.append(signal.SIGHUP)
    return [int(number) for number in signals]


class Stopped(Exception):  # noqa: N818 - not an error
    """Raised when a run has stopped on request, after it has saved a checkpoint."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.status = 128 + signal_number  # as a shell counts it


class StopRequest:
    """True once one of `stop_signals` has arrived within its `with` block. A second Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        # torchrun passes on Ctrl-C to processes that already got it from the terminal
        self._echoes = 1 if distributed.under_torchrun() else 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in stop_signals():
            self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind and distributed.world_size() > 1:
            return  # when another process has died, the launcher sends SIGTERM: the error must be printed before
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.signal_number is not None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is None:
            self.signal_number = number
            if distributed.rank() == 0:
                again = b"; Ctrl-C again ends at once" if number == signal.SIGINT else b""
                os.write(2, b"\nstopping after this step and saving" + again + b"\n")  # print is not reentrant
        elif number == signal.SIGINT and self._echoes:
            self._echoes -= 1
        elif number == signal.SIGINT:
            os._exit(128 + number)
