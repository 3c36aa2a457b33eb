"""Memory of backpropagation through time: what it has to keep, and hardly anything beside."""

import gc

import numpy as np
import pytest

import fastbp as bp
import machine
from fastbp import _core
from fastbp.layers import Layer

STEPS, UNITS, BATCH, FEATURES = 64, 256, 32, 64
# Of each step, in units: the gates, and the states behind it; of a GRU, r of the third gate and h.
# And what may be taken beside that: the fewer values a cell keeps, the more padding of h counts.
KEPT = {bp.LSTM: (4 + 2, 0.05), bp.GRU: (3 + 1 + 1, 0.06), bp.SimpleRNN: (1 + 1, 0.12)}


@pytest.mark.parametrize("layer", KEPT)
def test_activations_take_what_is_needed(layer: type[Layer]) -> None:
    """The batch's inputs and what the cell keeps, with little for padding, the states before the
    first step and one step's products. The gradients of the two parts are no activations."""
    x = np.zeros((BATCH, STEPS, FEATURES), np.float32)
    model = bp.Sequential([layer(UNITS), bp.Dense(1)], seed=0)  # type: ignore[call-arg]
    model.compile(optimizer="sgd", loss="mse")
    with machine.using_threads(2):
        model.predict(x)
        gc.collect()  # what other tests have left
        before = _core.arena_statistics()[1]
        model.fit(x, np.zeros((BATCH, 1)), epochs=1, batch_size=BATCH, verbose=0)
        taken = _core.arena_statistics()[1] - before
    assert model._engine is not None
    gradients = 2 * model._engine.parameters.nbytes
    kept, more = KEPT[layer]
    need = 4 * BATCH * STEPS * (FEATURES + kept * UNITS)
    assert need < taken - gradients < (1 + more) * need
