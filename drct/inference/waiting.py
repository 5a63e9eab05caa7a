"""Showing users how far a batch of images is, down to the windows within an image."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from drct.archs.progress import watched

LONG = 10.0  # seconds; an image that takes longer is announced with the time and the memory it takes
FIRST_LOOK = 1.0  # seconds of computing from which the time that an image takes is estimated
INTERVAL = 30.0  # seconds between lines where there is no terminal
BAR = "{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


class BatchProgress:
    """Shows on stderr how far a batch of images is.

    A terminal gets a bar, which moves while an image is computed; elsewhere a line is printed every `INTERVAL`. In both
    cases, a line announces what an image that takes long is expected to take.

    Args:
        count: Number of images.
        label: Shown before the bar, such as the name of a dataset; such a bar vanishes at the end.
        hidden: Whether to show nothing, as in all processes but the first.
        say: Takes each line in place of stderr, such as a logger.
    """

    def __init__(
        self, count: int, label: str = "", hidden: bool = False, say: Callable[[str], object] | None = None
    ) -> None:
        self.count, self.label, self.hidden = count, label, hidden
        self._say = say or (lambda line: print(line, file=sys.stderr, flush=True))
        off = True if hidden else None  # None: unless stderr is a terminal
        self._bar = tqdm(total=count, desc=label or None, leave=not label, disable=off, bar_format=BAR, smoothing=0.05)
        self._start = self._last_line = time.monotonic()

    @contextmanager
    def image(self, number: int, name: str) -> Iterator[None]:
        """Show the progress of an image, number `number` from 0, that is computed within the block."""
        if self.hidden:
            yield
            return
        if not self._bar.disable:
            self._bar.set_postfix_str(f"{number + 1} of {self.count}: {name}", refresh=False)
        announcement = _Announcement(name, self.write)

        def watch(share: float) -> None:
            announcement.consider(share)
            self._show(number, share, name)

        try:
            with watched(watch, announcement.listen):
                yield
        finally:
            self._show(number, 1, name)

    def write(self, line: str) -> None:
        """Print a line, above the bar."""
        with tqdm.external_write_mode():
            self._say(line)

    def close(self) -> None:
        """Finish the bar."""
        self._bar.close()

    def _show(self, number: int, share: float, name: str) -> None:
        """Show that a share of an image, number `number` from 0, is done."""
        done = number + share
        self._bar.update(done - self._bar.n)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line > INTERVAL:
            self._last_line = now
            left = duration((now - self._start) / done * (self.count - done)) if done else "unknown"
            which = f"{number + 1} of {self.count}: " if self.count > 1 else ""
            self.write(f"{self.label}{': ' if self.label else ''}{which}{name}: {share:.0%}, about {left} left")


class _Announcement:
    """Announces an image that takes long, once that can be told."""

    def __init__(self, name: str, write: Callable[[str], None]) -> None:
        self.name, self.write = name, write
        self.words: Callable[[], str] | None = None  # which describe the image; None until the network runs
        self.start = time.monotonic()
        self.due = True

    def listen(self, words: Callable[[], str]) -> None:
        """Take a description of the image."""
        self.words = words

    def consider(self, share: float) -> None:
        """Announce the image if enough of it is done to know that it takes long."""
        seconds = time.monotonic() - self.start
        if self.due and self.words and share and seconds > FIRST_LOOK:
            self.due = False
            if seconds / share > LONG:
                self.write(f"{self.name}: {self.words()}, about {duration(seconds / share)}")


def duration(seconds: float) -> str:
    """Format a time to be read at a glance: '25 s', '12 min', '3 h 5 min', '4 d 2 h'."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    days, hours = divmod(minutes // 60, 24)
    return f"{days} d {hours} h" if days > 1 else f"{minutes // 60} h {minutes % 60} min"
