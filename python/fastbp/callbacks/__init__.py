"""Callbacks: what fit calls while it runs, and the ones that most programs want.

A callback is an object with some of Keras' hooks (Callback); fit(..., callbacks=[...]) takes a
list, and calls them in its order.
"""

from __future__ import annotations

from .base import Callback, LambdaCallback, get
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
