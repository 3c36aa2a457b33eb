"""The oracle: every kernel and the engine of fastbp once more, in NumPy alone, to check against.

It imports nothing compiled. float32 results are computed in float64 and rounded once, so that the
oracle is more precise than what it judges; it is tested itself by finite differences
(tests/test_reference.py). Names and signatures are those of fastbp.ops; Engine is the twin of the
native engine, random the twin of its random numbers.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import ops, random
from .activations import ACTIVATIONS
from .losses import LOSSES
from .metrics import METRICS
from .network import Engine
from .ops import *  # noqa: F403
from .optimizers import OPTIMIZERS

__all__ = ["ACTIVATIONS", "LOSSES", "METRICS", "OPTIMIZERS", "Engine", "random"]
__all__ += ops.__all__

if TYPE_CHECKING:

    def __getattr__(name: str) -> Callable[..., Any]:
        """Type checkers cannot see the functions that ops makes from its lists."""
