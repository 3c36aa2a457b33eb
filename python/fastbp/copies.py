"""A model in copy.deepcopy, copy.copy and pickle: its engine is taken apart and built anew.

What comes out goes on as the original would, bit for bit, an unfinished run included, on the same
kind of device. Other than a model file a pickle may hold functions of one's own, by their name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import files, resume
from .turns import Turns

if TYPE_CHECKING:
    from .transferable import Transferable

MADE_ANEW = ("_engine", "_quick", "_backend", "_turns")


def state(model: Transferable) -> dict[str, Any]:
    """The attributes of the model but for the engine, of which it has the arrays and the steps.

    As they are between two steps, where another thread trains the model.
    """
    return files.between_steps(model, lambda: _state(model))


def _state(model: Transferable) -> dict[str, Any]:
    kept = {name: value for name, value in vars(model).items() if name not in MADE_ANEW}
    kept.update(_layers=list(model._layers), metadata=dict(model.metadata))  # copy.copy copies none
    if model._compiled is not None:
        own = model._compiled.optimizer.bound()
        kept["_compiled"] = model._compiled._replace(optimizer=own)
    if model._carried is not None:  # a fit goes on writing to its own
        kept["_carried"] = model._carried.copy()
    engine = model._engine
    if engine is None:
        return {"attributes": kept}
    compiled = model._compiled is not None
    run = resume.capture(model) if compiled else None
    kept["_run"] = None if run is None else resume.Saved(run, engine.steps)
    return {
        "attributes": kept,
        "tensors": {name: np.array(view) for name, view in files.tensors_of(model).items()},
        "steps": engine.steps if compiled else 0,
    }


def restore(model: Transferable, kept: dict[str, Any]) -> None:
    """Makes a new object the model that `state` was asked about."""
    vars(model).update(dict.fromkeys(MADE_ANEW), **kept["attributes"])
    model._turns = Turns()
    if "tensors" not in kept:
        return
    assert model.inputs is not None
    engine = model._build(model.inputs, draw=False)
    for name, view in files.tensors_of(model).items():
        view[...] = kept["tensors"][name]
    if model._compiled is not None:
        engine.steps = kept["steps"]
