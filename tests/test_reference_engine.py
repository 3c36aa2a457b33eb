"""The oracle's engine and functional layer judged by itself: protocol, dtypes, bookkeeping, errors.

Gradients and formulas are checked in test_reference.py; here the engine is compared with itself (an
epoch with its steps, float32 with float64 rounded once), with NumPy's own matmul, and with its
protocol: layout, units of losses and metrics, what resets what, messages, Ctrl-C. Equality is exact
where both sides compute the same float64 numbers in the same order; where only the order differs,
14 digits. Sizes: 23 rows in batches of 5, so that the last one is smaller; layers whose parameters
do not fill blocks of 16.
"""

import dataclasses
import signal
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbp import reference
from fastbp.reference import LOSSES, METRICS, OPTIMIZERS, Engine, random

Array = NDArray[Any]

HYPER = {
    "sgd": {"learning_rate": 0.1},
    "momentum": {"learning_rate": 0.1, "momentum": 0.9},
    "nesterov": {"learning_rate": 0.1, "momentum": 0.9},
}


def make_engine(
    dtype: str = "float64", loss: str = "softmax_cross_entropy", optimizer: str = "adam"
) -> Engine:
    """4 -> 5 tanh -> 3 with parameters from a fixed stream, compiled."""
    layers = [("dense", 5, True), ("activation", "tanh", 0.0), ("dense", 3, False)]
    engine = Engine(4, layers, dtype)
    for layer, (offset, rows, cols, _) in enumerate(engine.parameter_shapes):
        kernel = engine.parameters[offset : offset + rows * cols]
        random.random_normal(kernel, 0.0, 0.5, 11, layer, random.INIT)
    engine.compile(loss, 0.0, optimizer, HYPER.get(optimizer, {}))
    return engine


def make_data(dtype: str = "float64", rows: int = 23) -> tuple[Array, Array]:
    """x (rows, 4) and class numbers."""
    x = np.empty((rows, 4), dtype)
    random.random_normal(x, 0.0, 1.0, 5, 0, random.SPLIT)
    return x, np.arange(rows, dtype=np.int64) * 7 % 3


def test_parameters_are_laid_out_in_blocks_of_16() -> None:
    engine = Engine(3, [("dense", 7, True), ("dense", 2, False), ("dense", 1, True)], "float32")
    assert engine.parameter_shapes == [
        (0, 3, 7, True),
        (32, 7, 2, False),
        (48, 2, 1, True),
    ]
    assert engine.parameters.dtype == np.float32
    assert engine.parameters.shape == engine.gradients_.shape == (64,)
    assert engine.parameters is engine.parameters
    engine.parameters[48:51] = [1, 2, 10]
    out = np.empty((1, 1), np.float32)
    engine.predict(np.ones((1, 3), np.float32), out)
    assert out == 10


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_padding_stays_zero(optimizer: str) -> None:
    """Also with epsilon 0, where an update of the padding would be 0 / 0."""
    engine = make_engine(optimizer=optimizer)
    if "epsilon" in OPTIMIZERS[optimizer].hyper:
        engine.set_hyper({"epsilon": 0.0})
    used = np.zeros(engine.parameters.size, dtype=bool)
    for offset, rows, cols, has_bias in engine.parameter_shapes:
        used[offset : offset + rows * cols + cols * has_bias] = True
    engine.train(*make_data(), 5, 2, 0, True, 1, [])
    for array in (engine.parameters, *engine.optimizer_state):
        assert np.isfinite(array[used]).all()
        assert (array[~used] == 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_is_its_steps(optimizer: str, dtype: str, shuffle: bool) -> None:
    x, y = make_data(dtype)
    whole, single = make_engine(dtype, optimizer=optimizer), make_engine(dtype, optimizer=optimizer)
    losses, metrics = whole.train(x, y, 5, 3, 2, shuffle, 9, ["accuracy", "mse"])
    assert losses.shape == (3,)
    assert metrics.shape == (3, 2)
    for epoch in (2, 3, 4):
        order = random.permutation(23, 9, epoch) if shuffle else np.arange(23)
        total, accuracy = 0.0, 0.0
        for rows in np.split(order, range(5, 23, 5)):
            batch = x[rows], y[rows]
            accuracy += single.evaluate(*batch, 5, ["accuracy"])[1][0] * len(rows)
            total += single.step(*batch) * len(rows)
        assert losses[epoch - 2] == total / 23
        assert metrics[epoch - 2, 0] == pytest.approx(accuracy / 23, rel=1e-14)
    assert whole.steps == single.steps == 15
    assert whole.parameters.tobytes() == single.parameters.tobytes()
    for a, b in zip(whole.optimizer_state, single.optimizer_state, strict=True):
        assert a.tobytes() == b.tobytes()


def test_training_in_two_calls_is_training_in_one() -> None:
    x, y = make_data()
    once, twice = make_engine(), make_engine()
    expected, _ = once.train(x, y, 4, 5, 0, True, 3, [])
    first, _ = twice.train(x, y, 4, 2, 0, True, 3, [])
    resumed = make_engine()
    resumed.parameters[...] = twice.parameters
    for a, b in zip(resumed.optimizer_state, twice.optimizer_state, strict=True):
        a[...] = b
    resumed.steps = twice.steps
    second, _ = resumed.train(x, y, 4, 3, 2, True, 3, [])
    assert np.concatenate([first, second]).tobytes() == expected.tobytes()
    assert resumed.parameters.tobytes() == once.parameters.tobytes()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "loss", [name for name in LOSSES if name not in ("binary_cross_entropy", "poisson")]
)
def test_a_float32_step_is_a_float64_step_rounded_once(loss: str, optimizer: str) -> None:
    """Not so the losses that clip the output, whose definition depends on the dtype."""
    x, _ = make_data("float32")
    y = np.linspace(0, 1, 69, dtype=np.float32).reshape(23, 3)
    small, large = make_engine("float32", loss, optimizer), make_engine("float64", loss, optimizer)
    large.parameters[...] = small.parameters
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    assert small.gradients(x, y) == large.gradients(x64, y64)
    assert (small.gradients_ == large.gradients_.astype(np.float32)).all()
    assert small.step(x, y) == large.step(x64, y64)
    assert (small.parameters == large.parameters.astype(np.float32)).all()
    for a, b in zip(small.optimizer_state, large.optimizer_state, strict=True):
        assert (a == b.astype(np.float32)).all()


def test_half_sse_adds_up_and_the_others_average() -> None:
    x, _ = make_data()
    y = np.cos(np.arange(69.0)).reshape(23, 3)
    for loss, scale in (("half_sse", 1), ("mse", 2 / 69)):
        engine = make_engine(loss=loss)
        out = np.empty((23, 3))
        engine.predict(x, out)
        expected = scale * np.sum((out - y) ** 2) / 2
        for batch_size in (1, 5, 23, 100):
            value, _ = engine.evaluate(x, y, batch_size, [])
            assert value == pytest.approx(expected, rel=1e-14)
        engine.set_hyper({"learning_rate": 0.0})
        losses, _ = engine.train(x, y, 5, 1, 0, False, 0, [])
        assert losses[0] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("loss", "y", "t", "accuracy"),
    [
        ("softmax_cross_entropy", [[1, 3, 3], [2, 1, 0]], [1, 2], [1, 0]),
        ("softmax_cross_entropy", [[1, 3, 2], [2, 1, 0]], [[0, 1, 0], [0, 0, 1]], [1, 0]),
        ("binary_cross_entropy", [[0.4, 0.6], [0.5, 0.7]], [[0, 1], [1, 1]], [1, 0.5]),
        ("binary_cross_entropy_with_logits", [[0.4], [-0.4], [0]], [[1], [1], [0]], [1, 0, 1]),
        ("mse", [[0.4], [0.6], [0.5]], [[1], [1], [0]], [0, 1, 1]),
        ("huber", [[1, 3], [5, 4]], [[0, 1], [0, 1]], [1, 0]),
    ],
)
def test_accuracy_reads_outputs_as_the_loss_does(
    loss: str, y: Any, t: Any, accuracy: list[float]
) -> None:
    target = np.array(t) if np.ndim(t) == 1 else np.array(t, dtype=float)
    assert METRICS["accuracy"](np.array(y, dtype=float), target, loss).tolist() == accuracy


def test_error_metrics() -> None:
    y, t = np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]])
    assert METRICS["mse"](y, t, "mse") == [2.5]
    assert METRICS["mae"](y, t, "mse") == [1.5]
    p = reference.softmax(y)
    for target in (np.array([1]), np.array([[0.0, 1.0]])):
        assert METRICS["mae"](y, target, "softmax_cross_entropy") == pytest.approx(p[0, 0])


def test_compile_resets_and_set_hyper_does_not() -> None:
    engine = make_engine()
    engine.step(*make_data())
    states = [s.copy() for s in engine.optimizer_state]
    engine.set_hyper({"learning_rate": 0.5})
    assert engine.steps == 1
    assert all((a == b).all() for a, b in zip(engine.optimizer_state, states, strict=True))
    engine.compile("softmax_cross_entropy", 0.0, "adam", {})
    assert engine.steps == 0
    assert all((s == 0).all() for s in engine.optimizer_state)


def test_the_learning_rate_of_set_hyper_is_used() -> None:
    engine = make_engine(optimizer="sgd")
    before = engine.parameters.copy()
    engine.gradients(*make_data())
    engine.set_hyper({"learning_rate": 0.25})
    engine.step(*make_data())
    np.testing.assert_array_equal(engine.parameters, before - 0.25 * engine.gradients_)


@pytest.mark.parametrize("own_handler", [False, True])
def test_ctrl_c_waits_for_the_end_of_the_step(
    own_handler: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes in the middle of the fourth update, the second of epoch 1."""
    entry = OPTIMIZERS["adam"]

    def interrupted(*arguments: Any) -> Any:
        if arguments[-1] == 4:
            signal.raise_signal(signal.SIGINT)
        return entry.update(*arguments)

    x, y = make_data(rows=10)
    expected = make_engine()
    expected.train(x, y, 5, 2, 0, True, 3, [])
    monkeypatch.setitem(OPTIMIZERS, "adam", dataclasses.replace(entry, update=interrupted))
    engine = make_engine()
    seen: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if own_handler:
        signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    during = signal.getsignal(signal.SIGINT)
    try:
        if own_handler:
            engine.train(x, y, 5, 2, 0, True, 3, [])
        else:
            with pytest.raises(KeyboardInterrupt):
                engine.train(x, y, 5, 9, 0, True, 3, [])
        assert signal.getsignal(signal.SIGINT) is during
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT] * own_handler
    assert engine.steps == 4
    assert engine.parameters.tobytes() == expected.parameters.tobytes()


def test_errors_name_what_is_wrong() -> None:
    x, y = make_data()
    engine = make_engine()
    wrong = y.copy()
    wrong[[7, 9]] = [3, -1]
    with pytest.raises(ValueError, match=r"y\[7\] = 3 is not a class number in 0\.\.2"):
        engine.train(x, wrong, 5, 1, 0, False, 0, [])
    wrong[7] = -1
    with pytest.raises(ValueError, match=r"y\[7\] = -1 is not"):
        engine.step(x, wrong)
    for bad_x, bad_y, error, match in (
        (x[:, :3], y, ValueError, r"x: expected shape \(n, 4\), got a float64 array of"),
        (x[0], y, ValueError, r"x: expected shape \(n, 4\)"),
        (x[:0], y[:0], ValueError, "x: expected at least one sample"),
        (x.astype(np.float32), y, TypeError, "x: expected dtype float64, got a float32 array"),
        (np.asfortranarray(x), y, ValueError, "x: expected a C-contiguous array"),
        (x.tolist(), y, TypeError, "x: expected a NumPy array, got a list"),
        (x, y[:9], ValueError, "y: expected 23 labels, one for each row, got 9"),
        (x, y.astype(np.int32), TypeError, "y: expected dtype int64"),
        (x, y.astype(float), TypeError, "y: expected integers as class numbers"),
        (x, np.zeros((23, 2)), ValueError, r"y: expected shape \(23, 3\) for loss 'softmax"),
        (x, np.zeros((23, 3), np.float32), TypeError, "y: expected dtype float64"),
    ):
        with pytest.raises(error, match=match):
            engine.gradients(bad_x, bad_y)
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        engine.evaluate(x, y, 0, [])
    with pytest.raises(ValueError, match="unknown metric 'auc'; choose one of: accuracy"):
        engine.evaluate(x, y, 5, ["auc"])
    with pytest.raises(ValueError, match="adam has no hyper-parameter 'momentum'"):
        engine.set_hyper({"momentum": 0.9})
    with pytest.raises(ValueError, match="sgd needs the hyper-parameter 'learning_rate'"):
        engine.compile("mse", 0.0, "sgd", {})
    with pytest.raises(ValueError, match="unknown loss 'mle'; choose one of: mse"):
        engine.compile("mle", 0.0, "sgd", {"learning_rate": 1.0})
    with pytest.raises(ValueError, match="unknown activation 'rely'; choose one of: identity"):
        Engine(2, [("activation", "rely", 0.0)], "float32")
    with pytest.raises(ValueError, match=r"call compile\(\) first"):
        Engine(4, [("dense", 3, True)], "float64").step(x, y)
    assert engine.steps == 0


def test_matmul_follows_numpy() -> None:
    """Small integers: every sum is exact, so any order of summation gives the same."""
    rng = np.random.default_rng(3)

    def integers(*shape: int) -> Array:
        return rng.integers(-8, 9, shape).astype(float)

    for a, b in (
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)),
        ((6, 1, 2, 3), (5, 3, 4)),
        ((3,), (3, 4)),
        ((2, 3), (3,)),
        ((3,), (3,)),
        ((2, 0), (0, 4)),
        ((0, 3), (3, 4)),
    ):
        left, right = integers(*a), integers(*b)
        np.testing.assert_array_equal(reference.matmul(left, right), np.matmul(left, right))
    a, b, bias = integers(5, 2, 3), integers(4, 3), integers(4)
    expected = np.maximum(a @ b.T + bias, 0)
    np.testing.assert_array_equal(
        reference.matmul(a, b, transpose_b=True, bias=bias, activation="relu"), expected
    )
    np.testing.assert_array_equal(
        reference.matmul(a.swapaxes(1, 2), b.T, transpose_a=True), a @ b.T
    )
    out = np.empty((5, 2, 4))
    assert reference.matmul(a, b, transpose_b=True, out=out) is out
    np.testing.assert_array_equal(out, a @ b.T)
    with pytest.raises(ValueError, match="bias has shape"):
        reference.matmul(a, b, transpose_b=True, bias=bias[:1])


def test_float32_is_float64_rounded_once() -> None:
    rng = np.random.default_rng(4)
    a, b = (rng.normal(size=(9, 9)).astype(np.float32) for _ in "ab")
    product = reference.matmul(a, b)
    assert product.dtype == np.float32
    assert (product == (a.astype(float) @ b.astype(float)).astype(np.float32)).all()
    assert (reference.gelu(a) == reference.gelu(a.astype(float)).astype(np.float32)).all()
    assert reference.exp(np.float32([100])).tolist() == [np.inf]
    assert reference.matmul(a, b.astype(float)).dtype == np.float64
    assert reference.exp([0, 1]).dtype == np.float64
    assert reference.exp(np.array([0.0], dtype=">f4")).dtype == np.float32
    with pytest.raises(TypeError, match="expected float32 or float64"):
        reference.exp(np.zeros(1, np.float16))


def test_out_is_checked_and_may_overlap() -> None:
    x = np.linspace(-1, 1, 7)
    expected = reference.tanh(x)
    assert reference.tanh(x[:-1], out=x[1:]) is not None
    assert (x[1:] == expected[:-1]).all()
    with pytest.raises(ValueError, match=r"out has shape \(3,\), expected \(7,\)"):
        reference.relu(x, out=np.empty(3))
    with pytest.raises(TypeError, match="out has dtype float32, expected float64"):
        reference.relu(x, np.empty(7, np.float32))


def test_dense_layer_as_functions_is_the_engine() -> None:
    engine = make_engine("float64", "half_sse", "sgd")
    x, _ = make_data()
    y = np.zeros((23, 3))
    (start, n, m, _), (second, units, outputs, _) = engine.parameter_shapes
    kernel = engine.parameters[start : start + n * m].reshape(n, m)
    bias = engine.parameters[start + n * m : start + n * m + m]
    head = engine.parameters[second : second + units * outputs].reshape(units, outputs)
    hidden, saved = reference.dense_forward(x, kernel, bias, "tanh")
    output, _ = reference.dense_forward(hidden, head)
    loss, dy = reference.half_sse(output, y)
    dhidden, dhead, none = reference.dense_backward(hidden, head, None, dy, use_bias=False)
    assert none is None
    assert dhidden is not None
    nothing, dkernel, dbias = reference.dense_backward(
        x, kernel, saved, dhidden, "tanh", input_gradient=False
    )
    assert nothing is None
    assert engine.gradients(x, y) == loss
    gradient = engine.gradients_
    assert (gradient[start : start + n * m].reshape(n, m) == dkernel).all()
    assert (gradient[start + n * m : start + n * m + m] == dbias).all()
    assert (gradient[second : second + units * outputs].reshape(units, outputs) == dhead).all()


def test_functions_made_from_the_lists_have_real_signatures() -> None:
    x = np.array([-2.0, 2.0])
    assert reference.leaky_relu(x, 0.25).tolist() == [-0.5, 2]
    assert reference.leaky_relu(x, negative_slope=0.5).tolist() == [-1, 2]
    assert reference.huber(x, np.zeros(2), delta=2.0)[0] == 2
    with pytest.raises(TypeError, match=r"elu\(\): .*slope"):
        reference.elu(x, slope=1)
    with pytest.raises(TypeError, match=r"sgd_update\(\): .*learning_rate"):
        reference.sgd_update(x, x)
    with pytest.raises(ValueError, match="s has shape"):
        reference.momentum_update(x, x, np.zeros(3), learning_rate=1, momentum=0)
