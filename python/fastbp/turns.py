"""Whose turn it is with a model: one fit at a time, and who copies it comes between two steps."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

Result = TypeVar("Result")
Method = TypeVar("Method", bound=Callable[..., Any])

_all: weakref.WeakSet[Turns | OneAtATime] = weakref.WeakSet()


class OneAtATime:
    """An engine of Python's, whose steps and those who read it come one after the other.

    `_turn` is held during each of them; a forked child, where nobody else is, has it free.
    """

    def __init__(self) -> None:
        self._after_fork()
        _all.add(self)

    def still(self, work: Callable[[], Result]) -> Result:
        """work(), while no other thread takes a step."""
        with self._turn:
            return work()

    def _after_fork(self) -> None:
        # Reentrant, as the handler of a signal may come to it again.
        self._turn = threading.RLock()


def in_turn(method: Method) -> Method:
    """That method of a OneAtATime, while no other thread is inside of one."""

    @wraps(method)
    def alone(self: OneAtATime, *args: Any, **named: Any) -> Any:
        with self._turn:
            return method(self, *args, **named)

    return cast(Method, alone)


class Turns:
    """What the threads that train a model and those that save it agree on.

    Fit works in pieces, a call of the engine and the notes of how far it came, each within
    `pieces`. Between two pieces, also while callbacks run, another thread may save. It waits at
    most for one piece: `_door` keeps fit from going on ahead of it.
    """

    def __init__(self) -> None:
        self._trains: int | None = None  # the thread that is inside fit
        self._holder: object = None  # and which of its calls has the turn
        self._torn = False  # by a fork in the midst of a piece of another thread's
        self._make_locks()
        _all.add(self)

    def _make_locks(self) -> None:
        # Reentrant, as the handler of a signal may come to them again.
        self._door, self._room = threading.RLock(), threading.RLock()
        self._entry = threading.Lock()

    def training(self, work: Callable[[], Result]) -> Result:
        """work(), the whole of a fit. Raises RuntimeError if there is one already.

        Ctrl-C may come at any moment, but between two calls: so the turn is taken and given back by
        assignments. (Of a context manager it may hit what calls its __enter__ or __exit__.)
        """
        holder = object()
        try:
            with self._entry:
                self.require_idle("fit")
                thread = threading.get_ident()
                self._trains, self._holder = thread, holder
            return work()
        finally:
            if self._holder is holder:
                self._trains = self._holder = None

    def require_idle(self, method: str) -> None:
        """Raises RuntimeError while fit trains the model: two would mix their histories."""
        self._require_whole()
        trains = self._trains
        if trains is None:
            return
        mine = trains == threading.get_ident()
        where = "one of its callbacks or functions" if mine else "another thread"
        raise RuntimeError(
            f"{method} was called from {where} while fit trains this model: wait until fit has "
            "returned, or take a model of its own, copy.deepcopy(model). Meanwhile predict, "
            "evaluate and save may be called; a callback ends fit by model.stop_training = True"
        )

    @property
    def trained_elsewhere(self) -> bool:
        """Whether another thread is inside fit."""
        return self._trains not in (None, threading.get_ident())

    @property
    def pieces(self) -> threading.RLock:
        """What fit holds during a piece."""
        with self._door:
            return self._room

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """No piece of a fit in another thread is done meanwhile."""
        self._require_whole()
        if self._trains == threading.get_ident():  # it may hold the room, and changes nothing now
            yield
            return
        with self._door, self._room:
            yield

    def _require_whole(self) -> None:
        if self._torn:
            raise RuntimeError(
                "another thread was training this model when the process was forked, and this "
                "child has not got that thread: its parameters may be those of half a step. Give "
                "the child a file of the model, or a copy made before"
            )

    def _after_fork(self) -> None:
        """In the child, which has no other thread: what those held is free."""
        if self.trained_elsewhere:
            self._trains = None
            self._torn |= not self._room.acquire(blocking=False)
        self._make_locks()


def _after_fork() -> None:
    for one in _all:
        one._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
