"""Steps of a benchmark that must end in time."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from drct.text import first_line


@dataclass(frozen=True)
class Step:
    """A step of a benchmark."""

    name: str
    seconds: float  # that it needs, roughly; it is skipped if fewer are left
    run: Callable[[], object]


@dataclass
class Outcome:
    """Which steps were not done, with the reason."""

    skipped: list[str] = field(default_factory=list)  # for lack of time
    failed: dict[str, str] = field(default_factory=dict)  # with the first line of the error


class Deadline:
    """A moment at which a benchmark must have ended, so many seconds from now."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.end - time.monotonic()


def run_steps(steps: list[Step], deadline: Deadline, after: Callable[[Outcome], object]) -> Outcome:
    """Run steps one after the other, as far as time allows. Each is named on stderr with the seconds that are left.

    Args:
        steps: The steps, the most important first.
        deadline: When they must have ended.
        after: Called after each step with what is left undone so far.
    """
    outcome = Outcome()
    for step in steps:
        left = deadline.left()
        if left < step.seconds:
            outcome.skipped.append(step.name)
            continue
        print(f"{left:5.0f} s left: {step.name}", file=sys.stderr, flush=True)
        try:
            step.run()
        except Exception as error:  # one that fails must not end the others
            outcome.failed[step.name] = f"{type(error).__name__}: {first_line(error)}"
            print(f"failed: {outcome.failed[step.name]}", file=sys.stderr)
        after(outcome)
    return outcome
