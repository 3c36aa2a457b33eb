"""Arrays of integers, bytes of images above all: the engine makes numbers of the rows it gathers.

Compared, bit for bit: training, evaluation and prediction with the same on the rows in floats, over
the ways in which batches are worked off, instruction sets, threads and dtypes; and the memory.
"""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import fastbp as bp
import machine
from sweeps import Array

isa = machine.isa


def bits(model: bp.Sequential) -> bytes:
    return b"".join(view.tobytes() for view in model.parameters().values())


class Watch(bp.Callback):
    """Sees every batch, so that each step is a call of its own; stops behind step number `at`."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.seen = at, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen += 1
        if self.seen == self.at:
            self.model.stop_training = True

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Any) -> None:
        """Nothing is kept."""


KINDS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "bool"]


def integers(kind: str, *shape: int) -> Array:
    """Of the whole range, so that float32 has to round the wide ones."""
    bits_ = np.random.default_rng(3).integers(0, 256, (*shape, np.dtype(kind).itemsize), np.uint8)
    if kind == "bool":
        return bits_[..., 0] > 127
    return bits_.view(kind)[..., 0]


# Networks that are worked off in all ways: whole, in parts, cut along their hidden units, with the
# inputs split among the threads, normalized on the way and not.
NETWORKS: dict[str, tuple[int, int, list[bp.Layer]]] = {
    "light": (9, 200, [bp.Dense(16, activation="relu"), bp.Dense(3)]),
    "cut": (67, 32, [bp.Dense(128, activation="relu"), bp.Dense(3)]),
    "by inputs": (1100, 16, [bp.Dense(8, activation="relu"), bp.Dense(3)]),
    "batch norm": (
        33,
        40,
        [bp.Dense(20), bp.BatchNorm(), bp.Residual([bp.Dense(20)]), bp.Dense(3)],
    ),
}


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_integers_train_as_their_floats(name: str, normalized: bool, isa: str) -> None:
    inputs, batch, layers = NETWORKS[name]
    kind = KINDS[list(NETWORKS).index(name) * 2 + normalized]
    results = set()
    for dtype in ("float32", "float64"):
        x = integers(kind, 3 * batch + 5, inputs)
        y = np.arange(len(x)) % 3
        for threads in (1, 2):
            for data in (x, x.astype(dtype)):
                first = [bp.Normalize().adapt(x)] if normalized else []
                model = bp.Sequential([*first, *layers], seed=1)
                model.compile("adam", "softmax_cross_entropy", ["accuracy", "f1"], dtype=dtype)
                scale = 1 if normalized else 1e-3 / np.abs(x.astype(np.float64)).max()
                model.build(inputs)
                model.parameters()[f"{len(first)}.kernel"][...] *= scale
                with machine.using_threads(threads):
                    history = model.fit(data, y, epochs=5, batch_size=batch, verbose=0)
                    scores = model.evaluate(data, y, batch_size=50)
                    outputs = model.predict(data).tobytes()
                assert np.isfinite(history.history["loss"]).all()
                results.add(
                    (dtype, bits(model), repr(history.history["loss"]), repr(scores), outputs)
                )
    assert len(results) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_integers_of_every_kind(kind: str) -> None:
    """With what is held out in order and by class, images, weights, a memory map, and resume."""
    x, y = integers(kind, 130, 4, 3), np.arange(130) % 3
    weights = np.linspace(0.5, 2, 130)
    results = []
    for data in (x, x.astype(np.float32)):
        norm = bp.Normalize().adapt(x.reshape(130, -1))
        layers = [bp.Flatten(), norm, bp.Dense(8, activation="tanh"), bp.Dense(3)]
        model = bp.Sequential(layers, seed=0)
        model.compile("adam", "softmax_cross_entropy", ["accuracy", "auc"])
        for stratify in (False, True):
            history = model.fit(
                data,
                y,
                epochs=2,
                batch_size=16,
                validation_split=0.3,
                stratify=stratify,
                sample_weight=weights,
                callbacks=Watch(at=0),
                gradient_norms=True,
                verbose=0,
            )
            results.append((bits(model), history.to_dict()))
        assert model.step(data[:9], y[:9]) > 0
        results.append((bits(model), model.predict(data).tobytes()))
    assert results[:3] == results[3:]


def test_a_run_on_integers_goes_on_with_floats() -> None:
    x, y = integers("uint8", 90, 6), np.arange(90) % 3
    models = [bp.Sequential([bp.Dense(5, "tanh"), bp.Dense(3)], seed=2) for _ in range(2)]
    for model in models:
        model.compile("adam", "softmax_cross_entropy")
    stop = Watch(at=7)
    models[0].fit(x, y, epochs=4, batch_size=20, verbose=0, callbacks=Watch(at=0))
    models[1].fit(x, y, epochs=4, batch_size=20, verbose=0, callbacks=stop)
    stop.at = 0
    floats = x.astype(np.float32)
    models[1].fit(floats, y, epochs=4, batch_size=20, verbose=0, callbacks=stop, resume=True)
    assert bits(models[1]) == bits(models[0])


def test_bytes_are_never_copied_as_floats() -> None:
    """6 MB of uint8 would be 24 MB of float32; NumPy tells tracemalloc of its memory."""
    x, y = integers("uint8", 8000, 784), np.arange(8000) % 10
    model = bp.Sequential([bp.Normalize().adapt(x), bp.Dense(16, "relu"), bp.Dense(10)], seed=0)
    model.compile("adam", "softmax_cross_entropy", ["accuracy"])
    model.fit(x[:64], y[:64], verbose=0)
    tracemalloc.start()
    model.fit(x, y, epochs=1, batch_size=128, validation_split=0.2, verbose=0)
    model.evaluate(x, y)
    model.predict(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000
