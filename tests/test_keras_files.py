"""Files that Keras itself wrote (fixtures/make_keras_files.py): the predictions are Keras' own.

Where Keras is installed, many more of its models go through each of its formats.
"""

import importlib.util
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp

FOLDER = Path(__file__).parent / "fixtures" / "keras"
X = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)
S = np.random.default_rng(2).normal(size=(5, 6, 4)).astype(np.float32)


def table() -> list[Any]:
    layers: list[Any] = [bp.Normalize(), bp.Dense(6, "relu"), bp.BatchNorm(epsilon=1e-3)]
    layers += [bp.Dense(5, "tanh", use_bias=False), bp.LayerNorm(epsilon=1e-3), bp.Dropout(0.1)]
    return [*layers, bp.Dense(2)]


def sequences() -> list[Any]:
    layers = [bp.Embedding(9, 3), bp.Bidirectional(bp.GRU(2, return_sequences=True))]
    layers += [bp.LSTM(4, return_sequences=True), bp.TimeDistributed(bp.Dense(3, "tanh"))]
    return [*layers, bp.GRU(3, return_sequences=True), bp.SimpleRNN(3), bp.Dense(2)]


MODELS: dict[str, Callable[[], list[Any]]] = {"table": table, "sequences": sequences}


FILES = sorted(path.name for path in FOLDER.glob("*") if path.suffix != ".npz")


@pytest.mark.parametrize("file", FILES)
def test_files_that_keras_wrote(file: str, device: str) -> None:
    pytest.importorskip("h5py")
    name = file.split(".")[0]
    with np.load(FOLDER / "expected.npz") as expected:
        x, right = expected[f"{name}_x"], expected[name]
    model = bp.Sequential(MODELS[name]())
    model.compile("adam", "mse", device=device)
    model.load_keras_weights(FOLDER / file)
    np.testing.assert_allclose(model.predict(x), right, rtol=1e-5, atol=1e-5)
    if name == "table":  # built already, with numbers of its own
        layers = [bp.Normalize().adapt(x + 7), *table()[1:]]
        built = bp.Sequential(layers)
        built.compile("adam", "mse", device=device)
        built.build(4)
        built.load_keras_weights(FOLDER / file)
        np.testing.assert_array_equal(built.predict(x), model.predict(x))


def test_a_normalization_that_does_not_fit_changes_nothing() -> None:
    pytest.importorskip("h5py")
    path = FOLDER / "table.weights.h5"
    with pytest.raises(ValueError, match=r"1 Normalization layers, the model 0 of Normalize"):
        bp.Sequential(table()[1:]).load_keras_weights(path)
    norm = bp.Normalize().adapt(np.arange(12.0).reshape(4, 3))
    model = bp.Sequential([norm, *table()[1:]])
    model.compile("adam", "mse")
    model.build(3)
    before, center = model.predict(np.ones((2, 3))), norm.center
    with pytest.raises(ValueError, match="adapted to 4 columns; got 3"):
        model.load_keras_weights(path)
    assert norm.center == center
    np.testing.assert_array_equal(model.predict(np.ones((2, 3))), before)


def test_what_has_no_counterpart_is_named(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "net.weights.h5"
    with h5py.File(path, "w") as content:
        content["layers/sequential/layers/dense/vars/0"] = np.ones((4, 2))
    with pytest.raises(ValueError, match="'sequential' is a model within the model"):
        bp.Sequential([bp.Dense(2, use_bias=False)]).load_keras_weights(path)
    with h5py.File(path, "w") as content:
        for number, shape in enumerate([(4, 9), (3, 9), (9,)]):
            content[f"layers/gru/cell/vars/{number}"] = np.ones(shape)
    with pytest.raises(ValueError, match="gru has one bias only, as with reset_after=False"):
        bp.Sequential([bp.GRU(3)]).load_keras_weights(path)


def test_bfloat16_is_read_as_it_is(tmp_path: Path) -> None:
    """Keras stores it as two opaque bytes."""
    h5py = pytest.importorskip("h5py")
    kernel = np.array([[1.5, -2.0], [0.25, 3.0]], np.float32)
    path = tmp_path / "net.weights.h5"
    with h5py.File(path, "w") as content:
        content["layers/dense/vars/0"] = (kernel.view(np.uint32) >> 16).astype(np.uint16).view("V2")
    model = bp.Sequential([bp.Dense(2, use_bias=False)])
    model.load_keras_weights(path)
    np.testing.assert_array_equal(model.parameters()["0.kernel"], kernel)


Pair = tuple[list[Any], list[Any], Any]


def pairs(of: Any) -> dict[str, Pair]:
    """Layers of Keras, ours, and data."""
    found: dict[str, Pair] = {
        "dense": (
            [of.Dense(6, "relu"), of.Dense(5, "gelu", use_bias=False), of.Dense(2)],
            [bp.Dense(6, "relu"), bp.Dense(5, "gelu", use_bias=False), bp.Dense(2)],
            X,
        ),
        "twelve": (
            [of.Dense(4, "tanh") for _ in range(12)],
            [bp.Dense(4, "tanh") for _ in range(12)],
            X,
        ),
        "norms without parameters": (
            [of.BatchNormalization(center=False), of.LayerNormalization(scale=False), of.Dense(2)],
            [
                bp.BatchNorm(epsilon=1e-3, center=False),
                bp.LayerNorm(1e-3, scale=False),
                bp.Dense(2),
            ],
            X,
        ),
        "embedding": (
            [of.Embedding(9, 3), of.Flatten(), of.Dense(2)],
            [bp.Embedding(9, 3), bp.Flatten(), bp.Dense(2)],
            np.random.default_rng(0).integers(0, 9, (5, 6)),
        ),
    }
    for name in ("SimpleRNN", "LSTM", "GRU"):
        theirs, ours = getattr(of, name), getattr(bp, name)
        found[f"{name}, stacked"] = (
            [theirs(5, return_sequences=True), theirs(3), of.Dense(2)],
            [ours(5, return_sequences=True), ours(3), bp.Dense(2)],
            S,
        )
        found[f"{name}, both ways"] = (
            [
                of.Bidirectional(theirs(5, return_sequences=True), "sum"),
                of.Bidirectional(theirs(3)),
                of.Dense(2),
            ],
            [
                bp.Bidirectional(ours(5, return_sequences=True), "sum"),
                bp.Bidirectional(ours(3)),
                bp.Dense(2),
            ],
            S,
        )
        found[f"{name}, from the end, no bias"] = (
            [theirs(5, go_backwards=True, use_bias=False), of.Dense(2)],
            [ours(5, go_backwards=True, use_bias=False), bp.Dense(2)],
            S,
        )
    return found


@pytest.mark.filterwarnings("ignore")  # Keras, about NumPy and the older format
def test_models_of_the_keras_that_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("h5py")
    backend = next((b for b in ("jax", "torch") if importlib.util.find_spec(b)), None)
    if backend is None:
        pytest.skip("no backend of Keras is installed")
    monkeypatch.setenv("KERAS_BACKEND", backend)
    keras = pytest.importorskip("keras")
    rng = np.random.default_rng(0)
    for name, (theirs, ours, x) in pairs(keras.layers).items():
        kind = "int32" if x.dtype.kind == "i" else "float32"
        their_model = keras.Sequential([keras.Input(x.shape[1:], dtype=kind), *theirs])
        for weight in their_model.weights:
            drawn = rng.normal(size=weight.shape) / 2
            weight.assign(np.abs(drawn) + 0.3 if "variance" in weight.path else drawn)
        right = np.asarray(their_model.predict(x, verbose=0))
        for ending in (".weights.h5", ".keras", ".h5"):
            path = tmp_path / f"net{ending}"
            (their_model.save_weights if "weights" in ending else their_model.save)(path)
            assert zipfile.is_zipfile(path) == (ending == ".keras")
            model = bp.Sequential(ours)
            model.compile("adam", "mse")
            model.load_keras_weights(path)
            np.testing.assert_allclose(
                model.predict(x), right, rtol=1e-5, atol=1e-5, err_msg=f"{name} {ending}"
            )
            path.unlink()
