"""device="cuda" gives the bits of device="cpu": whole networks, emulated or on a GPU.

The library of csrc/kernels/cuda and csrc/engine/cuda is built for the emulated device, or with
`pytest -m gpu` for this machine's, and loaded through FASTBP_CUDA_LIBRARY. Compared bit for bit
with the CPU, in float32 and float64: parameters and optimizer state after training, losses,
metrics, predictions and gradients.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastbp as bp
import machine
from cuda_library import copied, in_orders, is_emulated, launches
from fastbp import _core
from sweeps import DTYPES, Array, assert_same_bits

SCHEDULES = ("reverse", "random:1", "random:2")


@pytest.fixture(autouse=True)
def library(device_library: Path) -> Path:
    return device_library


class Case(NamedTuple):
    """A network and how it is trained."""

    layers: Callable[[], Sequence[bp.layers.Layer]]
    inputs: int
    rows: int
    batch: int
    loss: str | bp.Loss
    optimizer: bp.optimizers.Optimizer
    metrics: tuple[str, ...] = ()
    labels: bool = False  # class numbers instead of rows

    def data(self, dtype: str) -> tuple[Array, Array]:
        rng = np.random.default_rng(7)
        x = rng.normal(size=(self.rows, self.inputs)).astype(dtype)
        outputs = bp.Sequential(self.layers()).outputs
        if self.labels:
            return x, rng.integers(0, outputs, self.rows)
        return x, rng.random((self.rows, outputs)).astype(dtype)

    def model(self, device: str, dtype: str) -> bp.Sequential:
        model = bp.Sequential(self.layers(), seed=3)
        model.compile(self.optimizer, self.loss, list(self.metrics), device=device, dtype=dtype)
        return model


def mlp(*layers: tuple[int, str | None], bias: bool = True) -> Callable[[], list[bp.layers.Layer]]:
    return lambda: [bp.Dense(units, activation=name, use_bias=bias) for units, name in layers]


def loose_activations() -> list[bp.layers.Layer]:
    """Activations on their own: in front, twice in a row, at the end; one that saves its input."""
    return [bp.Activation("gelu"), bp.Dense(9), bp.Activation("softplus"), bp.ReLU(),
            bp.Dense(4), bp.Activation("leaky_relu"), bp.Activation("silu")]  # fmt: skip


def dropouts() -> list[bp.layers.Layer]:
    """In front, behind an activation, twice in a row, and last."""
    return [bp.Dropout(0.2), bp.Dense(70, activation="gelu"), bp.Dropout(0.5), bp.Dropout(0.3),
            bp.Dense(3), bp.Dropout(0.1)]  # fmt: skip


CASES = {
    "sgd, batches with a rest": Case(
        mlp((20, "tanh"), (3, None)), 7, 130, 32, "mse", bp.SGD(0.1), ("mse", "mae")),
    "momentum, one batch of chunks": Case(
        mlp((70, "relu"), (66, "gelu"), (2, None)), 5, 290, 290, "half_sse",
        bp.SGD(1e-4, momentum=0.9, weight_decay=0.01)),
    "nesterov, single rows": Case(
        mlp((6, "sigmoid"), (1, None)), 3, 9, 1, "mae", bp.SGD(0.01, momentum=0.5, nesterov=True)),
    "rmsprop, no bias": Case(
        mlp((17, "elu"), (2, None), bias=False), 4, 50, 20, "huber", bp.RMSprop(1e-2)),
    "adagrad, classes": Case(
        mlp((12, "gelu_tanh"), (10, None)), 8, 100, 33, "softmax_cross_entropy", bp.Adagrad(0.05),
        ("accuracy", "mse", "mae"), labels=True),
    "adam, many classes": Case(
        mlp((12, "mish"), (37, None)), 8, 60, 25, "softmax_cross_entropy", bp.Adam(0.01),
        ("accuracy",)),
    "adamw, classes as rows": Case(
        mlp((9, "relu"), (5, None)), 6, 40, 17, "softmax_cross_entropy", bp.AdamW(0.01),
        ("accuracy",)),
    "loose activations": Case(
        loose_activations, 6, 48, 16, "binary_cross_entropy_with_logits", bp.Adam(0.01),
        ("accuracy",)),
    "label smoothing, few classes": Case(
        mlp((9, "relu"), (5, None)), 6, 40, 17,
        bp.Loss("softmax_cross_entropy", label_smoothing=0.1), bp.SGD(0.1), ("accuracy", "mse"),
        labels=True),
    "label smoothing, many classes as rows": Case(
        mlp((9, "relu"), (21, None)), 6, 40, 17,
        bp.Loss("softmax_cross_entropy", label_smoothing=0.1), bp.SGD(0.1), ("mae",)),
    "dropout": Case(dropouts, 6, 50, 20, "mse", bp.Adam(0.01), ("mse",)),
    "several tiles of outputs": Case(
        mlp((9, "relu"), (300, None)), 6, 40, 17, "mse", bp.SGD(0.1), ("mse", "mae")),
    "many answers": Case(
        mlp((9, "relu"), (45, "sigmoid")), 6, 70, 40, "binary_cross_entropy", bp.SGD(0.1),
        ("accuracy",)),
    "heavy, sums over many inputs": Case(
        mlp((260, "relu"), (20, None)), 600, 20, 20, "mse", bp.Adam(1e-3)),
}  # fmt: skip


def digest(*values: Any) -> str:
    """SHA-256 of arrays and numbers, nested anyhow."""
    sha = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, np.ndarray):
            sha.update(value.tobytes())
        elif isinstance(value, dict):
            add(list(value.items()))
        elif isinstance(value, (list, tuple)):
            for item in value:
                add(item)
        else:
            sha.update(repr(value).encode())

    add(values)
    return sha.hexdigest()


def state(model: bp.Sequential) -> list[Array]:
    """Copies of all parameters and of the optimizer's state."""
    engine = model._require_built()
    return [array.copy() for array in (engine.parameters, *engine.optimizer_state)]


def trained(case: Case, device: str, dtype: str, epochs: int = 2) -> tuple[bp.Sequential, Any]:
    x, y = case.data(dtype)
    model = case.model(device, dtype)
    history = model.fit(x, y, epochs=epochs, batch_size=case.batch, verbose=0)
    assert model.device == device
    return model, history.history


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_are_the_cpus(name: str, dtype: str) -> None:
    case = CASES[name]
    x, y = case.data(dtype)
    (cpu, cpu_history), (cuda, cuda_history) = (trained(case, d, dtype) for d in ("cpu", "cuda"))
    assert cuda_history == cpu_history
    assert digest(state(cuda)) == digest(state(cpu))
    assert digest(cuda.predict(x)) == digest(cpu.predict(x))
    assert cuda.evaluate(x, y, batch_size=24) == cpu.evaluate(x, y, batch_size=24)
    assert digest(cuda.forward(x, training=True)) == digest(cpu.forward(x, training=True))
    assert digest(cuda.gradients(x, y)) == digest(cpu.gradients(x, y))
    assert digest(cuda.input_gradient(x, y)) == digest(cpu.input_gradient(x, y))
    assert cuda.step(x, y) == cpu.step(x, y)
    assert digest(state(cuda)) == digest(state(cpu))


@pytest.mark.parametrize("rows", [2**15 + 3])
def test_the_order_of_many_rows_is_drawn_on_the_device(library: Path, rows: int) -> None:
    """And is the CPU's."""
    x, y = np.random.default_rng(0).normal(size=(2, rows, 1)).astype(np.float32)
    trained_on = {}
    before = launches(library, "follow_kernel")
    for device in ("cpu", "cuda"):
        model = bp.Sequential([bp.Dense(1)], seed=0)
        model.compile(bp.SGD(0.1), "mse", device=device)
        model.fit(x, y, epochs=1, batch_size=rows // 7, verbose=0)
        trained_on[device] = state(model)
    assert_same_bits(trained_on["cuda"][0], trained_on["cpu"][0])
    if before is not None:
        assert launches(library, "follow_kernel") == before + 1


@pytest.mark.parametrize("name", ["adagrad, classes", "momentum, one batch of chunks"])
def test_order_of_threads_does_not_matter(library: Path, name: str) -> None:
    expected = digest(state(trained(CASES[name], "cuda", "float32", epochs=1)[0]))
    for schedule in in_orders(library, SCHEDULES):
        found = digest(state(trained(CASES[name], "cuda", "float32", epochs=1)[0]))
        assert found == expected, schedule


def test_steps_are_recorded_and_replayed() -> None:
    """A kind of step is enqueued at first, recorded when it comes again, and then replayed."""
    case = CASES["sgd, batches with a rest"]  # 4 batches of 32 rows and one of 2
    x, y = case.data("float32")
    model = case.model("cuda", "float32")
    model.build(case.inputs)
    engine: Any = model._require_built()
    engine.set_persistent(False)
    schedule = (32, 3, 0, True, 5, [])
    engine.train(x, y, *schedule)
    assert engine.replays == (3 * 4 - 1) + (3 - 1)
    model.optimizer.learning_rate = 0.01  # is in a table, not in the recording
    twin = case.model("cpu", "float32")
    twin.build(case.inputs)
    twin._require_built().train(x, y, *schedule)
    twin.optimizer.learning_rate = 0.01
    for _ in range(4):
        assert model.step(x[:50], y[:50]) == twin.step(x[:50], y[:50])
    assert engine.replays == 13 + 3
    assert digest(state(model)) == digest(state(twin))
    model.compile("adam", "mae", device="cuda")  # another step under the same addresses
    twin.compile("adam", "mae", device="cpu")
    for _ in range(3):
        assert model.step(x[:50], y[:50]) == twin.step(x[:50], y[:50])
    assert digest(state(model)) == digest(state(twin))


@pytest.mark.timing  # the host must be quick enough to run ahead
@pytest.mark.parametrize("batch", [2, 3])  # 80 of them; 53 and a rest
def test_steps_that_are_alike_are_replayed_together(library: Path, batch: int) -> None:
    """By one launch of a graph for 8 steps, and with the same bits, also where a run is stopped."""
    case = Case(
        mlp((1, None)), 1, 160, 32, "mse", bp.SGD(0.01)
    )  # so small that the host runs ahead
    x, y = case.data("float32")
    models = [case.model(device, "float32") for device in ("cuda", "cpu")]
    engines: list[Any] = []
    for model in models:
        model.build(case.inputs)
        engines.append(model._require_built())
    engines[0].set_persistent(False)
    before = launches(library, "cudaGraphLaunch")
    for engine in engines:
        engine.train(x, y, batch, 8, 0, True, 5, [])
    for steps in (9, 21, 1):
        for engine in engines:
            engine.train(x, y, batch, 2, 0, True, 5, [], steps=steps)
    assert engines[0].steps == engines[1].steps
    assert engines[0].steps - engines[0].replays < 6  # those that were recorded
    if before is not None:
        assert launches(library, "cudaGraphLaunch") - before < engines[0].steps * 2 // 3
    assert digest(state(models[0])) == digest(state(models[1]))


@pytest.mark.parametrize("whole", [True, False])
def test_the_learning_rate_follows_its_schedule(whole: bool) -> None:
    """As on the CPU: by pieces, and of a Python function; across fits; after compile no more."""
    rates: list[Any] = [
        bp.WarmUp(bp.CosineDecay(0.1, 7), 3),
        bp.StepDecay(0.1, 4),
        lambda step: 0.1 / (1 + step),
    ]
    case = CASES["adagrad, classes"]
    x, y = case.data("float32")
    for rate in rates:
        models = [
            case._replace(optimizer=bp.Adam(rate)).model(device, "float32")
            for device in ("cpu", "cuda")
        ]
        for model in models:
            model.build(case.inputs)
        engine: Any = models[1]._require_built()
        engine.set_persistent(whole)
        histories = []
        for model in models:
            runs = [model.fit(x, y, epochs=n, batch_size=33, verbose=0).history for n in (2, 1)]
            model.compile("sgd", case.loss, device=model.device)
            model.step(x, y)
            histories.append(runs)
        assert histories[0] == histories[1]
        assert digest(state(models[0])) == digest(state(models[1]))


def test_denormals_are_flushed_as_on_the_cpu() -> None:
    """Gradients of about 1e-41 are 0 in float32: the momentum stays 0, and never a denormal."""
    case = Case(mlp((2, None), bias=False), 3, 8, 8, "half_sse", bp.SGD(1.0, momentum=0.9))
    slots = []
    for device in ("cpu", "cuda"):
        model = case.model(device, "float32")
        x, y = np.full((8, 3), 1e-21, np.float32), np.full((8, 2), 1e-21, np.float32)
        model.fit(x, y, epochs=2, batch_size=8, verbose=0)
        slots.append(state(model)[1])
        wide = case.model(device, "float64")
        wide.fit(x.astype("float64"), y.astype("float64"), epochs=2, batch_size=8, verbose=0)
        assert np.all(state(wide)[1][:6] != 0)  # there would be something to see
    assert digest(slots[0]) == digest(slots[1])
    assert not np.any((slots[1] != 0) & (np.abs(slots[1]) < np.finfo(np.float32).tiny))


def test_parameters_are_live_and_writable() -> None:
    case = CASES["sgd, batches with a rest"]
    x, y = case.data("float32")
    cuda, cpu = (trained(case, device, "float32")[0] for device in ("cuda", "cpu"))
    held = cuda.parameters()["0.kernel"]
    before = held.copy()
    cuda.step(x, y)
    assert not np.array_equal(held, before)  # a held view follows the device
    held[2, 3] = 0.5
    cpu.step(x, y)
    cpu.parameters()["0.kernel"][2, 3] = 0.5
    assert digest(cuda.predict(x)) == digest(cpu.predict(x))
    new = np.full_like(before, 0.25)
    for model in (cuda, cpu):
        model.set_parameters({"0.kernel": new})  # nobody holds a view of these
    del held
    assert digest(cuda.predict(x)) == digest(cpu.predict(x))
    assert digest(cuda.step(x, y), state(cuda)) == digest(cpu.step(x, y), state(cpu))


def test_parameters_that_nobody_holds_stay_on_the_device(library: Path) -> None:
    case = CASES["sgd, batches with a rest"]
    x, y = case.data("float32")
    model = case.model("cuda", "float32")
    model.fit(x, y, verbose=0)
    engine = model._require_built()
    held = engine.parameters
    model.step(x[:32], y[:32])
    assert engine._copies
    del held
    model.step(x[:32], y[:32])
    assert not engine._copies
    if is_emulated(library):
        before = copied(library)["out"]
        model.step(x[:32], y[:32])
        assert copied(library)["out"] - before < 64  # the loss


class Looks(bp.Callback):
    """Predicts behind every batch; behind so many saves the model and ends the run."""

    def __init__(self, batches: int, path: Path) -> None:
        super().__init__()
        self.left, self.path = batches, path

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        self.model.predict(np.full((50, 7), batch, np.float32))
        self.left -= 1
        if self.left == 0:
            self.model.save(self.path)
            self.model.stop_training = True


def test_an_epochs_outputs_are_those_of_its_steps(tmp_path: Path) -> None:
    """Where other calls come between its pieces, and where a model from a file makes the rest: a
    metric of all outputs is then that of the whole, as on the CPU."""
    case = CASES["sgd, batches with a rest"]._replace(metrics=("r2",))
    (x, y), path = case.data("float32"), tmp_path / "net.safetensors"
    arguments: dict[str, Any] = {"epochs": 2, "batch_size": case.batch, "verbose": 0}
    histories = []
    for device in ("cpu", "cuda"):
        whole, stopped = (case.model(device, "float32") for _ in range(2))
        histories.append(whole.fit(x, y, **arguments).history)
        stopped.fit(x, y, **arguments, callbacks=Looks(7, path))  # in the second epoch
        again = bp.load(path, device=device)
        end = again.fit(x, y, **arguments, callbacks=Looks(-1, path), resume=path)
        histories.append(end.history)
    assert all(history == histories[0] for history in histories)


def test_training_goes_on_from_a_file_on_another_device(tmp_path: Path) -> None:
    case = CASES["adam, many classes"]
    x, y = case.data("float32")
    whole, _ = trained(case, "cpu", "float32", epochs=3)
    for first, second in (("cuda", "cpu"), ("cpu", "cuda")):
        model, _ = trained(case, first, "float32", epochs=1)
        model.save(tmp_path / "net.safetensors")
        again = bp.load(tmp_path / "net.safetensors", device=second)
        again.fit(x, y, epochs=2, batch_size=case.batch, verbose=0)
        assert digest(state(again)) == digest(state(whole))


@pytest.mark.usefixtures("emulated_device")
def test_too_little_memory_is_a_memory_error(monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["sgd, batches with a rest"]
    rows = 600_000  # what other tests still hold is little beside them
    x, y = np.zeros((rows, 7), np.float32), np.zeros((rows, 3), np.float32)
    model, _ = trained(case, "cuda", "float32")
    engine: Any = model._require_built()
    engine.set_persistent(False)  # a batch's activations are in memory
    before = digest(state(model))
    monkeypatch.setenv("FASTBP_EMULATION_MEMORY", str(2**26))  # there is room for the data
    with pytest.raises(MemoryError, match=r"MiB for activations.*parameters.*smaller batch_size"):
        model.fit(x, y, batch_size=rows, verbose=0)
    monkeypatch.setenv("FASTBP_EMULATION_MEMORY", str(2**24))
    with pytest.raises(MemoryError, match=r"MiB for the training data.*Fewer rows at a time"):
        model.fit(x, y, batch_size=100, verbose=0)
    assert digest(state(model)) == before
    monkeypatch.delenv("FASTBP_EMULATION_MEMORY")
    model.step(x[:100], y[:100])


def test_interrupt_leaves_the_model_between_two_steps() -> None:
    case = CASES["sgd, batches with a rest"]
    x, y = case.data("float32")
    case.model("cuda", "float32").fit(
        x, y, verbose=0
    )  # what the first use loads takes a GPU a moment
    model = case.model("cuda", "float32")
    with (
        pytest.raises(KeyboardInterrupt),
        machine.ctrl_c_when(lambda: model.epochs_trained > 0, 0.05) as sent,
    ):
        model.fit(x, y, epochs=100_000, batch_size=32, shuffle=False, verbose=0)
    assert time.perf_counter() - sent[0] < 20
    steps = model._require_built().steps
    assert steps > 0 and model.epochs_trained == steps // 5
    twin = case.model("cpu", "float32")
    for step in range(steps):
        rows = slice(step % 5 * 32, step % 5 * 32 + 32)
        twin.step(x[rows], y[rows])
    assert digest(state(model)) == digest(state(twin))


@pytest.mark.parametrize("name", ["sgd, batches with a rest", "adagrad, classes"])
def test_a_run_stops_and_goes_on_anywhere(name: str) -> None:
    """Stopped after 1, 3, 4, ... steps, across epochs, it is the run in one piece; outputs too."""
    case = CASES[name]
    x, y = case.data("float32")
    metrics = list(case.metrics)
    schedule = (case.batch, 3, 2, True, 11, metrics)
    whole, parts = (case.model(device, "float32") for device in ("cpu", "cuda"))
    for model in (whole, parts):
        model.build(case.inputs)
    outputs = np.zeros((2, case.rows, whole.outputs), np.float32)
    expected = whole._require_built().train(x, y, *schedule, outputs=outputs[0])
    position, record = np.zeros(2, np.int64), np.zeros((3, 1 + len(metrics)))
    engine = parts._require_built()
    for steps in (1, 3, 4, 2, -1):
        found = engine.train(x, y, *schedule, position, record, steps, outputs[1])
    assert position.tolist() == [3, 0]
    assert digest(*found) == digest(*expected)
    assert digest(state(parts), outputs[1]) == digest(state(whole), outputs[0])
    sums = np.zeros((2, 1 + len(metrics)))
    for model, total, kept in zip((whole, parts), sums, outputs, strict=True):
        for _ in range(2):
            model._require_built().train_batch(x, y, metrics, total, kept)
    assert digest(sums[0], outputs[0]) == digest(sums[1], outputs[1])
    evaluated = [model._require_built().evaluate(x, y, 7, metrics, kept)
                 for model, kept in zip((whole, parts), outputs, strict=True)]  # fmt: skip
    assert evaluated[0] == evaluated[1] and digest(outputs[0]) == digest(outputs[1])


def test_what_cuda_does_not_have_is_said() -> None:
    with pytest.raises(ValueError, match=r"layers: expected .* got 'mystery'"):
        _core.CudaNetwork(2, [("dense", 3, True), ("mystery", 1)], "float32", 0, 0)


def test_engine_checks_what_it_is_given() -> None:
    network = _core.CudaNetwork(2, [("dense", 3, True)], "float32", 0, 0)
    x, y = np.ones((4, 2), np.float32), np.ones((4, 3), np.float32)
    with pytest.raises(ValueError, match="compile"):
        network.step(x, y)
    network.compile("mse", 0.0, "sgd", {"learning_rate": 0.1})
    with pytest.raises(TypeError, match=r"x: .*float32.*float64"):
        network.step(x.astype(np.float64), y)
    with pytest.raises(ValueError, match="y: "):
        network.step(x, y[:3])
    with pytest.raises(ValueError, match="unknown loss"):
        network.compile("nothing", 0.0, "sgd", {})
    with pytest.raises(ValueError, match="units"):
        _core.CudaNetwork(2, [("dense", 0, True)], "float32", 0, 0)
    assert network.step(x, y) > 0
