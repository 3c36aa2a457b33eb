"""Hooks: the callbacks of one fit, called in order; only those that somebody has overridden."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import describe
from .base import Callback

if TYPE_CHECKING:
    from ..runs import Place

BATCH_HOOKS = ("on_train_batch_begin", "on_train_batch_end")
# Calling the first by its other name is what the base class does: not yet a reason to call it.
_OTHER_NAMES = {"on_train_batch_begin": "on_batch_begin", "on_train_batch_end": "on_batch_end"}


class Hooks:
    """The overridden hooks of a list of callbacks."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks = callbacks
        self._methods: dict[str, list[tuple[int, Callable[..., Any]]]] = {}
        for hook in vars(Callback):
            if hook.startswith("on_"):
                self._methods[hook] = [
                    (index, getattr(callback, hook))
                    for index, callback in enumerate(callbacks)
                    if overrides(callback, hook)
                ]
        watched = {index for hook in BATCH_HOOKS for index, _ in self._methods[hook]}
        self._intervals = {callbacks[index].batch_interval for index in watched}

    def has(self, hook: str) -> bool:
        """Whether any callback has overridden this hook."""
        return bool(self._methods[hook])

    def check(self, names: frozenset[str]) -> None:
        """Lets the callbacks check what they monitor; see Callback.check."""
        if all(map(_is_stock, self.callbacks)):
            for callback in self.callbacks:
                callback.check(names)

    def steps_to_next(self, done: int) -> int | None:
        """Steps to take, after `done` of the run, until a batch hook is due; None: any number."""
        return min((interval - done % interval for interval in self._intervals), default=None)

    def call(self, hook: str, run: Place, *arguments: Any) -> None:
        """Calls the hook of each callback, from run.next_callback on.

        run.next_callback is kept up to date, so that a model which is saved inside a hook resumes
        behind it.
        """
        for index, method in self._methods[hook]:
            if index < run.next_callback or not self._due(hook, index, run):
                continue
            run.interrupts.deliver()
            run.next_callback = index + 1
            try:
                method(*arguments)
                if hook == "on_epoch_end":
                    _as_numbers(arguments[1])
            except Exception as error:
                run.failed(f"{type(self.callbacks[index]).__name__}.{hook}", error)
                raise
        run.next_callback = 0

    def _due(self, hook: str, index: int, run: Place) -> bool:
        return hook not in BATCH_HOOKS or run.steps_done % self.callbacks[index].batch_interval == 0


def _as_numbers(logs: dict[str, Any]) -> None:
    """Makes floats of the numbers that a callback has put into the logs.

    Raises TypeError for names that are no text and values that are no number.
    """
    for name, value in logs.items():
        try:
            if isinstance(value, (str, bytes)) or not isinstance(name, str):
                raise TypeError
            logs[name] = float(value)
        except (TypeError, ValueError, RuntimeError):  # of arrays, of other libraries' arrays
            raise TypeError(
                f"logs[{name!r}] must be a number under a name; got {describe(value)}: keep other "
                "things in an attribute of the callback"
            ) from None


def _is_stock(callback: Callback) -> bool:
    """Whether it is one of fastbp's own."""
    return type(callback).__module__.startswith("fastbp.")


def overrides(callback: Callback, hook: str) -> bool:
    """Whether this callback does anything in a hook."""
    for name in (hook, _OTHER_NAMES.get(hook)):
        if name is not None:
            method = getattr(callback, name)
            if getattr(method, "__func__", method) is not getattr(Callback, name):
                return True
    return False
