"""The error that users see, and how commands report it."""

import difflib
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import wraps
from typing import ParamSpec

Arguments = ParamSpec("Arguments")


LONGEST = 1500  # characters of a message
# How classes refuse arguments
EXPECTED = (AssertionError, KeyError, NotImplementedError, OSError, TypeError, ValueError)


class DRCTError(Exception):
    """A mistake that the user can correct. The message is one line: what is wrong, where, and what to do about it."""


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Return a hint for a misspelt name, " (did you mean 'x'?)", or "" if no known name is similar.

    Names that differ in upper and lower case only are similar.
    """
    names = {text.casefold(): text for text in map(str, known)}
    close = difflib.get_close_matches(str(name)[:100].casefold(), names, n=1, cutoff=0.6)
    return f" (did you mean '{names[close[0]]}'?)" if close else ""


def report(error: BaseException) -> int | None:
    """Print a `DRCTError` or Ctrl-C as one line and return the exit status, 2 or 130; return None for other errors."""
    if isinstance(error, DRCTError):
        print(f"error: {_one_line(str(error))}", file=sys.stderr)
        return 2
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return 130
    return None


def _one_line(message: str) -> str:
    lines = message.strip().splitlines()
    if "Traceback (most recent call last):" in message:
        # An error raised in a loader's worker process arrives wrapped in its traceback, with the message at the end
        lines = [lines[-1].removeprefix("drct.errors.DRCTError: ")]
    line = " ".join(filter(None, map(str.strip, lines)))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 300]} ... {line[-300:]}"


def reason_of(error: BaseException) -> str:
    """Describe an error that somebody else's class raised when it was built from options or called, in a few words.

    The kind and the place of errors that do not usually refuse arguments are named, as they may be mistakes in the
    class.
    """
    if isinstance(error, KeyError):
        return f"there is no {error}"
    words = str(error).strip()
    if words and isinstance(error, EXPECTED):
        return words
    every = list(traceback.extract_tb(error.__traceback__))
    frames = [frame for frame in every if f"{os.sep}torch{os.sep}" not in frame.filename] or every
    where = f" in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}{': ' * bool(words)}{words}"


def one_line_errors(main: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Decorate a command to `report` a `DRCTError` or Ctrl-C in place of a traceback."""

    @wraps(main)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except (DRCTError, KeyboardInterrupt) as error:
            return report(error) or 2

    return wrapper
