"""Ctrl-C between two steps."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupts_between_steps() -> Iterator[Callable[[], None]]:
    """Holds Ctrl-C back inside, so that no step is cut in two; yields what lets it through.

    Python runs signal handlers between any two bytecodes of the main thread, also between the write
    of the parameters and that of the states. In other threads, and where Ctrl-C has no Python
    handler, there is nothing to hold back.
    """
    handler = signal.getsignal(signal.SIGINT)
    held: list[tuple[int, Any]] = []

    def deliver() -> None:
        if held and callable(handler):
            handler(*held.pop())

    try:
        if callable(handler):
            signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    except ValueError:  # not the main thread
        handler = None
    try:
        yield deliver
    finally:
        if callable(handler):
            signal.signal(signal.SIGINT, handler)
        deliver()
