"""How far a computation has come, for progress bars. A callback that raises an error ends the computation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Callback = Callable[[float], object]

_callback: ContextVar[Callback | None] = ContextVar("progress", default=None)


@contextmanager
def watched(callback: Callback) -> Iterator[None]:
    """Call `callback` with the share that is done, from 0 to 1, while something within the block is computed."""
    token = _callback.set(callback)
    try:
        yield
    finally:
        _callback.reset(token)


@contextmanager
def part(number: int, count: int) -> Iterator[None]:
    """Report what is computed within the block as part `number`, from 0, of `count` equal parts."""
    whole = _callback.get()
    if whole is None:
        yield
        return
    with watched(lambda share: whole((number + share) / count)):
        yield
    whole((number + 1) / count)


def report(share: float) -> None:
    """Report the share that is done, from 0 to 1, to the callback of `watched`, if there is one."""
    if callback := _callback.get():
        callback(share)
