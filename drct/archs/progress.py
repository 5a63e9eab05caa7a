"""How far a computation has come, for progress bars. A callback that raises an error ends the computation."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn

from drct.archs.tracing import is_traced

Callback = Callable[[float], object]

Listener = Callable[[Callable[[], str]], object]

_callback: ContextVar[Callback | None] = ContextVar("progress", default=None)
_listener: ContextVar[Listener | None] = ContextVar("description", default=None)


@contextmanager
def watched(callback: Callback, listener: Listener | None = None) -> Iterator[None]:
    """Call `callback` with the share that is done, from 0 to 1, while something within the block is computed.

    `listener` gets functions that describe what is being computed, for the user; the last one holds.
    """
    token, listener_token = _callback.set(callback), _listener.set(listener or _listener.get())
    try:
        yield
    finally:
        _callback.reset(token)
        _listener.reset(listener_token)


def is_watched() -> bool:
    """Return whether there is a callback of `watched`."""
    return _callback.get() is not None


@contextmanager
def span(start: float, end: float) -> Iterator[None]:
    """Report what is computed within the block as this span of the whole, which is from 0 to 1."""
    whole = _callback.get()
    if whole is None:
        yield
        return
    with watched(lambda share: whole(min(end, start + share * (end - start)))):  # rounding must not exceed the end
        yield
    whole(end)


def part(number: int, count: int) -> AbstractContextManager[None]:
    """Report what is computed within the block as part `number`, from 0, of `count` equal parts."""
    return span(number / count, (number + 1) / count)


def report(share: float) -> None:
    """Report the share that is done, from 0 to 1, to the callback of `watched`, if there is one."""
    if callback := _callback.get():
        callback(share)


def describe(words: Callable[[], str]) -> None:
    """Offer a description of what is being computed to the listener of `watched`, if there is one."""
    if listener := _listener.get():
        listener(words)


def each(modules: nn.ModuleList) -> Iterable[Any]:
    """Return modules to run one after the other, each of which is reported as an equal part once it is done."""
    return modules if is_traced() or not is_watched() else _reported(modules)


def _reported(modules: nn.ModuleList) -> Iterator[Any]:
    for number, module in enumerate(modules, 1):
        yield module
        report(number / len(modules))
