"""Sequential apart from fit: building, starting values, parameters, gradients, predictions.

Everything runs on both devices. Where numbers are compared with formulas, the model is float64 and
the allowance is a few hundred roundings of sums of a few dozen terms: relative 1e-12.
"""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp

EXACT = {"rtol": 1e-12, "atol": 1e-14}


def make(device: str, loss: str = "mse", dtype: str = "float64", **settings: Any) -> bp.Sequential:
    model = bp.Sequential([bp.Dense(5, activation="tanh"), bp.Dense(3)], seed=7)
    model.compile(loss=loss, device=device, dtype=dtype, **settings)
    return model


def data(rows: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 4)), rng.normal(size=(rows, 3))


def test_runs_on_the_device_that_was_asked_for(device: str) -> None:
    model = make(device)
    model.build(4)
    assert model.device == device


@pytest.mark.parametrize("shape", [4, (None, 4), np.int64(4)])
def test_build_makes_parameters_of_the_right_shapes(device: str, shape: Any) -> None:
    model = make(device)
    model.build(shape)
    assert {name: p.shape for name, p in model.parameters().items()} == {
        "0.kernel": (4, 5),
        "0.bias": (5,),
        "1.kernel": (5, 3),
        "1.bias": (3,),
    }
    assert (model.inputs, model.outputs, model.dtype) == (4, 3, "float64")


def test_first_data_builds(device: str) -> None:
    x, y = data()
    for call in (
        lambda m: m.fit(x, y),
        lambda m: m.step(x, y),
        lambda m: m.predict(x),
        lambda m: m.evaluate(x, y),
        lambda m: m.gradients(x, y),
        lambda m: m.input_gradient(x, y),
    ):
        model = make(device)
        assert model.inputs is None
        call(model)
        assert model.inputs == 4


def test_names_count_all_layers_and_skip_missing_biases(device: str) -> None:
    layers = [bp.Dense(2, use_bias=False), bp.ReLU(), bp.Dense(3)]
    model = bp.Sequential(layers, seed=0)
    model.compile(loss="mse", device=device)
    model.build(4)
    assert list(model.parameters()) == ["0.kernel", "2.kernel", "2.bias"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_start_has_the_same_bits_on_every_device(dtype: str) -> None:
    starts = []
    for device in ("cpu", "reference"):
        layers = [
            bp.Dense(9, kernel_initializer="he_normal", bias_initializer=bp.RandomUniform()),
            bp.Dense(3, kernel_initializer=bp.RandomNormal(0.1, mean=1), bias_initializer="ones"),
            bp.Dense(2),
        ]
        model = bp.Sequential(layers, seed=2**63 + 5)
        model.compile(loss="mse", device=device, dtype=dtype)
        model.build(17)
        starts.append({name: p.tobytes() for name, p in model.parameters().items()})
    assert starts[0] == starts[1]


def test_start_depends_on_the_seed_and_the_dense_layer_alone(device: str) -> None:
    def start(layers: list[bp.layers.Layer], seed: int) -> list[np.ndarray]:
        model = bp.Sequential(layers, seed=seed)
        model.compile(loss="mse", device=device)
        model.build(6)
        return [p.copy() for p in model.parameters().values()]

    plain = start([bp.Dense(6), bp.Dense(6)], 1)
    between = start([bp.Dense(6), bp.ReLU(), bp.Dense(6)], 1)
    assert all(np.array_equal(a, b) for a, b in zip(plain, between, strict=True))
    assert not np.array_equal(plain[0], plain[2])  # another layer, another stream
    assert not np.array_equal(plain[0], start([bp.Dense(6), bp.Dense(6)], 2)[0])


@pytest.mark.parametrize(
    ("initializer", "variance"),
    [
        ("glorot_uniform", 2 / 300),
        ("glorot_normal", 2 / 300),
        ("he_uniform", 2 / 100),
        ("he_normal", 2 / 100),
        ("lecun_uniform", 1 / 100),
        ("lecun_normal", 1 / 100),
        (bp.RandomNormal(0.01), 0.01**2),
        (bp.RandomUniform(-3, 3), 3.0),
    ],
)
def test_initializers_have_the_stated_spread(initializer: Any, variance: float) -> None:
    """20,000 draws: the sample mean and variance lie within 5 standard errors.

    The standard error of the variance is variance * sqrt((k - 1) / n) with kurtosis k <= 3.
    """
    model = bp.Sequential([bp.Dense(200, kernel_initializer=initializer)], seed=0)
    model.compile(loss="mse", dtype="float64")
    model.build(100)
    kernel = model.parameters()["0.kernel"]
    n = kernel.size
    assert abs(kernel.mean()) < 5 * np.sqrt(variance / n)
    assert abs(kernel.var() - variance) < 5 * variance * np.sqrt(2 / n)
    if "uniform" in repr(initializer).lower():
        assert np.abs(kernel).max() <= np.sqrt(3 * variance)


@pytest.mark.parametrize("shape", [(5, 12), (12, 5), (7, 7), (1, 3), (90, 60)])
def test_an_orthogonal_start_has_right_angles(shape: tuple[int, int], device: str) -> None:
    """The shorter side's vectors have the length of the gain; drawn from the seed."""
    kernels = []
    for seed in (0, 0, 1):
        layer = bp.Dense(shape[1], kernel_initializer=bp.initializers.Orthogonal(gain=1.5))
        model = bp.Sequential([layer], seed=seed)
        model.compile(loss="mse", device=device, dtype="float64")
        model.build(shape[0])
        kernels.append(model.parameters()["0.kernel"].copy())
    kernel = kernels[0] if shape[0] <= shape[1] else kernels[0].T
    np.testing.assert_allclose(kernel @ kernel.T, 2.25 * np.eye(len(kernel)), atol=1e-13)
    assert (kernels[0] == kernels[1]).all() and not np.allclose(kernels[0], kernels[2])


def test_an_orthogonal_start_by_name_has_no_direction_of_its_own() -> None:
    """Over 300 starts the elements average to 0, and their squares to 1 / columns."""
    starts = []
    for seed in range(300):
        model = bp.Sequential([bp.Dense(4, kernel_initializer="orthogonal")], seed=seed)
        model.build(4)
        starts.append(model.parameters()["0.kernel"].copy())
    assert np.abs(np.mean(starts, axis=0)).max() < 5 * 0.5 / np.sqrt(300)
    assert np.abs(np.mean(np.square(starts), axis=0) - 0.25).max() < 5 * 0.25 / np.sqrt(300)


def test_parameters_are_live_views(device: str) -> None:
    x, y = data()
    model = make(device)
    model.build(4)
    before = model.predict(x)
    views = model.parameters()
    views["1.bias"] += 1
    np.testing.assert_allclose(model.predict(x), before + 1, **EXACT)
    kernel = views["0.kernel"].copy()
    model.step(x, y)
    assert not np.array_equal(views["0.kernel"], kernel)


def test_views_outlive_the_model(device: str) -> None:
    model = make(device)
    model.build(4)
    views = model.parameters()
    kernel = views["0.kernel"].copy()
    del model
    assert np.array_equal(views["0.kernel"], kernel)


def test_set_parameters_exchanges_parameters(device: str) -> None:
    """What is set may be the model's own live views: all are read before any is written."""
    model = bp.Sequential([bp.Dense(3, "tanh"), bp.Dense(3)], seed=1)
    model.compile("sgd", "mse", device=device)
    model.build(3)
    live = model.parameters()
    before = {name: value.copy() for name, value in live.items()}
    model.set_parameters({"0.kernel": live["1.kernel"], "1.kernel": live["0.kernel"]})
    np.testing.assert_array_equal(live["0.kernel"], before["1.kernel"])
    np.testing.assert_array_equal(live["1.kernel"], before["0.kernel"])
    model.set_parameters({"0.kernel": live["0.kernel"].T})
    np.testing.assert_array_equal(live["0.kernel"], before["1.kernel"].T)


def test_set_parameters_copies_and_may_set_some_only(device: str) -> None:
    model = make(device, dtype="float32")
    model.build(4)
    others = model.parameters()["1.kernel"].copy()
    bias = np.arange(5)
    model.set_parameters({"0.bias": bias, "0.kernel": np.ones((5, 4)).T})
    bias[:] = 9
    assert model.parameters()["0.bias"].tolist() == [0, 1, 2, 3, 4]
    assert (model.parameters()["0.kernel"] == 1).all()
    assert np.array_equal(model.parameters()["1.kernel"], others)


def test_predict_is_the_formula(device: str) -> None:
    x, _ = data()
    model = make(device)
    output = model.predict(x)
    p = model.parameters()
    hidden = np.tanh(x @ p["0.kernel"] + p["0.bias"])
    np.testing.assert_allclose(output, hidden @ p["1.kernel"] + p["1.bias"], **EXACT)
    assert np.array_equal(model.forward(x, training=False), output)


@pytest.mark.parametrize("rows", [0, 1, 2, 17])
def test_predict_gives_new_rows_of_the_models_dtype(device: str, rows: int) -> None:
    model = make(device, dtype="float32")
    x = data(17)[0]
    whole = model.predict(x)
    part = model.predict(x[:rows])
    assert (part.shape, part.dtype) == ((rows, 3), np.float32)
    if device == "cpu":  # the reference promises no bits
        assert part.tobytes() == whole[:rows].tobytes()


def test_predict_lets_nan_through_in_its_row(device: str) -> None:
    x, _ = data()
    model = make(device)
    right = model.predict(x)
    x[3, 1] = np.nan
    output = model.predict(x)
    assert np.isnan(output[3]).all()
    assert np.array_equal(np.delete(output, 3, 0), np.delete(right, 3, 0))


def test_any_layout_of_the_same_numbers_gives_the_same_bits(device: str) -> None:
    x, y = (a.astype(np.float32) for a in data())
    model = make(device, dtype="float32")
    want, loss = model.predict(x).tobytes(), model.gradients(x, y)[0]
    shifted = np.frombuffer(b"\0" + x.tobytes(), dtype=np.uint8)[1:].view(np.float32)
    for other in (
        np.asfortranarray(x),
        np.repeat(x, 2, axis=0)[::2],
        x[::-1][::-1],
        x.astype(">f4"),
        x.astype(np.float64),
        x.tolist(),
        shifted.reshape(x.shape),
    ):
        assert model.predict(other).tobytes() == want
        assert model.gradients(other, y)[0] == loss


def test_inputs_are_never_written(device: str) -> None:
    x, y = data()
    x.flags.writeable = y.flags.writeable = False
    before = x.tobytes(), y.tobytes()
    model = make(device)
    model.fit(x, y, epochs=2)
    model.evaluate(x, y)
    model.predict(x)
    assert (x.tobytes(), y.tobytes()) == before


@pytest.mark.parametrize("loss", ["mse", "softmax_cross_entropy"])
def test_gradients_agree_with_central_differences(device: str, loss: str) -> None:
    """Step 1e-6 in float64: error about h^2 + eps / h, some 1e-10 of a loss near 1."""
    x, y = data()
    target: np.ndarray = y if loss == "mse" else np.arange(12) % 3
    model = make(device, loss)
    value, gradients = model.gradients(x, target)
    assert value == pytest.approx(model.evaluate(x, target)["loss"], rel=1e-12)
    h = 1e-6
    for name, view in model.parameters().items():
        assert gradients[name].shape == view.shape
        for index in list(np.ndindex(view.shape))[:6]:
            kept = view[index]
            view[index] = kept + h
            above = model.evaluate(x, target)["loss"]
            view[index] = kept - h
            below = model.evaluate(x, target)["loss"]
            view[index] = kept
            assert gradients[name][index] == pytest.approx((above - below) / (2 * h), abs=1e-8)


def test_gradients_are_copies_and_change_nothing(device: str) -> None:
    x, y = data()
    model = make(device)
    model.build(4)
    before = {name: p.copy() for name, p in model.parameters().items()}
    _, first = model.gradients(x, y)
    kept = {name: g.copy() for name, g in first.items()}
    model.gradients(x + 1, y)
    assert all(np.array_equal(first[name], kept[name]) for name in first)
    assert all(np.array_equal(before[name], p) for name, p in model.parameters().items())


def test_input_gradient_agrees_with_central_differences(device: str) -> None:
    x, y = data()
    model = make(device)
    loss, dx = model.input_gradient(x, y)
    assert loss == model.gradients(x, y)[0]
    assert dx.shape == x.shape
    h = 1e-6
    for index in ((0, 0), (3, 2), (11, 3)):
        above, below = x.copy(), x.copy()
        above[index] += h
        below[index] -= h
        slope = (model.evaluate(above, y)["loss"] - model.evaluate(below, y)["loss"]) / (2 * h)
        assert dx[index] == pytest.approx(slope, abs=1e-8)


def test_step_is_one_gradient_step(device: str) -> None:
    x, y = data()
    model = make(device, optimizer=bp.SGD(0.1))
    loss, gradients = model.gradients(x, y)
    want = {name: p - 0.1 * gradients[name] for name, p in model.parameters().items()}
    assert model.step(x, y) == pytest.approx(loss, rel=1e-12)
    for name, p in model.parameters().items():
        np.testing.assert_allclose(p, want[name], **EXACT)


def test_probabilities_and_classes_of_softmax(device: str) -> None:
    x, _ = data()
    model = make(device, "softmax_cross_entropy")
    logits = model.predict(x)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(model.predict_proba(x), e / e.sum(axis=1, keepdims=True), rtol=1e-12)
    classes = model.predict_class(x)
    assert classes.dtype == np.int64
    assert np.array_equal(classes, logits.argmax(axis=1))


@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("logits", [True, False])
def test_probabilities_and_classes_of_binary_losses(device: str, units: int, logits: bool) -> None:
    x, _ = data()
    loss = "binary_cross_entropy" + "_with_logits" * logits
    layer = bp.Dense(units, activation=None if logits else "sigmoid")
    model = bp.Sequential([layer], seed=0)
    model.compile(loss=loss, device=device, dtype="float64")
    output = model.predict(x)
    want = 1 / (1 + np.exp(-output)) if logits else output
    np.testing.assert_allclose(model.predict_proba(x), want, rtol=1e-12)
    classes = model.predict_class(x)
    assert classes.shape == ((12,) if units == 1 else (12, 3))
    assert np.array_equal(classes.reshape(12, units), want > 0.5)


@pytest.mark.parametrize(
    "target", ["numbers", "column", "floats", "bools", "one-hot", "uint8", "list"]
)
def test_class_numbers_in_any_form_train_alike(device: str, target: str) -> None:
    x, _ = data()
    numbers = np.arange(12) % 2
    forms: dict[str, Any] = {
        "numbers": numbers,
        "column": numbers[:, None],
        "floats": numbers.astype(np.float64),
        "bools": numbers.astype(bool),
        "one-hot": np.eye(3)[numbers],
        "uint8": numbers.astype(np.uint8),
        "list": numbers.tolist(),
    }
    model = make(device, "softmax_cross_entropy")
    assert model.gradients(x, forms[target])[0] == pytest.approx(
        model.gradients(x, numbers)[0], rel=1e-12
    )


def test_one_output_takes_a_column_or_a_row_of_targets(device: str) -> None:
    x, y = data()
    model = bp.Sequential([bp.Dense(1)], seed=0)
    model.compile(loss="mse", device=device)
    assert model.evaluate(x, y[:, 0]) == model.evaluate(x, y[:, :1])


def test_activation_layers_and_arguments_are_the_same(device: str) -> None:
    x, _ = data()
    for argument, layer in (
        ("relu", bp.ReLU()),
        (bp.LeakyReLU(0.3), bp.Activation("leaky_relu", 0.3)),
        ("elu", bp.ELU(1.0)),
        ("gelu_tanh", bp.GELU("tanh")),
    ):
        one = bp.Sequential([bp.Dense(4, activation=argument)], seed=0)
        two = bp.Sequential([bp.Dense(4), layer], seed=0)
        for model in (one, two):
            model.compile(loss="mse", device=device)
        assert np.array_equal(one.predict(x), two.predict(x))


def test_every_activation_of_the_library_has_a_class() -> None:
    classes = {
        bp.Identity(), bp.ReLU(), bp.LeakyReLU(), bp.Sigmoid(), bp.Tanh(), bp.Softplus(), bp.ELU(),
        bp.GELU(), bp.GELU("tanh"), bp.SiLU(), bp.Mish(),
    }  # fmt: skip
    assert {bp.Activation(name) for name in bp.registry.ACTIVATIONS} == classes


def test_compile_keeps_parameters_and_resets_the_optimizer(device: str) -> None:
    x, y = data()
    model = make(device)
    model.fit(x, y)
    before = {name: p.copy() for name, p in model.parameters().items()}
    model.compile("adam", "mse", device=device, dtype="float64")
    assert all(np.array_equal(before[name], p) for name, p in model.parameters().items())
    fresh = make(device)
    fresh.build(4)
    fresh.set_parameters(before)
    model.step(x, y)
    fresh.step(x, y)
    for name, p in model.parameters().items():
        assert np.array_equal(p, fresh.parameters()[name])


def test_compile_moves_parameters_between_dtypes_and_devices() -> None:
    model = make("cpu", dtype="float64")
    model.build(4)
    before = {name: p.copy() for name, p in model.parameters().items()}
    model.compile(loss="mse", device="reference", dtype="float32")
    assert (model.device, model.dtype) == ("reference", "float32")
    for name, p in model.parameters().items():
        assert np.array_equal(p, before[name].astype(np.float32))


def test_learning_rate_can_be_changed_and_keeps_the_state(device: str) -> None:
    x, y = data()
    model, other = make(device), make(device)
    optimizer = bp.Adam()
    for each in (model, other):
        each.compile(optimizer, "mse", device=device, dtype="float64")
        each.step(x, y)
    model.optimizer.learning_rate = 0.5
    assert optimizer.learning_rate == 0.001  # the model has a copy of its own
    before = {name: p.copy() for name, p in model.parameters().items()}
    model.step(x, y)
    other.step(x, y)
    for name, p in model.parameters().items():
        moved, usual = p - before[name], other.parameters()[name] - before[name]
        np.testing.assert_allclose(moved, 500 * usual, rtol=1e-6)


def test_names_and_objects_train_alike(device: str) -> None:
    x, y = data()
    results = []
    for optimizer, loss in (("adam", "huber"), (bp.Adam(), bp.Loss("huber", 1.0))):
        model = make(device, loss, optimizer=optimizer)
        model.fit(x, y, epochs=3)
        results.append([p.tobytes() for p in model.parameters().values()])
    assert results[0] == results[1]


def test_a_model_without_seed_draws_one() -> None:
    first, second = bp.Sequential([bp.Dense(1)]), bp.Sequential([bp.Dense(1)])
    assert first.seed != second.seed


def test_summary_of_sequences_counts_the_products_of_a_step() -> None:
    """Of x and of h; two ways have two of each."""
    lines: list[str] = []
    model = bp.Sequential(
        [bp.LSTM(4, return_sequences=True), bp.Bidirectional(bp.GRU(5, return_sequences=True)),
         bp.TimeDistributed(bp.Dense(2))]
    )  # fmt: skip
    model.build(3)
    model.summary(lines.append)
    flop = [int(line.split()[-1]) for line in lines[1:4]]
    assert flop == [2 * 16 * (3 + 4), 2 * 2 * 15 * (4 + 5), 2 * 10 * 2]
    assert any("a step on 32 sequences of one step" in line for line in lines)


def test_summary_and_repr(capsys: pytest.CaptureFixture[str]) -> None:
    model = make("cpu", dtype="float32")
    model.summary()
    assert "not built" in capsys.readouterr().out
    model.build(4)
    model.summary()
    text = capsys.readouterr().out
    assert "Dense tanh" in text
    assert "43 parameters" in text
    # A row costs 2 (4 * 5 + 5 * 3) = 70 flop forward, 32 rows three times that in a step.
    assert "a step on 32 rows: 6.72 kflop (2.24 kflop forward" in text
    # 43 numbers of 4 bytes, Adam's two slots, 32 rows of 4 + 5 + 3 values and of 5 + 3 deltas.
    for part in ("parameters 172 B", "(2 per parameter) 344 B", "1.5 KiB", "deltas 1 KiB"):
        assert part in text
    model.summary(batch_size=64)
    assert "deltas 2 KiB; in all 5.67 KiB" in capsys.readouterr().out
    assert "float32 on cpu" in text
    assert "Dense(units=5" in repr(model)


def test_descriptions_are_values() -> None:
    assert bp.Dense(3, "relu") == bp.Dense(3, activation=bp.ReLU())
    assert bp.Dense(3) != bp.Dense(4)
    assert len({bp.HeNormal(), bp.HeNormal(), bp.HeUniform()}) == 2
    assert bp.Adam(0.1) == bp.Adam(learning_rate=0.1)
    layer = bp.Dense(3)
    with pytest.raises(AttributeError, match="make a new one"):
        layer.units = 4
    assert copy.deepcopy(layer) == layer


def test_worked_examples(device: str) -> None:
    """The corrected textbook calculations: z, loss, every gradient, the updated weights.

    W is (outputs, inputs) there; the file has 12 digits.
    """
    path = Path(__file__).parent / "fixtures" / "worked_examples.json"
    examples = {
        name: example
        for name, example in json.loads(path.read_text()).items()
        if "W_new" in example
    }
    assert len(examples) >= 6
    for example in examples.values():
        activation = example["activation"]
        activation = "identity" if activation == "linear" else activation
        layers = [bp.Dense(len(w), activation=activation) for w in example["W"]]
        model = bp.Sequential(layers, seed=0)
        model.compile(bp.SGD(example["lr"]), "half_sse", device=device, dtype="float64")
        x, y = np.array([example["x"]], float), np.array([example["y"]], float)
        model.build(x.shape[1])
        start = {}
        for i, (w, b) in enumerate(zip(example["W"], example["b"], strict=True)):
            start[f"{i}.kernel"], start[f"{i}.bias"] = np.array(w).T, np.array(b)
        model.set_parameters(start)
        digits = {"rtol": 1e-11, "atol": 1e-11}
        np.testing.assert_allclose(model.predict(x)[0], example["a"][-1], **digits)
        loss, dx = model.input_gradient(x, y)
        np.testing.assert_allclose(loss, example["loss"], **digits)
        np.testing.assert_allclose(dx[0], example["dx"], **digits)
        _, gradients = model.gradients(x, y)
        model.step(x, y)
        for i in range(len(layers)):
            np.testing.assert_allclose(gradients[f"{i}.kernel"].T, example["dW"][i], **digits)
            np.testing.assert_allclose(gradients[f"{i}.bias"], example["db"][i], **digits)
            new = model.parameters()
            np.testing.assert_allclose(new[f"{i}.kernel"].T, example["W_new"][i], **digits)
            np.testing.assert_allclose(new[f"{i}.bias"], example["b_new"][i], **digits)
