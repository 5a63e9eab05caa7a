"""Notes for the user about a computation: collected where they are shown beside its result, else logged."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_collected: ContextVar[list[str] | None] = ContextVar("notes", default=None)


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect the notes of what is computed within the block, each of them once."""
    notes: list[str] = []
    token = _collected.set(notes)
    try:
        yield notes
    finally:
        _collected.reset(token)


def note(text: str) -> None:
    """Add a note to those collected, or log it as a warning if nobody collects them."""
    notes = _collected.get()
    if notes is None:
        logging.getLogger("drct").warning(text)
    elif text not in notes:
        notes.append(text)
