"""Networks to and from other libraries, against those libraries where they are installed.

PyTorch, ONNX Runtime and h5py are no requirements of the tests: what needs them is skipped without,
and said so. The layouts themselves are also checked with NumPy arrays alone.
"""

import importlib.util
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp
from fastbp.registry import ACTIVATIONS
from fastbp.transfer import onnx_graph

Array = np.ndarray[Any, np.dtype[Any]]


def small(*, seed: int = 0, built: bool = True, dtype: str = "float32") -> bp.Sequential:
    layers = [
        bp.Dense(7, "relu"),
        bp.Dropout(0.25),
        bp.Dense(6, use_bias=False),
        bp.Tanh(),
        bp.Dense(3),
    ]
    model = bp.Sequential(layers, seed=seed)
    model.compile(loss="softmax_cross_entropy", metrics=["accuracy"], dtype=dtype)
    if built:
        model.build(4)
    return model


def rows(n: int = 20, columns: int = 4, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(n, columns)).astype(np.float32)


def test_a_state_dict_has_the_names_and_shapes_of_nn_sequential() -> None:
    model = small()
    state = model.to_torch_state_dict(as_numpy=True)
    assert {name: array.shape for name, array in state.items()} == {
        "0.weight": (7, 4), "0.bias": (7,), "3.weight": (6, 7), "5.weight": (3, 6), "5.bias": (3,),
    }  # fmt: skip
    np.testing.assert_array_equal(state["0.weight"], model.parameters()["0.kernel"].T)
    state["0.weight"][...] = 0  # a copy
    assert model.parameters()["0.kernel"].any()


def test_a_state_dict_goes_round() -> None:
    model, other = small(seed=1), small(seed=2, built=False)
    other.load_torch_state_dict(model.to_torch_state_dict(as_numpy=True))
    np.testing.assert_array_equal(other.predict(rows()), model.predict(rows()))
    renamed = {
        name.replace("0.", "fc1.").replace("3.", "body.fc2.").replace("5.", "fc3."): array
        for name, array in model.to_torch_state_dict(as_numpy=True).items()
    }
    third = small(seed=3)
    third.load_torch_state_dict({"state_dict": renamed, "epoch": 7})
    np.testing.assert_array_equal(third.predict(rows()), model.predict(rows()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("5.weight") if s.pop("5.bias") is not None else None, "has 2 layers"),
        (lambda s: s.pop("0.bias"), "needs weight, bias"),
        (lambda s: s.update({"3.bias": np.zeros(6)}), "needs weight; '3' has weight, bias"),
        (lambda s: s.update({"5.weight": np.zeros((4, 6))}), r"\(6, 3\); the weights .* \(6, 4\)"),
        (lambda s: s.update({"0.weight": np.zeros((7, 5))}), "for 5 inputs, the model for 4"),
        (lambda s: s.update({"0.bias": np.full(7, np.nan)}), "NaN"),
    ],
)
def test_a_state_dict_that_does_not_fit_changes_nothing(change: Any, message: str) -> None:
    model = small()
    before = {name: array.copy() for name, array in model.parameters().items()}
    state = model.to_torch_state_dict(as_numpy=True)
    for array in state.values():
        array += 1
    change(state)
    with pytest.raises(ValueError, match=message):
        model.load_torch_state_dict(state)
    for name, array in model.parameters().items():
        np.testing.assert_array_equal(array, before[name])


def test_pytorch_computes_the_same() -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Sequential(
        torch.nn.Linear(4, 7), torch.nn.ReLU(), torch.nn.Dropout(0.25),
        torch.nn.Linear(7, 6, bias=False), torch.nn.Tanh(), torch.nn.Linear(6, 3),
    ).eval()  # fmt: skip
    model = small(built=False)
    model.load_torch_state_dict(theirs.state_dict())
    with torch.no_grad():
        expected = theirs(torch.from_numpy(rows())).numpy()
    np.testing.assert_allclose(model.predict(rows()), expected, rtol=1e-5, atol=1e-6)
    other = small(seed=5)
    theirs.load_state_dict(other.to_torch_state_dict())
    with torch.no_grad():
        expected = theirs(torch.from_numpy(rows())).numpy()
    np.testing.assert_allclose(other.predict(rows()), expected, rtol=1e-5, atol=1e-6)
    half = {name: tensor.bfloat16() for name, tensor in theirs.state_dict().items()}
    other.load_torch_state_dict(half)


def every_layer(*, seed: int = 0, trained: bool = True) -> bp.Sequential:
    """What nn.Sequential and ONNX have a counterpart for, with statistics of some steps."""
    block: list[bp.layers.Layer] = [
        bp.LayerNorm(),
        bp.Dense(5, "tanh"),
        bp.BatchNorm(),
        bp.Dense(7),
    ]
    layers = [
        bp.Flatten(),
        bp.Dense(7, use_bias=False),
        bp.BatchNorm(epsilon=1e-3),
        bp.ReLU(),
        bp.Residual(block),
        bp.LayerNorm(),
        bp.Dropout(0.2),
        bp.Dense(3),
    ]
    model = bp.Sequential(layers, seed=seed)
    model.compile(bp.SGD(0.1), "softmax_cross_entropy")
    model.build(4)
    for _ in range(5 * trained):
        model.step(2 * rows(seed=seed) + 1, np.arange(20) % 3)
    return model


def test_norms_and_blocks_in_a_state_dict() -> None:
    model = every_layer()
    state = model.to_torch_state_dict(as_numpy=True)
    norm = {"weight", "bias"}
    moving = {*norm, "running_mean", "running_var", "num_batches_tracked"}
    expected = {
        "1": {"weight"}, "2": moving, "4.0": norm, "4.1": norm, "4.3": moving, "4.4": norm,
        "5": norm, "7": norm,
    }  # fmt: skip
    assert set(state) == {f"{place}.{name}" for place, names in expected.items() for name in names}
    assert state["4.1.weight"].shape == (5, 7)
    assert state["2.num_batches_tracked"] == 5
    np.testing.assert_array_equal(state["2.running_var"], model.state()["2.moving_variance"])
    for other in (every_layer(seed=3), bp.Sequential(every_layer().layers)):
        other.load_torch_state_dict(state)
        np.testing.assert_array_equal(other.predict(rows()), model.predict(rows()))
    before = [model.predict(rows()), model.state()["2.moving_mean"].copy()]
    for name, wrong, said in (
        ("2.running_var", -np.ones(7), "must not be negative"),
        ("4.3.running_mean", np.full(5, np.nan), "NaN"),
        ("4.3.running_mean", np.zeros(4), "has shape"),
        ("5.bias", np.full(7, np.inf), "infinity"),
    ):
        bad = {key: array + 1 for key, array in state.items()} | {name: wrong}
        with pytest.raises(ValueError, match=said):
            model.load_torch_state_dict(bad)
        np.testing.assert_array_equal(model.predict(rows()), before[0])
        np.testing.assert_array_equal(model.state()["2.moving_mean"], before[1])


def test_pytorch_computes_the_same_with_norms_and_blocks() -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Residual(nn.Sequential):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x + super().forward(x)

    block = [nn.LayerNorm(7), nn.Linear(7, 5), nn.Tanh(), nn.BatchNorm1d(5), nn.Linear(5, 7)]
    theirs = nn.Sequential(
        nn.Flatten(), nn.Linear(4, 7, bias=False), nn.BatchNorm1d(7, eps=1e-3), nn.ReLU(),
        Residual(*block), nn.LayerNorm(7), nn.Dropout(0.2), nn.Linear(7, 3),
    )  # fmt: skip
    model = every_layer()
    theirs.load_state_dict(model.to_torch_state_dict())
    x = torch.from_numpy(rows())
    with torch.no_grad():
        expected = theirs.eval()(x).numpy()
        np.testing.assert_allclose(model.predict(rows()), expected, rtol=1e-5, atol=1e-5)
        theirs.train()(3 * x)  # moves the statistics
        expected = theirs.eval()(x).numpy()
    model.load_torch_state_dict(theirs.state_dict())
    np.testing.assert_allclose(model.predict(rows()), expected, rtol=1e-5, atol=1e-5)


def words(n: int = 20) -> Array:
    return np.random.default_rng(0).integers(0, 9, (n, 4))


def test_embedding_in_a_state_dict() -> None:
    model = bp.Sequential([bp.Embedding(9, 3), bp.Dense(2)], seed=0)
    model.build(4)
    state = model.to_torch_state_dict(as_numpy=True)
    assert {name: array.shape for name, array in state.items()} == {
        "0.weight": (9, 3), "2.weight": (2, 12), "2.bias": (2,),
    }  # fmt: skip
    other = bp.Sequential([bp.Embedding(9, 3), bp.Dense(2)], seed=1)
    other.load_torch_state_dict(state)
    assert other.inputs == 4
    np.testing.assert_array_equal(other.predict(words()), model.predict(words()))


def test_what_pytorch_has_not_is_refused() -> None:
    norm = bp.Normalize().adapt(rows())
    for layer in (norm, bp.Residual([norm])):
        model = bp.Sequential([layer, bp.Dense(2)])
        model.build(4)
        with pytest.raises(ValueError, match="Normalize, has no counterpart in PyTorch"):
            model.to_torch_state_dict(as_numpy=True)


def test_onnx_runtime_computes_the_same_of_every_layer(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "net.onnx"
    layers = [bp.Embedding(9, 3), bp.LayerNorm(), bp.Dense(2), bp.Softmax()]
    tables = bp.Sequential(layers, seed=0)
    tables.build(4)
    trained = every_layer()
    for method in ("standard", "minmax"):
        layers = [bp.Normalize(method).adapt(rows()), *trained.layers[1:]]
        normalized = bp.Sequential(layers, seed=4)
        normalized.build(4)
        for dtype in ("float32", "float64"):
            for model, data in ((trained, rows()), (normalized, rows()), (tables, words())):
                model.compile(loss="mse", dtype=dtype)
                model.export_onnx(path)
                session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
                (found,) = session.run(None, {"x": data.astype(dtype)})
                expected = model.predict(data.astype(dtype))
                np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_onnx_formulas_are_of_activations_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(onnx_graph.FORMULAS) <= set(ACTIVATIONS) and len(onnx_graph.FORMULAS) >= 11
    monkeypatch.delitem(onnx_graph.FORMULAS, "tanh")
    graph: Any = None  # not used before the formula is found
    with pytest.raises(ValueError, match="unknown activation in ONNX 'tanh'"):
        onnx_graph._layer(graph, small(), 3, bp.Tanh(), "x")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", onnx_graph.FORMULAS)
def test_onnx_runtime_computes_the_same(name: str, dtype: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    layers = [bp.Dense(8, name), bp.Dropout(0.5), bp.Activation(name), bp.Dense(3, use_bias=False)]
    model = bp.Sequential(layers, seed=0)
    model.compile(loss="softmax_cross_entropy", dtype=dtype)
    model.build(4)
    for bias in model.parameters().values():
        bias *= 3  # far enough out to see the tails
    X = (5 * rows(50)).astype(dtype)
    for probabilities, expected in ((False, model.predict(X)), (True, model.predict_proba(X))):
        path = tmp_path / "net.onnx"
        model.export_onnx(path, probabilities=probabilities)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for part in (X, X[:1]):
            (found,) = session.run(None, {"x": part})
            assert found.dtype == dtype
            np.testing.assert_allclose(found, expected[: len(part)], rtol=1e-5, atol=1e-5)


def test_onnx_export_refuses_before_it_writes(tmp_path: Path) -> None:
    model = bp.Sequential([bp.Dense(3)])
    path = tmp_path / "net.onnx"
    with pytest.raises(RuntimeError, match="no parameters yet"):
        model.export_onnx(path)
    model.compile(loss="mse")
    model.build(2)
    with pytest.raises(ValueError, match="is about classes"):
        model.export_onnx(path, probabilities=True)
    assert not list(tmp_path.iterdir())


def keras_3(content: Any, weights: list[list[Array]]) -> None:
    for number, arrays in enumerate(weights):
        group = content.create_group(f"layers/dense{f'_{number}' if number else ''}/vars")
        for i, array in enumerate(arrays):
            group[str(i)] = array


def keras_2(content: Any, weights: list[list[Array]]) -> None:
    root = content.create_group("model_weights")
    names = [f"layer_{number}" for number in range(len(weights))]
    root.attrs["layer_names"] = [name.encode() for name in [*names, "dropout"]]
    root.create_group("dropout").attrs["weight_names"] = []
    for name, arrays in zip(names, weights, strict=True):
        group = root.create_group(name)
        group.attrs["weight_names"] = [f"{name}/w{i}:0".encode() for i in range(len(arrays))]
        for i, array in enumerate(arrays):
            group[f"{name}/w{i}:0"] = array


@pytest.mark.parametrize("layout", [keras_3, keras_2])
@pytest.mark.parametrize("archive", [False, True])
def test_keras_weights(layout: Any, archive: bool, tmp_path: Path) -> None:
    """Twelve layers, so that dense_10 does not come before dense_2."""
    h5py = pytest.importorskip("h5py")
    import zipfile

    model, other = (
        bp.Sequential(
            [*(bp.Dense(5, "tanh") for _ in range(11)), bp.Dense(2, use_bias=False)], seed
        )
        for seed in (0, 1)
    )
    model.build(3)
    weights: dict[str, list[Array]] = {}
    for name, array in model.parameters().items():
        weights.setdefault(name.split(".")[0], []).append(array)
    path = tmp_path / "net.h5"
    with h5py.File(path, "w") as content:
        layout(content, list(weights.values()))
    if archive:
        with zipfile.ZipFile(tmp_path / "net.keras", "w") as file:
            file.write(path, "model.weights.h5")
        path = tmp_path / "net.keras"
    other.load_keras_weights(path)
    np.testing.assert_array_equal(other.predict(rows(columns=3)), model.predict(rows(columns=3)))


@pytest.mark.filterwarnings("ignore")  # Keras, about NumPy
def test_keras_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("h5py")
    pytest.importorskip("torch")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    layers = [keras.layers.Dense(6, "relu"), keras.layers.Dropout(0.1), keras.layers.Dense(2)]
    theirs = keras.Sequential([keras.Input((4,)), *layers])
    expected = np.asarray(theirs.predict(rows(), verbose=0))
    theirs.save(tmp_path / "net.keras")
    theirs.save_weights(tmp_path / "net.weights.h5")
    for name in ("net.keras", "net.weights.h5"):
        model = bp.Sequential([bp.Dense(6, "relu"), bp.Dropout(0.1), bp.Dense(2)])
        model.load_keras_weights(tmp_path / name)
        np.testing.assert_allclose(model.predict(rows()), expected, rtol=1e-5, atol=1e-6)


def test_keras_layers_of_several_kinds(tmp_path: Path) -> None:
    """Keras 3 sorts layers by kind; a GRU's biases are two rows, a recurrent layer has a cell."""
    h5py = pytest.importorskip("h5py")
    layers: list[Any] = [bp.GRU(4, return_sequences=True), bp.LSTM(3, return_sequences=True)]
    layers += [bp.GRU(5), bp.LayerNorm(), bp.Dense(6, "relu"), bp.Dense(2)]
    model, other = bp.Sequential(layers, seed=0), bp.Sequential(layers, seed=1)
    model.build(3)
    rng = np.random.default_rng(0)
    model.set_parameters({n: rng.normal(size=v.shape) for n, v in model.parameters().items()})
    own = model.parameters()
    gru = ["kernel", "recurrent_kernel", "bias", "recurrent_bias"]
    files = {
        "dense": (4, ["kernel", "bias"]),
        "dense_1": (5, ["kernel", "bias"]),
        "gru/cell": (0, gru),
        "gru_1/cell": (2, gru),
        "layer_normalization": (3, ["gamma", "beta"]),
        "lstm/cell": (1, gru[:3]),
    }
    path = tmp_path / "net.weights.h5"
    with h5py.File(path, "w") as content:
        content.create_group("layers/dropout/seed_generator/vars")["0"] = np.zeros(2)
        for name, (place, parts) in files.items():
            group = content.create_group(f"layers/{name}/vars")
            arrays = [own[f"{place}.{part}"] for part in parts]
            if len(arrays) == 4:
                arrays[2:] = [np.stack(arrays[2:])]
            for number, array in enumerate(arrays):
                group[str(number)] = array
    other.load_keras_weights(path)
    for name, value in other.parameters().items():
        np.testing.assert_array_equal(value, own[name])
    with pytest.raises(ValueError, match="has 6 layers with weights"):
        bp.Sequential([bp.Dense(6), bp.Dense(2)]).load_keras_weights(path)


@pytest.mark.filterwarnings("ignore")  # Keras, about NumPy
def test_more_of_keras_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("h5py")
    if importlib.util.find_spec("torch") is None:
        pytest.importorskip("jax")
    monkeypatch.setenv("KERAS_BACKEND", "torch" if importlib.util.find_spec("torch") else "jax")
    keras = pytest.importorskip("keras")
    of = keras.layers
    x = np.random.default_rng(3).normal(size=(6, 7, 4)).astype(np.float32)
    theirs = keras.Sequential(
        [
            keras.Input((7, 4)),
            of.GRU(5, return_sequences=True),
            of.Bidirectional(of.GRU(2, return_sequences=True)),
            of.TimeDistributed(of.Dense(3, "tanh")),
            of.SimpleRNN(4, return_sequences=True),
            of.LSTM(3),
            of.LayerNormalization(epsilon=1e-3),
            of.Dense(2),
        ]
    )
    words = np.arange(12).reshape(4, 3)
    table = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            of.Embedding(12, 2),
            of.Flatten(),
            of.Dense(5, "relu"),
            of.BatchNormalization(),
            of.Dense(1),
        ]
    )
    table.layers[-2].set_weights([np.linspace(1, 2, 5), np.ones(5), np.ones(5), np.full(5, 2.0)])
    ours = bp.Sequential(
        [
            bp.GRU(5, return_sequences=True),
            bp.Bidirectional(bp.GRU(2, return_sequences=True)),
            bp.TimeDistributed(bp.Dense(3, "tanh")),
            bp.SimpleRNN(4, return_sequences=True),
            bp.LSTM(3),
            bp.LayerNorm(epsilon=1e-3),
            bp.Dense(2),
        ]
    )
    our_table = bp.Sequential(
        [
            bp.Embedding(12, 2),
            bp.Flatten(),
            bp.Dense(5, "relu"),
            bp.BatchNorm(epsilon=1e-3),
            bp.Dense(1),
        ]
    )
    for their_model, model, data in ((theirs, ours, x), (table, our_table, words)):
        expected = np.asarray(their_model.predict(data, verbose=0))
        their_model.save_weights(tmp_path / "net.weights.h5")
        model.compile(loss="mse")
        model.load_keras_weights(tmp_path / "net.weights.h5")
        np.testing.assert_allclose(model.predict(data), expected, rtol=1e-4, atol=1e-5)


def keras_way(content: Any, place: str, way: list[Array]) -> None:
    """One recurrent layer of Keras 3, a GRU's two biases in one array."""
    arrays = [*way[:2], np.stack(way[2:])] if len(way) == 4 else way
    for number, array in enumerate(arrays):
        content[f"{place}/vars/{number}"] = array


@pytest.mark.parametrize("kind", [bp.LSTM, bp.GRU, bp.SimpleRNN])
def test_keras_layers_around_others(kind: Any, tmp_path: Path) -> None:
    """Bidirectional holds two layers there, TimeDistributed one; a Dense reads either."""
    h5py = pytest.importorskip("h5py")
    rng, gates = np.random.default_rng(0), {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}[kind.__name__]
    widths, biases = 3 * gates, 2 if kind is bp.GRU else 1
    ways = [
        [rng.normal(size=(inputs, widths)) for inputs in (4, 3)]
        + [rng.normal(size=widths) for _ in range(biases)]
        for _ in range(2)
    ]
    heads = [[rng.normal(size=(6, 5)), rng.normal(size=5)], [rng.normal(size=(5, 2))]]
    path = tmp_path / "net.weights.h5"
    with h5py.File(path, "w") as content:
        for place, way in zip(("forward_layer", "backward_layer"), ways, strict=True):
            keras_way(content, f"layers/bidirectional/{place}/cell", way)
        content.create_group("layers/bidirectional/vars")
        keras_way(content, "layers/time_distributed/layer", heads[0])
        keras_way(content, "layers/dense", heads[1])
    found = []
    for head in (bp.TimeDistributed(bp.Dense(5)), bp.Dense(5)):
        both = bp.Bidirectional(kind(3, return_sequences=True))
        model = bp.Sequential([both, head, bp.Dense(2, use_bias=False)])
        model.compile(loss="mse", dtype="float64")
        if isinstance(head, bp.Dense):  # two plain ones cannot be told from the file's order
            model = bp.Sequential([both, head])
            with h5py.File(path, "a") as content:
                del content["layers/dense"]
            model.compile(loss="mse", dtype="float64")
        model.load_keras_weights(path)
        found.append(model)
    own = found[0].parameters()
    assert own["0.kernel"].tolist() == np.hstack([ways[0][0], ways[1][0]]).tolist()
    assert own["0.bias"].tolist() == np.hstack([ways[0][2], ways[1][2]]).tolist()
    assert own["0.backward_recurrent_kernel"].tolist() == ways[1][1].tolist()
    for name in ("1.kernel", "1.bias"):
        assert own[name].tolist() == found[1].parameters()[name].tolist()
    # Each way alone, by the layer that a Keras user would have run.
    x = rng.normal(size=(3, 4, 4))
    alone = []
    for way, data in zip(ways, (x, x[:, ::-1]), strict=True):
        model = bp.Sequential([kind(3, return_sequences=True), bp.Dense(3, use_bias=False)])
        model.compile(loss="mse", dtype="float64")
        model.build(4)
        names = ("kernel", "recurrent_kernel", "bias", "recurrent_bias")
        values = {f"0.{name}": array for name, array in zip(names, way, strict=False)}
        model.set_parameters({**values, "1.kernel": np.eye(3)})
        alone.append(model.predict(data))
    states = np.concatenate([alone[0], alone[1][:, ::-1]], axis=-1)
    expected = (states @ heads[0][0] + heads[0][1]) @ heads[1][0]
    np.testing.assert_allclose(found[0].predict(x), expected, rtol=1e-12)


def test_two_ways_that_do_not_fit(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "net.weights.h5"
    with h5py.File(path, "w") as content:
        keras_way(content, "layers/bidirectional/forward_layer/cell", [np.ones((4, 12))] * 2)
    model = bp.Sequential([bp.Bidirectional(bp.LSTM(3))])
    with pytest.raises(ValueError, match=r"\(Bidirectional LSTM\) needs kernel, recurrent_kernel"):
        model.load_keras_weights(path)
    assert model.inputs is None


def test_files_that_are_not_keras(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "x.h5"
    path.write_text("no")
    with pytest.raises(ValueError, match="no HDF5 file"):
        small().load_keras_weights(path)
    with h5py.File(path, "w") as content:
        content["numbers"] = np.zeros(3)
    with pytest.raises(ValueError, match="holds no layers with weights"):
        small().load_keras_weights(path)


def test_damaged_keras_files(tmp_path: Path) -> None:
    """Wherever bits are wrong: weights that were there anyway, or a ValueError and no change."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "net.weights.h5"
    model = bp.Sequential([bp.Dense(6, activation="relu"), bp.Dense(3)], seed=0)
    model.build(4)
    with h5py.File(path, "w") as content:
        for name, place in (("dense", 0), ("dense_1", 1)):
            for number, part in enumerate(("kernel", "bias")):
                content[f"layers/{name}/vars/{number}"] = model.parameters()[f"{place}.{part}"]
    whole, rng, refusals = path.read_bytes(), np.random.default_rng(0), 0
    before = {name: array.copy() for name, array in model.parameters().items()}
    for _ in range(150):
        broken = np.frombuffer(whole, np.uint8).copy()
        broken[rng.integers(0, len(broken), 3)] ^= np.uint8(1 << rng.integers(8))
        path.write_bytes(broken.tobytes())
        try:
            model.load_keras_weights(path)
        except ValueError:
            refusals += 1
            for name, array in model.parameters().items():
                np.testing.assert_array_equal(array, before[name])
        model.set_parameters(before)
    assert 10 < refusals < 150
    with zipfile.ZipFile(tmp_path / "net.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", whole)
    packed = bytearray((tmp_path / "net.keras").read_bytes())
    packed[60] ^= 0xFF
    (tmp_path / "net.keras").write_bytes(packed)
    with pytest.raises(ValueError, match="is damaged, or not of Keras"):
        model.load_keras_weights(tmp_path / "net.keras")


def test_a_state_without_names() -> None:
    with pytest.raises(TypeError, match="the state must have tensors under names; got int 0"):
        small().load_torch_state_dict({0: np.zeros(3)})  # type: ignore[dict-item]


def test_a_new_head_keeps_the_body(device: str, tmp_path: Path) -> None:
    model = bp.Sequential([bp.Dense(8, "relu"), bp.Dense(5, "tanh"), bp.Dense(3)], seed=0)
    model.compile(bp.Adam(0.01), "softmax_cross_entropy", device=device)
    X, y = rows(30), np.arange(30) % 3
    model.fit(X, y, epochs=3, verbose=0)
    before = {name: array.copy() for name, array in model.parameters().items()}
    model.replace_head(7)
    after = model.parameters()
    assert (
        model.outputs == 7 and model.layers[-1] == bp.Dense(7) and after["2.kernel"].shape == (5, 7)
    )
    for name in ("0.kernel", "0.bias", "1.kernel", "1.bias"):
        np.testing.assert_array_equal(after[name], before[name])
    assert after["2.kernel"].any() and not after["2.bias"].any()
    assert model.predict(X).shape == (30, 7)
    history = model.fit(X, np.arange(30) % 7, epochs=30, verbose=0).history["loss"]
    assert history[-1] < history[0]
    model.save(tmp_path / "net.safetensors")
    again = bp.load(tmp_path / "net.safetensors", device=device)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    with pytest.raises(ValueError, match="at least 2"):
        model.replace_head(1)
    assert model.outputs == 7


def test_layers_on_top_of_a_loaded_model(device: str, tmp_path: Path) -> None:
    model = bp.Sequential([bp.Dense(8, "relu"), bp.Dense(5)], seed=0)
    model.compile(loss="mse", device=device)
    X = rows(10)
    body = model.predict(X)
    model.save(tmp_path / "net.safetensors")
    model = bp.load(tmp_path / "net.safetensors", device=device)
    model.append(bp.ReLU())
    np.testing.assert_array_equal(model.predict(X), np.maximum(body, 0))
    model.append(bp.Dense(2))
    kernel = model.parameters()["3.kernel"]
    np.testing.assert_allclose(model.predict(X), np.maximum(body, 0) @ kernel, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="in the model already"):
        model.append(model.layers[0])
    with pytest.raises(TypeError, match="takes a layer object"):
        model.append(bp.ReLU)  # type: ignore[arg-type]
    fresh = bp.Sequential([bp.Dense(2)])
    fresh.append(bp.Dense(4))
    assert fresh.outputs == 4
