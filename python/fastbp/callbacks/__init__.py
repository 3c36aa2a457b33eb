"""Callbacks: what fit calls while it runs, and the ones that most programs want.

A callback is an object with some of Keras' hooks (Callback); fit(..., callbacks=[...]) takes a
list, and calls them in its order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Callback, LambdaCallback, get

if TYPE_CHECKING:
    from .checkpoint import ModelCheckpoint
    from .logs import CSVLogger, TensorBoard
    from .monitored import EarlyStopping, ReduceLROnPlateau, TerminateOnNaN
    from .rates import LearningRateScheduler

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
    "get",
]

# Imported when they are first named: fit needs the base alone.
_MODULES = {
    "CSVLogger": "logs",
    "EarlyStopping": "monitored",
    "LearningRateScheduler": "rates",
    "ModelCheckpoint": "checkpoint",
    "ReduceLROnPlateau": "monitored",
    "TensorBoard": "logs",
    "TerminateOnNaN": "monitored",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
