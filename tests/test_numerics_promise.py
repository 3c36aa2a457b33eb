"""The numerics promise: the same bits for any thread count, any instruction set, any position in
the batch, one call or many, and from run to run.

Compared: SHA-256 of parameters, optimizer state and epoch losses after training, and the bits of
predictions; nothing has a tolerance here. Networks are narrow, wide, odd, deep, full of activations
on their own; batches ragged at the end. Threads are forced upon work that is too small for them, so
that every split occurs; one network has gradients of more rows than three chunks of a GEMM's sum.
"""

from __future__ import annotations

import hashlib
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp
import machine
import sweeps
from fastbp import _core
from sweeps import DTYPES, Array

isa = machine.isa

ACTIVATIONS = {entry["name"]: entry["default_param"] for entry in _core.activations()}
LOSSES = {entry["name"]: entry["default_param"] for entry in _core.losses()}
OPTIMIZERS = {entry["name"]: entry["hyper"] for entry in _core.optimizers()}
HYPER = {
    "learning_rate": 0.01,
    "momentum": 0.9,
    "rho": 0.9,
    "beta_1": 0.9,
    "beta_2": 0.999,
    "epsilon": 1e-8,
    "weight_decay": 0.01,
}


def dense(units: int, use_bias: bool = True) -> tuple[Any, ...]:
    return ("dense", units, use_bias)


def act(name: str) -> tuple[Any, ...]:
    return ("activation", name, ACTIVATIONS[name])


@dataclass(frozen=True)
class Training:
    """A network with its data, its loss and its optimizer."""

    inputs: int
    layers: tuple[tuple[Any, ...], ...]
    rows: int
    batch: int
    loss: str = "mse"
    optimizer: str = "adam"

    def engine(self, dtype: str) -> Any:
        engine = _core.Engine(self.inputs, list(self.layers), dtype)
        for k, (offset, rows, cols, bias) in enumerate(engine.parameter_shapes):
            block = engine.parameters[offset : offset + (rows + bias) * cols]
            block[...] = sweeps.normal(k, dtype, block.size) / np.sqrt(max(rows, 1))
        engine.state[...] = 1
        hyper = {key: HYPER[key] for key in OPTIMIZERS[self.optimizer]}
        engine.compile(self.loss, LOSSES[self.loss], self.optimizer, hyper)
        return engine

    def data(self, dtype: str) -> tuple[Array, Array]:
        outputs = next(layer[1] for layer in reversed(self.layers) if layer[0] == "dense")
        x = sweeps.normal(1, dtype, self.rows, self.inputs)
        if self.loss == "softmax_cross_entropy":
            return x, np.arange(self.rows) * 7 % outputs
        y = sweeps.normal(2, dtype, self.rows, outputs)
        if self.loss.startswith("poisson"):
            return x, np.floor(np.abs(2 * y)).astype(dtype)
        yes_or_no = self.loss.startswith("binary_") or self.loss.endswith("hinge")
        return x, (y > 0).astype(dtype) if yes_or_no else y


TRAININGS = {
    "narrow": Training(3, (dense(1), act("tanh"), dense(2), dense(1)), 37, 5, optimizer="sgd"),
    "odd": Training(
        17,
        (dense(33), act("gelu"), dense(65, False), act("silu"), dense(9), act("mish"), dense(7)),
        131,
        32,
        "softmax_cross_entropy",
    ),
    "wide": Training(
        40,
        (dense(300), act("relu"), dense(130), act("relu"), dense(10)),
        150,
        64,
        optimizer="momentum",
    ),
    "long batch": Training(5, (dense(70), act("tanh"), dense(3)), 1300, 1200, "huber", "rmsprop"),
    "activations": Training(
        19,
        (
            act("elu"),
            act("softplus"),
            dense(23),
            act("leaky_relu"),
            act("gelu_tanh"),
            dense(4),
            act("sigmoid"),
        ),
        70,
        33,
        "binary_cross_entropy",
        "adagrad",
    ),
    "no hidden layer": Training(
        100, (dense(1),), 64, 7, "binary_cross_entropy_with_logits", "nesterov"
    ),
    "digits": Training(
        64, (dense(128), act("relu"), dense(10)), 200, 32, "softmax_cross_entropy", "adamw"
    ),
    # Those are cut along their hidden units where several threads take enough steps: so are these.
    "three layers": Training(
        33, (dense(100), act("gelu"), dense(67), act("tanh"), dense(4)), 300, 30, "huber"
    ),
    "few outputs": Training(
        60, (dense(80), act("relu"), dense(3)), 300, 33, "softmax_cross_entropy", "momentum"
    ),
    "many hidden units": Training(20, (dense(1000, False), act("relu"), dense(2)), 200, 20),
    "mae": Training(31, (dense(15), act("identity"), dense(16)), 50, 8, "mae", "momentum"),
    "dropout": Training(
        33,
        (
            ("dropout", 0.1),
            dense(200),
            act("relu"),
            ("dropout", 0.5),
            dense(70),
            ("dropout", 0.2),
            act("tanh"),
            dense(10),
        ),
        150,
        64,
    ),
    "light dropout": Training(6, (dense(24), act("tanh"), ("dropout", 0.3), dense(3)), 700, 600),
    "quantile": Training(9, (dense(20), act("relu"), dense(3)), 70, 16, "quantile", "rmsprop"),
    "poisson": Training(
        9, (dense(40), act("tanh"), dense(2), act("softplus")), 300, 290, "poisson", "sgd"
    ),
    "log rate": Training(6, (dense(17), act("tanh"), dense(5)), 60, 20, "poisson_with_log_rate"),
    "hinge": Training(12, (dense(30), act("relu"), dense(4)), 90, 32, "hinge"),
    "squared hinge": Training(33, (dense(9), act("tanh"), dense(1)), 64, 16, "squared_hinge"),
    "layer norm": Training(
        9,
        (dense(40), ("layer_norm", 1e-5, True, True), act("relu"), dense(33), dense(7)),
        700,
        600,
    ),
    "wide layer norm": Training(
        40, (dense(300), ("layer_norm", 1e-5, True, True), act("gelu"), dense(10)), 150, 64
    ),
    "softmax": Training(
        9, (dense(40), ("softmax",), act("relu"), dense(33), dense(7), ("softmax",)), 700, 600
    ),
    "batch norm": Training(
        30,
        (
            ("batch_norm", 1e-5, True, True, 0.1),
            dense(300, False),
            ("batch_norm", 1e-5, True, True, 0.1),
            act("relu"),
            ("dropout", 0.1),
            dense(20),
            ("batch_norm", 1e-5, False, True, 0.1),
            dense(7),
        ),
        150,
        64,
    ),
    "normalize": Training(40, (("normalize",), dense(300), act("relu"), dense(9)), 150, 64),
    "light normalize": Training(9, (("normalize",), dense(40), act("tanh"), dense(3)), 700, 600),
    "residual": Training(
        20,
        (
            dense(300),
            act("relu"),
            dense(40),
            act("tanh"),
            dense(300),
            ("add", 3),
            act("relu"),
            dense(7),
        ),
        150,
        64,
    ),
    "light residual": Training(
        9, (dense(9), act("tanh"), dense(9), ("add", 3), act("relu"), dense(3)), 700, 600
    ),
    "long batch norm": Training(
        6, (dense(33), ("batch_norm", 1e-3, True, True, 0.1), act("tanh"), dense(3)), 2600, 2400
    ),
    "half_sse": Training(8, (dense(63), act("sigmoid"), dense(16)), 40, 16, "half_sse", "sgd"),
}


def digest(*arrays: Array) -> str:
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def state(engine: Any) -> str:
    return digest(engine.parameters, engine.state, *engine.optimizer_state)


def trained(training: Training, dtype: str, epochs: int = 3) -> tuple[str, str]:
    """Digest of parameters and state, and of the losses and metrics of each epoch."""
    engine = training.engine(dtype)
    x, y = training.data(dtype)
    arguments = (x, y, training.batch, epochs, 0, True, 7, ["accuracy", "mse", "mae"])
    losses, metrics = engine.train(*arguments)
    assert np.isfinite(engine.parameters).all() and np.isfinite(losses).all()
    assert engine.steps == epochs * -(-training.rows // training.batch)
    return state(engine), digest(losses, metrics)


def test_the_trainings_use_every_activation_loss_and_optimizer() -> None:
    """A new entry has to appear in one of them: add it to a network above."""
    used = {layer[1] for t in TRAININGS.values() for layer in t.layers if layer[0] == "activation"}
    assert used == set(ACTIVATIONS)
    assert {t.loss for t in TRAININGS.values()} == set(LOSSES)
    assert {t.optimizer for t in TRAININGS.values()} == set(OPTIMIZERS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TRAININGS)
def test_threads_and_instruction_sets_change_no_bit_of_training(name: str, dtype: str) -> None:
    results = {}
    for threads in machine.THREADS:
        with machine.using_threads(threads):
            found = machine.on_every_isa(lambda: trained(TRAININGS[name], dtype))
        results |= {(threads, isa): result for isa, result in found.items()}
    assert len(set(results.values())) == 1, results
    assert len(results) == len(machine.THREADS) * len(machine.AVAILABLE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_updates_among_the_sums_of_another_tile_change_no_bit(optimizer: str, dtype: str) -> None:
    """Panels of whole vectors, whose updates avx512 makes beside the next tile's sums: of 4 to 6
    rows, with fewer values of k than a tile has vectors, and with more.
    """
    for inputs, batch in ((12, 24), (30, 5), (17, 150)):
        layers = (dense(64), act("tanh"), dense(64), act("tanh"), dense(3))
        training = Training(inputs, layers, 2 * batch, batch, "mse", optimizer)
        with machine.using_threads(1):
            results = machine.on_every_isa(lambda t=training: trained(t, dtype, 2))
        assert len(set(results.values())) == 1, (inputs, batch, results)


@pytest.mark.parametrize("dtype", DTYPES)
def test_updates_behind_several_chunks_change_no_bit(dtype: str) -> None:
    """As above: the update is made among the sums of the first of two chunks of the batch."""
    training = Training(1100, (dense(64), act("tanh"), dense(3)), 300, 300)
    with machine.using_threads(1):
        results = machine.on_every_isa(lambda: trained(training, dtype, 2))
    assert len(set(results.values())) == 1, results


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_thousand_steps(dtype: str) -> None:
    """More threads, more steps: rounding differences have time to grow."""
    results = {}
    for threads in (1, 2, 3, 4, 7, 8, 16):
        with machine.using_threads(threads):
            found = machine.on_every_isa(lambda: trained(TRAININGS["odd"], dtype, 200))
        results |= {(threads, isa): result for isa, result in found.items()}
    assert len(set(results.values())) == 1, results


def test_the_threshold_changes_no_bit() -> None:
    """The choice of threads by size of the work, instead of all always."""
    expected = {name: trained(training, "float32") for name, training in TRAININGS.items()}
    for name, training in TRAININGS.items():
        with machine.using_threads(2):
            _core.set_parallel_threshold(1e5)
            assert trained(training, "float32") == expected[name], name


def test_a_busy_machine_changes_no_bit() -> None:
    """While others take the processors the engine changes its number of threads in mid-run, between
    any two steps; losses and parameters do not show it.
    """
    stop = threading.Event()

    def load() -> None:
        square = np.ones((300, 300), np.float32)
        while not stop.is_set():
            square @ square

    training = TRAININGS["digits"]
    expected = trained(training, "float32", 60)
    others = [threading.Thread(target=load) for _ in range(3)]
    for other in others:
        other.start()
    try:
        with machine.using_threads(2):
            _core.set_parallel_threshold(1)  # above 0: the number may change
            for _ in range(3):
                assert trained(training, "float32", 60) == expected
    finally:
        stop.set()
        for other in others:
            other.join()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TRAININGS)
def test_one_call_is_many_steps(name: str, dtype: str) -> None:
    """train() over several epochs, one call per epoch, and step() over the same batches by hand."""
    training = TRAININGS[name]
    x, y = training.data(dtype)
    whole, pieces, steps = (training.engine(dtype) for _ in range(3))
    losses, _ = whole.train(x, y, training.batch, 3, 5, True, 11, [])
    for epoch in range(3):
        loss, _ = pieces.train(x, y, training.batch, 1, 5 + epoch, True, 11, [])
        assert loss[0] == losses[epoch]
        order = _core.permutation(training.rows, 11, 5 + epoch)
        total = 0.0
        for at in range(0, training.rows, training.batch):
            rows = order[at : at + training.batch]
            weight = 1 if training.loss == "half_sse" else len(rows) / training.rows
            total += steps.step(x[rows], y[rows]) * weight
        assert total == pytest.approx(losses[epoch], rel=1e-14)
        assert state(pieces) == state(steps)
    assert state(whole) == state(pieces)
    assert whole.steps == pieces.steps == steps.steps


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_order_is_a_permutation_too(dtype: str) -> None:
    """shuffle=False equals steps over the rows as they lie; rows shuffled beforehand equal a
    shuffled epoch.
    """
    training = TRAININGS["odd"]
    x, y = training.data(dtype)
    shuffled, prepared = training.engine(dtype), training.engine(dtype)
    shuffled.train(x, y, 32, 1, 0, True, 3, [])
    order = _core.permutation(training.rows, 3, 0)
    assert sorted(order) == list(range(training.rows))
    prepared.train(x[order], y[order], 32, 1, 0, False, 0, [])
    assert state(shuffled) == state(prepared)


@pytest.mark.parametrize("dtype", DTYPES)
def test_runs_repeat(dtype: str) -> None:
    """In one process, and in another one with other threads and another instruction set."""
    expected = [trained(training, dtype) for training in TRAININGS.values()]
    assert [trained(training, dtype) for training in TRAININGS.values()] == expected
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_numerics_promise as t\n"
        f"t._core.set_isa('scalar'); t._core.set_num_threads(3)\n"
        f"print([t.trained(training, {dtype!r}) for training in t.TRAININGS.values()])"
    )
    assert machine.in_python(program).strip() == repr(expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TRAININGS)
def test_a_row_has_the_same_prediction_wherever_it_stands(name: str, dtype: str) -> None:
    """predict(X)[i] == predict(X[i:i+1]) for every batch size to 70, on any thread count and
    instruction set; also beyond the 512 rows that are predicted at a time.
    """
    training = TRAININGS[name]
    engine, (x, _) = training.engine(dtype), training.data(dtype)
    x = np.concatenate([x] * (-(-530 // len(x))))[:530]
    outputs = next(layer[1] for layer in reversed(training.layers) if layer[0] == "dense")

    def predict(rows: Array) -> Array:
        out = np.full((len(rows), outputs), np.nan, dtype)
        engine.predict(np.ascontiguousarray(rows), out)
        return out

    alone = np.concatenate([predict(x[i : i + 1]) for i in range(140)])
    for rows in (*range(1, 71), 97, 140):
        sweeps.assert_same_bits(predict(x[:rows]), alone[:rows], f"{name}: {rows} rows")
        sweeps.assert_same_bits(predict(x[140 - rows : 140]), alone[140 - rows :], f"{rows} last")
    whole = predict(x)
    sweeps.assert_same_bits(whole[:140], alone)
    sweeps.assert_same_bits(predict(x[::-1]), whole[::-1].copy())
    for threads in machine.THREADS:
        with machine.using_threads(threads):
            sweeps.assert_same_bits(predict(x), whole, f"{name}: {threads} threads")
    for other in machine.AVAILABLE:
        with machine.using_isa(other):
            twin = training.engine(dtype)
            out = np.empty((len(x), outputs), dtype)
            twin.predict(x, out)
        sweeps.assert_same_bits(out, whole, f"{name} on {other}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_prediction_is_training_forward(dtype: str) -> None:
    """The loss that a step reports is that of predict's output: one forward pass, not two kinds."""
    for name, training in TRAININGS.items():
        if any(layer[0] not in ("dense", "activation") for layer in training.layers):
            continue  # a layer that does otherwise in training
        engine, (x, y) = training.engine(dtype), training.data(dtype)
        loss, _ = engine.evaluate(x, y, len(x), [])
        assert engine.gradients(x, y) == loss, name


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_what_a_step_applies(dtype: str) -> None:
    """w - rate * gradient, in one fused multiply-add, is what plain SGD leaves: exact where rate is
    a power of two, since then the product is.
    """
    for rows in (1, 7, 33, 64, 500, 1300):
        engine = _core.Engine(9, [dense(17), act("tanh"), dense(5)], dtype)
        engine.parameters[...] = 0
        for offset, fan, cols, bias in engine.parameter_shapes:
            block = engine.parameters[offset : offset + (fan + bias) * cols]
            block[...] = sweeps.normal(fan, dtype, block.size)
        engine.compile("mse", 0.0, "sgd", {"learning_rate": 0.125})
        x, y = sweeps.normal(1, dtype, rows, 9), sweeps.normal(2, dtype, rows, 5)
        engine.gradients(x, y)
        before, gradient = engine.parameters.copy(), engine.gradients_.copy()
        engine.step(x, y)
        sweeps.assert_same_bits(engine.parameters, before - np.dtype(dtype).type(0.125) * gradient)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bias_gradient_is_the_column_sum(isa: str, dtype: str) -> None:
    """Of the loss gradient, for batches around a chunk of 256 rows and several of them.

    The network is too wide to be a light one, which sums its batch in other chunks (plan.h).
    """
    inputs = 1200
    for rows in (1, 8, 33, 255, 257, 513, 1025, 2000):
        engine = _core.Engine(inputs, [dense(7)], dtype)
        engine.parameters[: inputs * 7 + 7] = sweeps.normal(1, dtype, inputs * 7 + 7)
        engine.compile("half_sse", 0.0, "sgd", {"learning_rate": 0.1})
        x, y = sweeps.normal(2, dtype, rows, inputs), sweeps.normal(3, dtype, rows, 7)
        out, dy, sums = np.empty((rows, 7), dtype), np.empty((rows, 7), dtype), np.empty(7, dtype)
        engine.predict(x, out)
        _core.loss("half_sse", out, y, dy, 0.0)
        _core.column_sum(dy, sums)
        engine.gradients(x, y)
        sweeps.assert_same_bits(engine.gradients_[inputs * 7 :][:7], sums, f"{isa}, {rows} rows")


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_layers_of_the_engine_are_the_functions(isa: str, dtype: str) -> None:
    """predict is matmul with bias and activation, layer by layer, bit for bit, where no number is
    denormal.
    """
    training = TRAININGS["odd"]
    engine, (x, _) = training.engine(dtype), training.data(dtype)
    out = np.empty((len(x), 7), dtype)
    engine.predict(x, out)
    shapes, value = iter(engine.parameter_shapes), x
    for layer in training.layers:
        if layer[0] == "dense":
            offset, rows, cols, bias = next(shapes)
            kernel = engine.parameters[offset : offset + rows * cols].reshape(rows, cols)
            start = offset + rows * cols
            value = bp.ops.matmul(
                value, kernel, bias=engine.parameters[start : start + cols] if bias else None
            )
        else:
            value = bp.ops.activation_forward(layer[1], value)
    sweeps.assert_same_bits(out, value, isa)


@pytest.mark.parametrize("dtype", DTYPES)
def test_denormals_count_as_zero_inside_the_engine_only(dtype: str) -> None:
    """Denormal inputs and products vanish in predict and fit, on every worker, whatever its index;
    the caller's arithmetic, and fastbp.ops, keep them before and after.
    """
    small = np.array([np.finfo(dtype).tiny / 8], dtype)

    def keeps() -> bool:
        return bool((small * np.dtype(dtype).type(1) != 0).all())

    assert keeps()
    for threads in machine.THREADS:
        with machine.using_threads(threads):
            engine = _core.Engine(1, [dense(70, False)], dtype)
            engine.parameters[:70] = 1
            engine.compile("mse", 0.0, "sgd", {"learning_rate": 0.5})
            x = np.full((100, 1), small[0], dtype)
            out = np.full((100, 70), np.nan, dtype)
            engine.predict(x, out)
            assert (out == 0).all()
            assert keeps()
            engine.train(x, np.ones((100, 70), dtype), 9, 2, 0, True, 0, ["mse"])
            assert (engine.parameters[:70] == 1).all(), "a gradient of denormals is 0"
            assert keeps()
            assert (bp.ops.matmul(x, np.ones((1, 3), dtype)) == small).all()
            assert (bp.ops.identity(x) == small).all()
    with machine.using_threads(2), pytest.raises(ValueError, match=r"columns|inputs|shape"):
        engine.predict(np.ones((2, 3), dtype), out)
    assert keeps()


def model_digest(threads: int, name: str, dtype: str) -> str:
    """A model trained through the public interface, from seed and data alone."""
    x, y = sweeps.normal(1, "float64", 150, 20), np.arange(150) % 6
    with machine.using_threads(threads), machine.using_isa(name):
        model = bp.Sequential(
            [bp.Dense(37, activation="gelu"), bp.Tanh(), bp.Dense(6)], seed=123456789012
        )
        model.compile(bp.AdamW(1e-2), "softmax_cross_entropy", metrics=["accuracy"], dtype=dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(x, y, epochs=4, batch_size=32, validation_split=0.2, verbose=0)
        return digest(*model.parameters().values(), model.predict(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_models_keep_the_promise(dtype: str) -> None:
    digests = {
        (threads, name): model_digest(threads, name, dtype)
        for threads in machine.THREADS
        for name in machine.AVAILABLE
    }
    assert len(set(digests.values())) == 1, digests


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted on Linux")
def test_that_many_threads_ran() -> None:
    """What the tests above ask for, the team has: its members carry its name."""
    with machine.using_threads(max(machine.THREADS)):
        trained(TRAININGS["narrow"], "float32", 1)
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    assert sum(name.startswith("fastbp-") for name in names) >= max(machine.THREADS) - 1


@pytest.mark.skipif(
    not Path("/proc/cpuinfo").exists(), reason="the CPU's features are asked of Linux"
)
def test_every_instruction_set_of_this_machine_ran() -> None:
    """What was compiled and the system says the processor has is available, so that no test above
    passed by not running.
    """
    text = Path("/proc/cpuinfo").read_text()
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    flags = set(line.partition(":")[2].split())
    needs = {
        "scalar": set(),
        "avx2": {"avx2", "fma"},
        "avx512": {"avx512f", "avx512vl", "avx512dq", "avx512bw"},
        "neon": {"asimd"},
    }
    if "EMULATE_AVX512" in _core.build_info()["flags"]:
        needs["avx512"] = needs["avx2"]
    for name in machine.COMPILED:
        assert (name in machine.AVAILABLE) == (needs[name] <= flags), (name, sorted(flags))
