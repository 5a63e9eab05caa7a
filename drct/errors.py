"""The error that users see."""

import difflib
import sys
from collections.abc import Callable, Iterable
from functools import wraps


class DRCTError(Exception):
    """A mistake that the user can mend. The message is one line: what is wrong, where, and what to do about it."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """A hint for a misspelt name: ' (did you mean 'x'?)', or '' if nothing known is close."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def report(error: BaseException) -> int | None:
    """Print a mistake of the user's, or their Ctrl-C, as one line and return the exit status; None for other errors."""
    if isinstance(error, DRCTError):
        # One raised in a loader's worker process arrives wrapped in its traceback, the message last
        message = str(error).strip().splitlines()[-1].removeprefix("drct.errors.DRCTError: ")
        print(f"error: {message}", file=sys.stderr)
        return 2
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return 130
    return None


def one_line_errors(main: Callable[..., int]) -> Callable[..., int]:
    """Make a command `report` a `DRCTError` or Ctrl-C, and return their exit status, 2 or 130."""

    @wraps(main)
    def wrapper(*args, **kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except (DRCTError, KeyboardInterrupt) as error:
            return report(error) or 2

    return wrapper
