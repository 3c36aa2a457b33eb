"""What a recurrent layer may have besides its cell: both directions, dropout, truncation, carried
states, lengths with outputs at every step. The engine against its twin, the twin against central
differences.
"""

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import machine
from fastbp import _core, reference
from fastbp.reference.recurrent import CELLS

Array = NDArray[Any]
SGD = {"learning_rate": 0.1, "weight_decay": 0.0}
ENGINES = (_core.Engine, reference.Engine)


def layers_of(
    cell: str, units: int, sequence: bool, ways: str, truncate: int = 0, rate: float = 0.0
) -> list[tuple[Any, ...]]:
    """A layer of all steps, and one on top that puts out all or the last."""
    both = 1 if ways == "one" else 2
    gates = CELLS[cell].gates
    return [
        ("dropout", rate, True),
        ("dense", both * gates * units, True),
        ("scan", cell, units, True, True, False, ways, truncate, rate),
        ("dropout", rate),
        ("dense", 4 * 3 * both, False),
        ("scan", "lstm", 3, True, sequence, ways == "one", ways, truncate, rate),
        ("dense", 2, True),
    ]


def engine_of(make: Any, layers: list[tuple[Any, ...]], dtype: str, loss: str = "mse") -> Any:
    engine = make(2, layers, dtype, 11, True)
    rng = np.random.default_rng(5)
    for offset, rows, cols, has_bias in engine.parameter_shapes:
        size = (rows + has_bias) * cols
        engine.parameters[offset : offset + size] = rng.normal(0, 0.5, size)
    engine.compile(loss, 0.0, "sgd", SGD)
    return engine


def data(n: int, steps: int, sequence: bool, dtype: str) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(n + steps)
    lengths = rng.integers(1, steps + 1, n)
    lengths[-1] = steps
    y = rng.normal(size=(n, steps, 2) if sequence else (n, 2))
    return rng.normal(size=(n, steps, 2)).astype(dtype), lengths, y.astype(dtype)


def everything(engine: Any, x: Any, y: Array, labels: bool = False) -> list[Any]:
    """What an engine makes of data, and of its parameters by training."""
    out = np.empty((*y.shape, 2) if labels else y.shape, x[0].dtype)
    dropped = np.empty_like(out)
    engine.predict(x, out)
    engine.predict(x, dropped, training=True)
    loss = engine.gradients(x, y)
    gradient = engine.gradients_.copy()
    dx = engine.input_gradient(x, y)[1]
    measured = engine.evaluate(x, y, 16, ["mse"])
    losses, metrics = engine.train(x, y, 32, 1, 1, True, 5, ["mse"])  # the run's second epoch
    parameters = engine.parameters.copy()
    return [out, dropped, loss, gradient, dx, *measured, losses, metrics, parameters]


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("ways", ["one", "concat", "sum"])
@pytest.mark.parametrize(("n", "steps", "units"), [(1, 1, 1), (5, 7, 3), (40, 4, 17)])
def test_engine_is_the_twin(cell: str, ways: str, n: int, steps: int, units: int) -> None:
    options = [(0, 0.0), (2, 0.3)]
    for sequence, (truncate, rate) in itertools.product((False, True), options):
        layers = layers_of(cell, units, sequence, ways, truncate, rate)
        x, lengths, y = data(n, steps, sequence, "float64")
        for given in ((x, None), (x, lengths)):
            results = [everything(engine_of(make, layers, "float64"), given, y) for make in ENGINES]
            for ours, theirs in zip(*results, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


def test_float32_is_near_the_twin() -> None:
    for ways in ("one", "concat"):
        layers = layers_of("gru", 9, True, ways, 2, 0.2)
        x, lengths, y = data(33, 6, True, "float32")
        results = [
            everything(engine_of(make, layers, "float32"), (x, lengths), y) for make in ENGINES
        ]
        for ours, theirs in zip(*results, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)


def bits_of_all(layers: list[tuple[Any, ...]], n: int, threads: tuple[int, ...]) -> set[bytes]:
    """What `everything` gives, by all instruction sets and numbers of threads."""
    x, lengths, y = data(n, 7, layers[-2][4], "float32")

    def bits() -> bytes:
        results = everything(engine_of(_core.Engine, layers, "float32"), (x, lengths), y)
        return b"".join(np.asarray(result).tobytes() for result in results)

    found = set()
    for count in threads:
        with machine.using_threads(count):
            found |= set(machine.on_every_isa(bits).values())
    return found


@pytest.mark.parametrize("ways", ["one", "concat", "sum"])
@pytest.mark.parametrize("truncate", [0, 3])
def test_threads_and_isa_leave_the_bits(ways: str, truncate: int) -> None:
    assert len(bits_of_all(layers_of("gru", 19, True, ways, truncate, 0.3), 40, (1, 3))) == 1


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize(("n", "ways", "sequence"), [(5, "one", True), (9, "concat", False)])
def test_a_team_that_shares_parts_leaves_the_bits(
    cell: str, n: int, ways: str, sequence: bool
) -> None:
    """Few sequences and wide layers: NetworkLayout::shares_parts."""
    units = 250 if CELLS[cell].gates == 1 else 150
    assert len(bits_of_all(layers_of(cell, units, sequence, ways, 3, 0.3), n, (1, 2, 5))) == 1


def test_class_numbers_at_every_step() -> None:
    layers = layers_of("lstm", 4, True, "concat")
    x, lengths, _ = data(20, 5, True, "float64")
    y = np.random.default_rng(0).integers(0, 2, (20, 5))
    loss = "softmax_cross_entropy"
    results = [
        everything(engine_of(make, layers, "float64", loss), (x, lengths), y, labels=True)
        for make in ENGINES
    ]
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("sequence", [False, True])
def test_twin_against_central_differences(cell: str, sequence: bool) -> None:
    """Along random directions, in each of which every parameter moves."""
    for ways, rate in (("concat", 0.0), ("sum", 0.3), ("one", 0.3)):
        layers = layers_of(cell, 3, sequence, ways, 0, rate)
        x, lengths, y = data(3, 4, sequence, "float64")
        states = np.random.default_rng(1).normal(size=(3, engine_width(layers)))
        engine = engine_of(reference.Engine, layers, "float64")
        given = (x, lengths, states)
        engine.gradients(given, y)
        gradient, h = engine.gradients_.copy(), 1e-5
        kept = engine.parameters.copy()
        for seed in range(4):
            along = np.random.default_rng(seed).normal(size=gradient.size)
            along /= np.linalg.norm(along)
            ends = []
            for moved in (kept + h * along, kept - h * along):
                engine.parameters[...] = moved
                ends.append(engine.gradients(given, y))
            slope = (ends[0] - ends[1]) / (2 * h)
            assert abs(slope - gradient @ along) < 1e-8 * max(1.0, abs(gradient).max()), seed


def engine_width(layers: list[tuple[Any, ...]]) -> int:
    return int(reference.Engine(2, layers, "float64", 0, True).carried_width)


def test_truncation_is_a_gradient_without_the_steps_before() -> None:
    """With truncate=2, of four steps: the last two, beginning with the states that the first two
    left, and the first two by themselves."""
    layers = layers_of("lstm", 3, True, "one", 2)
    layers = [*layers[1:3], ("dense", 2, True)]
    x, _, y = data(6, 4, True, "float64")
    whole = engine_of(_core.Engine, layers, "float64")
    whole.gradients(x, y)
    states = np.zeros((6, whole.carried_width))
    parts = np.zeros_like(whole.gradients_)
    for half in (slice(0, 2), slice(2, 4)):
        piece = engine_of(_core.Engine, layers, "float64")
        given = (np.ascontiguousarray(x[:, half]), None, states)
        piece.gradients(given, np.ascontiguousarray(y[:, half]))
        parts += piece.gradients_ / 2
        piece.predict(given, np.empty((6, 2, 2)))  # takes the states on
    np.testing.assert_allclose(whole.gradients_, parts, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", ENGINES)
@pytest.mark.parametrize("cell", sorted(CELLS))
def test_two_halves_are_one_whole_bit_for_bit(make: Any, cell: str) -> None:
    layers = [entry for entry in layers_of(cell, 5, True, "one") if entry[0] != "dropout"]
    layers[3] = ("scan", "lstm", 3, True, True, False)
    # The twin keeps more than float32 has between two steps, but not between two calls.
    dtype = "float32" if make is _core.Engine else "float64"
    x, _, y = data(40, 6, True, dtype)
    engine = engine_of(make, layers, dtype)
    out, first, second = np.empty_like(y), np.empty((40, 2, 2), dtype), np.empty((40, 4, 2), dtype)
    engine.predict(x, out)
    states = np.zeros((40, engine.carried_width), dtype)
    engine.predict((np.ascontiguousarray(x[:, :2]), None, states), first)
    engine.predict((np.ascontiguousarray(x[:, 2:]), None, states), second)
    np.testing.assert_array_equal(np.concatenate([first, second], axis=1), out)


@pytest.mark.parametrize("make", ENGINES)
def test_states_of_a_run_go_from_batch_to_batch(make: Any) -> None:
    """The batches of an epoch go on where the one before ended; gradients() changes no state."""
    layers = [("dense", 12, True), ("scan", "lstm", 3, True, False, False), ("dense", 2, True)]
    x, _, y = data(24, 3, False, "float64")
    run, steps = (engine_of(make, layers, "float64") for _ in range(2))
    states = np.ones((8, run.carried_width))
    run.train((x, None, states), y, 8, 2, 0, False, 0, [])
    for _ in range(2):
        kept = np.zeros((8, steps.carried_width))
        for at in range(0, 24, 8):
            before = kept.copy()
            steps.gradients((x[at : at + 8], None, kept), y[at : at + 8])
            np.testing.assert_array_equal(kept, before)
            steps.step((x[at : at + 8], None, kept), y[at : at + 8])
    np.testing.assert_array_equal(run.parameters, steps.parameters)
    np.testing.assert_array_equal(states, kept)


def test_equal_lengths_are_no_lengths() -> None:
    for ways, sequence in itertools.product(("one", "concat"), (False, True)):
        layers = layers_of("gru", 6, sequence, ways, 2, 0.25)
        x, _, y = data(50, 5, sequence, "float32")
        results = [
            everything(engine_of(_core.Engine, layers, "float32"), given, y)
            for given in ((x, None), (x, np.full(50, 5)))
        ]
        for with_lengths, without in zip(*results, strict=True):
            np.testing.assert_array_equal(with_lengths, without)


@pytest.mark.parametrize("ways", ["one", "concat"])
def test_nothing_behind_the_end_counts(ways: str) -> None:
    """NaN there leaves every result as it is, and steps that are left out do too."""
    layers = layers_of("lstm", 6, True, ways)
    x, lengths, y = data(20, 7, True, "float64")
    lengths = np.minimum(lengths, 6)
    behind = np.arange(7) >= lengths[:, None]
    spoiled = x.copy()
    spoiled[behind] = np.nan
    results = []
    for given, target in (
        ((x, lengths), y),
        ((spoiled, lengths), np.where(behind[..., None], 9, y)),
    ):
        results.append(everything(engine_of(_core.Engine, layers, "float64"), given, target))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    shorter = (np.ascontiguousarray(x[:, :6]), lengths)
    loss = engine_of(_core.Engine, layers, "float64").gradients(
        shorter, np.ascontiguousarray(y[:, :6])
    )
    np.testing.assert_allclose(loss, results[0][2], rtol=1e-13)


def test_losses_do_not_depend_on_threads() -> None:
    import machine

    layers = layers_of("lstm", 40, True, "concat")
    x, lengths, y = data(150, 9, True, "float32")
    results = []
    for threads in machine.THREADS:
        with machine.using_threads(threads):
            results.append(everything(engine_of(_core.Engine, layers, "float32"), (x, lengths), y))
    for other in results[1:]:
        for ours, theirs in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(ours, theirs)


BAD = [
    (("sideways", 0, 0.0), "ways: expected 'one', 'concat' or 'sum', got 'sideways'"),
    (("one", -1, 0.0), "truncate: expected at least 0, got -1"),
    (("one", 0, 1.0), "rate: expected 0 <= rate < 1"),
    (("one", 0, float("nan")), "rate: expected 0 <= rate < 1"),
]


@pytest.mark.parametrize("make", ENGINES)
@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_scans(make: Any, options: tuple[Any, ...], message: str) -> None:
    layers = [("dense", 2, True), ("scan", "rnn_tanh", 2, True, True, False, *options)]
    with pytest.raises(ValueError, match=message):
        make(2, layers, "float32", 0, True)


@pytest.mark.parametrize("make", ENGINES)
def test_bad_states(make: Any) -> None:
    engine = engine_of(make, layers_of("lstm", 3, False, "one"), "float64")
    x, _, y = data(8, 3, False, "float64")
    for states, error in ((np.zeros((7, 12)), ValueError), (np.zeros((8, 12), "f4"), TypeError)):
        with pytest.raises(error, match="states: expected"):
            engine.predict((x, None, states), np.empty_like(y))
    with pytest.raises(ValueError, match="states: expected whole batches of 3, got 8"):
        engine.train((x, None, np.zeros((3, 12))), y, 3, 1, 0, False, 0, [])
