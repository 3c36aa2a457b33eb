"""Device memory of backpropagation through time: what it has to keep, and hardly anything beside.

Only the emulated device is asked how much is allocated; on a GPU it is the same.
"""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

import fastbp as bp
from cuda_library import held, is_emulated
from fastbp.layers import Layer
from test_recurrent_memory import FORMS, GAPS, KEPT, VALUE, Shape, need, network, parts

LINE = 64
PLACES = 9  # for the gradients of parts of a batch: those made side by side, and a sum
STATES = {bp.LSTM: 2, bp.GRU: 1, bp.SimpleRNN: 1}  # of a sequence
GATES = {bp.LSTM: 0, bp.GRU: 2 * 3, bp.SimpleRNN: 0}  # gates' gradients of two steps, apart
SHAPES = [(2, 31, 64, 1), (3, 5, 60, 2), (8, 67, 1, 5), (17, 33, 17, 33), (3, 8, 600, 3)]


@pytest.fixture(autouse=True)
def library(device_library: Path) -> Path:
    if not is_emulated(device_library):
        pytest.skip("only the emulated device says how much is allocated")
    return device_library


def taken(
    library: Path, model: bp.Sequential, shape: Shape, of_parts: int, sequences: bool = False
) -> tuple[int, int]:
    """Bytes that training takes for a batch; and those of them that are gradients of its parts."""
    steps, _, batch, features = shape
    model.compile(optimizer="sgd", loss="mse", device="cuda")
    model.build(features)
    x = np.zeros((batch, steps, features), np.float32)
    y = np.zeros((batch, steps, 1) if sequences else (batch, 1), np.float32)
    gc.collect()  # what other tests have left
    before = held(library)
    model.fit(x, y, epochs=1, batch_size=batch, verbose=0)
    assert model._engine is not None
    gradients = min(of_parts, PLACES) * int(model._engine.parameters.nbytes)
    return held(library) - before, gradients


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("layer", KEPT)
def test_training_takes_what_is_needed(
    library: Path, layer: type[Layer], form: dict[str, int]
) -> None:
    """5 % beside what is kept, and of each sequence the states before the first step, the gradients
    of those between two steps, and up to a cache line behind the only row of a layer."""
    layers, ways = form.get("layers", 1), form.get("ways", 1)
    for shape in SHAPES:
        _, units, batch, _ = shape
        model = network(layer, units, **form)  # type: ignore[arg-type]
        model.build(shape[3])
        of_parts = parts(model, batch) if batch <= 64 else 2 * -(-batch // 64)
        kept, once = need(layer, shape, of_parts, **form)  # type: ignore[arg-type]
        values = layers * ((ways + 1) * STATES[layer] + GATES[layer]) * units
        once += batch * (VALUE * values + LINE) + layers * ways * GAPS
        found, gradients = taken(library, model, shape, of_parts, "sequences" in form)
        assert kept <= found - gradients <= 1.05 * kept + once, (shape, kept, once)


def test_a_larger_batch_keeps_no_more_gradients(library: Path) -> None:
    """Of its parts: what grows with the batch is what is kept of each sequence."""
    found = [
        taken(library, network(bp.LSTM, 64), (2, 64, batch, 64), 1)[0] for batch in (576, 1152)
    ]
    of_batch = [sum(need(bp.LSTM, (2, 64, batch, 64), batch // 32)) for batch in (576, 1152)]
    states = VALUE * 576 * 2 * 2 * 64
    assert found[1] - found[0] < 1.05 * (of_batch[1] - of_batch[0]) + states
