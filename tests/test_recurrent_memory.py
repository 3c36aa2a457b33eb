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


def activations(layer: type[Layer], steps: int, units: int, batch: int, features: int) -> int:
    """Bytes that training takes for a batch, but for the gradients of its two parts."""
    x = np.zeros((batch, steps, features), np.float32)
    model = bp.Sequential([layer(units), bp.Dense(1)], seed=0)  # type: ignore[call-arg]
    model.compile(optimizer="sgd", loss="mse")
    model.predict(x)
    gc.collect()  # what other tests have left
    before = _core.arena_statistics()[1]
    model.fit(x, np.zeros((batch, 1)), epochs=1, batch_size=batch, verbose=0)
    assert model._engine is not None
    return _core.arena_statistics()[1] - before - 2 * int(model._engine.parameters.nbytes)


@pytest.mark.parametrize(("units", "features"), [(256, 64), (67, 3)])
@pytest.mark.parametrize("threads", [2, 3])  # a part of the batch for each; one has none
@pytest.mark.parametrize("layer", KEPT)
def test_activations_take_what_is_needed(
    layer: type[Layer], threads: int, units: int, features: int
) -> None:
    """The batch's inputs and what the cell keeps, and 5 % for padding, the states before the
    first step and one step's products. The gradients of the two parts are no activations."""
    with machine.using_threads(threads):
        taken = activations(layer, STEPS, units, BATCH, features)
    need = 4 * BATCH * STEPS * (features + KEPT[layer] * units)
    assert need < taken < 1.05 * need


# Of one step and sequence, in units: its product with the recurrent kernel, dh, and dc of an
# LSTM or what comes through a GRU's product. Then the states before the first step.
SCRATCH = {bp.LSTM: 4 + 2 + 2, bp.GRU: 3 + 2 + 1, bp.SimpleRNN: 1 + 1 + 1}


@pytest.mark.parametrize(
    "steps, units, batch, features", [(32, 32, 16, 16), (100, 10, 32, 1), (30, 128, 64, 20)]
)
@pytest.mark.parametrize("layer", KEPT)
def test_short_and_narrow_sequences_take_what_is_stated(
    layer: type[Layer], steps: int, units: int, batch: int, features: int
) -> None:
    """Besides, docs/performance.md: a 1 behind each row of inputs and states, one step's products
    and the states before the first; 2 % for padding and what is there once."""
    need = steps * (features + KEPT[layer] * units)
    stated = need + steps * 2 + SCRATCH[layer] * units
    taken = activations(layer, steps, units, batch, features)
    assert 4 * batch * need < taken < 4 * batch * stated * 1.02
