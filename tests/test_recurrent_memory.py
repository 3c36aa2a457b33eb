"""Memory of backpropagation through time: what it has to keep, and hardly anything beside."""

import gc
from collections.abc import Iterator

import numpy as np
import pytest

import fastbp as bp
import machine
from fastbp import _core
from fastbp.layers import Layer

# Of each step, in units: the gates, and the states behind it; of a GRU, r of the third gate and h.
KEPT = {bp.LSTM: 4 + 2, bp.GRU: 3 + 1 + 1, bp.SimpleRNN: 1 + 1}
VALUE = 4  # bytes of float32
# Pieces of the plan begin at multiples of a cache line: so many bytes between them at most, of a
# way of a layer (its outputs and their gradient, h, c, what is kept, inputs) and beside the layers.
GAPS_OF_WAY, GAPS = 12 * 64, 10 * 64
# A block of 2 MiB, the gradients of the parts included, is whole pages of 64 KiB.
LARGE, PAGE = 2 << 20, 1 << 16
Shape = tuple[int, int, int, int]  # steps, units, batch, features


@pytest.fixture(autouse=True)
def nothing_is_freed_meanwhile() -> Iterator[None]:
    """Of what other tests have left."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def parts(model: bp.Sequential, batch: int) -> int:
    """In how many parts a batch of up to 64 sequences is worked off; one of little work."""
    work = sum(w.size for w in model.parameters().values() if w.ndim > 1)
    few = batch < 8 or (batch <= 16 and work * batch < 32e3)
    return 1 if few else 2


def need(
    layer: type[Layer],
    shape: Shape,
    of_parts: int,
    layers: int = 1,
    ways: int = 1,
    sequences: bool = False,
) -> tuple[int, int]:
    """Bytes that backpropagation has to keep, and those that stand once beside them.

    Of each sequence: its inputs, and of each layer and way what the cell keeps of each step.
    Besides, of each step for which a layer puts something out, the gradient that comes back there;
    both ways' outputs are joined in its place before. Then what every network has of a row of its
    output: the output of the Dense and its gradient, target, weight and class number; and the
    sequence's length.
    """
    steps, units, batch, features = shape
    values = steps * features
    for place in range(layers):
        out = steps if sequences or place < layers - 1 else 1
        values += ways * units * (steps * KEPT[layer] + out)
    rows = steps if sequences else 1
    per_sequence = VALUE * values + (4 * VALUE + 8) * rows + 8
    # Sums of the loss and eight metrics for each 16 rows of output of a part, float64.
    blocks = of_parts * (-(-batch // of_parts) * rows // 16 + 1)
    return batch * per_sequence, 9 * 8 * blocks + layers * ways * GAPS_OF_WAY + GAPS


def network(
    layer: type[Layer], units: int, layers: int = 1, ways: int = 1, sequences: bool = False
) -> bp.Sequential:
    def one(place: int) -> Layer:
        cell = layer(units, return_sequences=sequences or place < layers - 1)  # type: ignore[call-arg]
        return bp.Bidirectional(cell) if ways == 2 else cell  # type: ignore[arg-type]

    return bp.Sequential([*map(one, range(layers)), bp.Dense(1)], seed=0)


def taken(model: bp.Sequential, shape: Shape, of_parts: int) -> tuple[int, int]:
    """Bytes that training takes for a batch; and those of them that are gradients of its parts."""
    steps, _, batch, features = shape
    x = np.zeros((batch, steps, features), np.float32)
    model.compile(optimizer="sgd", loss="mse")
    y = np.zeros_like(model.predict(x))  # and the memory that each thread has for products
    before = _core.arena_statistics()[1]
    model.fit(x, y, epochs=1, batch_size=batch, verbose=0)
    assert model._engine is not None
    gradients = of_parts * int(model._engine.parameters.nbytes)
    return _core.arena_statistics()[1] - before, gradients


@pytest.mark.parametrize(("units", "features"), [(256, 64), (67, 3)])
@pytest.mark.parametrize("threads", [2, 3])  # a part of the batch for each; one has none
@pytest.mark.parametrize("layer", KEPT)
def test_activations_take_what_is_needed(
    layer: type[Layer], threads: int, units: int, features: int
) -> None:
    """The batch's inputs and what the cell keeps, and 5 % for everything else."""
    with machine.using_threads(threads):
        found, gradients = taken(network(layer, units), (64, units, 32, features), 2)
    kept = VALUE * 32 * 64 * (features + KEPT[layer] * units)
    assert kept < found - gradients < 1.05 * kept


SHAPES = [
    (1, 1, 1, 1),
    (1, 67, 32, 8),
    (2, 31, 64, 1),
    (3, 5, 60, 2),
    (4, 8, 8, 3),
    (8, 67, 1, 5),
    (16, 8, 1, 4),
    (17, 33, 17, 33),
    (32, 32, 16, 16),
    (100, 10, 32, 1),
    (30, 128, 64, 20),
]
FORMS = [
    {},
    {"sequences": True},
    {"ways": 2},
    {"layers": 2},
    {"layers": 3, "ways": 2, "sequences": True},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("layer", KEPT)
def test_short_and_narrow_sequences_take_no_more(layer: type[Layer], form: dict[str, int]) -> None:
    """5 % beside what is kept, and what stands once: some cache lines, and sums of losses."""
    with machine.using_threads(2):
        for shape in SHAPES:
            model = network(layer, shape[1], **form)  # type: ignore[arg-type]
            model.build(shape[3])
            of_parts = parts(model, shape[2])
            kept, once = need(layer, shape, of_parts, **form)  # type: ignore[arg-type]
            found, gradients = taken(model, shape, of_parts)
            page = PAGE if found >= LARGE else 0
            assert kept <= found - gradients <= 1.05 * kept + once + page, (shape, kept, once)
