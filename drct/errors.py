"""The error that users see."""

import difflib
from collections.abc import Callable, Iterable
from functools import wraps


class DRCTError(Exception):
    """A mistake that the user can mend. The message is one line: what is wrong, where, and what to do about it."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """A hint for a misspelt name: ' (did you mean 'x'?)', or '' if nothing known is close."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def one_line_errors(main: Callable[..., int]) -> Callable[..., int]:
    """Make a command print a `DRCTError` as one line and return exit status 2, and 130 after Ctrl-C."""

    @wraps(main)
    def wrapper(*args, **kwargs) -> int:
        import sys

        try:
            return main(*args, **kwargs)
        except DRCTError as error:
            # One raised in a loader's worker process arrives wrapped in its traceback, the message last
            message = str(error).strip().splitlines()[-1].removeprefix("drct.errors.DRCTError: ")
            print(f"error: {message}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    return wrapper
