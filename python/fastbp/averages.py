"""Models with averaged parameters (Optimizer.use_ema)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import freezing, loss_scale
from .optimizers import slots

if TYPE_CHECKING:
    from .model import Sequential


def averaged(model: Sequential) -> Sequential:
    """Sequential.averaged; see there."""
    optimizer = model._require_compiled().optimizer
    if not optimizer.use_ema:
        raise ValueError(
            "no average of the parameters is kept: compile with an optimizer that has use_ema=True"
        )
    engine = model._require_built()
    scale = loss_scale.of(engine)
    skipped = 0 if scale is None else scale.skipped_updates
    if engine.steps // optimizer.gradient_accumulation_steps <= skipped:
        raise RuntimeError("there is no average yet: the model has had no update")
    other = type(model)(model.layers, model.seed)
    other.metadata = dict(model.metadata)
    chosen = model._require_compiled()._replace(optimizer=optimizer.bound())
    other._adopt(chosen, model.device, model.dtype)
    assert model.inputs is not None
    built = other._build(model.inputs, draw=False)
    # The average is the last array of the state (slots).
    built.parameters[...] = engine.optimizer_state[slots(optimizer) - 1]
    built.state[...] = engine.state
    if model._frozen:
        freezing.freeze(other, None, model._frozen)
    return other
