"""Ctrl-C while fit runs: it takes effect between two steps, never amid the bookkeeping of one."""

from __future__ import annotations

import signal
import threading
from typing import Any

from . import _core


class Interrupts:
    """Holds SIGINT back until `deliver`, but where `open` is True: there it goes through at once.

    So does a second one while the first is held: a callback that hangs can be left, at the price
    that it may have half done what it does at a step.

    `open` is set by plain assignment, in front of a try and as the first statement of its finally:
    Python looks for signals at calls and jumps, so that none slips in between.

    In other threads than the main one, and where SIGINT has no handler written in Python, there is
    nothing to hold back. Those of a pool `deliver` interrupts when the pool has been told to stop.
    """

    def __init__(self) -> None:
        self.open = True
        self._held: list[tuple[int, Any]] = []
        self._original: Any = None

    def install(self) -> None:
        """From now on signals are held."""
        original = signal.getsignal(signal.SIGINT)
        if callable(original) and threading.current_thread() is threading.main_thread():
            self.open, self._original = False, original
            signal.signal(signal.SIGINT, self._receive)

    def _receive(self, number: int, frame: Any) -> None:
        if self.open or self._held:
            self.open = False  # what cleans up is not interrupted
            self._held.clear()
            self._original(number, frame)
        else:
            self._held.append((number, frame))

    def deliver(self) -> None:
        """Lets a signal through that was held back: raises what its handler raises."""
        if _core.told_to_stop():
            raise KeyboardInterrupt
        if self._held:
            self._original(*self._held.pop())

    def remove(self) -> None:
        """Restores the handler that was there, and delivers."""
        if self._original is not None and signal.getsignal(signal.SIGINT) == self._receive:
            signal.signal(signal.SIGINT, self._original)
        if self._held:
            self._original(*self._held.pop())
