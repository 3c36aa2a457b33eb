"""Memory of backpropagation through time: what it has to keep, and hardly anything beside."""

import gc

import numpy as np
import pytest

import fastbp as bp
import machine
from fastbp import _core
from fastbp.layers import Layer

STEPS, BATCH = 64, 32
# Of each step, in units: the gates, and the states behind it; of a GRU, r of the third gate and h.
KEPT = {bp.LSTM: 4 + 2, bp.GRU: 3 + 1 + 1, bp.SimpleRNN: 1 + 1}


@pytest.mark.parametrize(("units", "features"), [(256, 64), (67, 3)])
@pytest.mark.parametrize("threads", [2, 3])  # a part of the batch for each; one has none
@pytest.mark.parametrize("layer", KEPT)
def test_activations_take_what_is_needed(
    layer: type[Layer], threads: int, units: int, features: int
) -> None:
    """The batch's inputs and what the cell keeps, and 5 % for padding, the states before the
    first step and one step's products. The gradients of the two parts are no activations."""
    x = np.zeros((BATCH, STEPS, features), np.float32)
    model = bp.Sequential([layer(units), bp.Dense(1)], seed=0)  # type: ignore[call-arg]
    model.compile(optimizer="sgd", loss="mse")
    with machine.using_threads(threads):
        model.predict(x)
        gc.collect()  # what other tests have left
        before = _core.arena_statistics()[1]
        model.fit(x, np.zeros((BATCH, 1)), epochs=1, batch_size=BATCH, verbose=0)
        taken = _core.arena_statistics()[1] - before
    assert model._engine is not None
    gradients = 2 * model._engine.parameters.nbytes
    need = 4 * BATCH * STEPS * (features + KEPT[layer] * units)
    assert need < taken - gradients < 1.05 * need
