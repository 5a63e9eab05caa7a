"""The error that users see, and how commands report it."""

import difflib
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from typing import ParamSpec

Arguments = ParamSpec("Arguments")


class DRCTError(Exception):
    """A mistake that the user can correct. The message is one line: what is wrong, where, and what to do about it."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return a hint for a misspelt name, " (did you mean 'x'?)", or "" if no known name is similar."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def report(error: BaseException) -> int | None:
    """Print a `DRCTError` or Ctrl-C as one line and return the exit status, 2 or 130; return None for other errors."""
    if isinstance(error, DRCTError):
        # An error raised in a loader's worker process arrives wrapped in its traceback, with the message at the end
        message = str(error).strip().splitlines()[-1].removeprefix("drct.errors.DRCTError: ")
        print(f"error: {message}", file=sys.stderr)
        return 2
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return 130
    return None


def one_line_errors(main: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Decorate a command to `report` a `DRCTError` or Ctrl-C in place of a traceback."""

    @wraps(main)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except (DRCTError, KeyboardInterrupt) as error:
            return report(error) or 2

    return wrapper
