"""`explain` of every kind of layer: its numbers, and what it prints of them, are the model's own.

Gradients, losses and updates are checked against those of the model, with whatever engine it has;
values between the layers against `forward`, and formulas that a reader would use against the
numbers beside them.
"""

import re
from typing import Any

import numpy as np
import pytest

import fastbp as bp
from fastbp import explain as parts
from fastbp.layers import Layer

RNG = np.random.default_rng(7)
ROWS, SEQUENCE = RNG.normal(size=(5, 3)), RNG.normal(size=(9, 3))


def softsign(z: Any) -> Any:
    return z / (1 + np.abs(z))


def slope(z: Any) -> Any:
    return 1 / (1 + np.abs(z)) ** 2


def recurrent(layer: Layer, *more: Layer) -> tuple[list[Layer], Any, Any]:
    return [layer, *more, bp.Dense(2)], SEQUENCE, [0.5, -1.0]


def at_every_step(layer: Layer, *more: Layer) -> tuple[list[Layer], Any, Any]:
    return [layer, *more, bp.Dense(2)], SEQUENCE, RNG.normal(size=(9, 2))


def on_rows(*layers: Layer) -> tuple[list[Layer], Any, Any]:
    return [*layers, bp.Dense(2)], ROWS, RNG.normal(size=(5, 2))


# Layers, x, y: a row, a batch, or a sequence.
KINDS: dict[str, Any] = {
    "dense, a row": lambda: ([bp.Dense(4, "silu"), bp.Dense(2)], ROWS[0], [1.0, 2.0]),
    "dense, a batch": lambda: on_rows(bp.Dense(4, "leaky_relu")),
    "no bias, a penalty": lambda: on_rows(
        bp.Dense(8, "tanh", use_bias=False, kernel_regularizer=bp.L2(0.1), max_norm=0.5)
    ),
    "function of one's own": lambda: on_rows(bp.Dense(4, bp.CustomActivation(softsign, slope))),
    "dropout": lambda: on_rows(bp.Dense(16), bp.Dropout(0.5)),
    "dropout, a row": lambda: ([bp.Dense(16), bp.Dropout(0.5), bp.Dense(1)], ROWS[0], 1),
    "batch norm": lambda: on_rows(bp.BatchNorm(), bp.ReLU()),
    "batch norm, a row": lambda: ([bp.BatchNorm(), bp.Dense(1)], ROWS[0], 1),
    "batch norm, bare": lambda: on_rows(bp.Dense(4), bp.BatchNorm(center=False, scale=False)),
    "softmax": lambda: on_rows(bp.Dense(4), bp.Softmax()),
    "softmax, a row": lambda: ([bp.Softmax(), bp.Dense(1)], ROWS[0], 1),
    "layer norm": lambda: on_rows(bp.Dense(4), bp.LayerNorm(epsilon=0.01)),
    "layer norm, a row": lambda: ([bp.LayerNorm(center=False), bp.Dense(1)], ROWS[0], 1),
    "normalize": lambda: on_rows(bp.Normalize("minmax").adapt(ROWS)),
    "embedding": lambda: (
        [bp.Embedding(12, 3), bp.Flatten(), bp.Dense(2)],
        [7, 2, 7, 11],
        [1.0, 0.0],
    ),
    "embedding, a batch": lambda: (
        [bp.Embedding(5, 2), bp.Dense(1)],
        RNG.integers(0, 5, (6, 2)),
        RNG.normal(size=6),
    ),
    "residual": lambda: on_rows(bp.Residual([bp.Dense(5, "tanh"), bp.Dense(3)]), bp.ReLU()),
    "residual in residual": lambda: (
        [bp.Residual([bp.Residual([bp.LayerNorm(), bp.Dense(3)]), bp.GELU()]), bp.Dense(1)],
        ROWS[0],
        1,
    ),
    "simple rnn": lambda: recurrent(bp.SimpleRNN(3)),
    "simple rnn, relu, no bias": lambda: at_every_step(
        bp.SimpleRNN(3, "relu", use_bias=False, return_sequences=True)
    ),
    "lstm": lambda: recurrent(bp.LSTM(3)),
    "lstm, from the end": lambda: at_every_step(
        bp.LSTM(2, return_sequences=True, go_backwards=True)
    ),
    "lstm on lstm, truncated": lambda: recurrent(
        bp.LSTM(2, return_sequences=True, truncate=3), bp.LSTM(3)
    ),
    "gru": lambda: recurrent(bp.GRU(3)),
    "gru without bias": lambda: recurrent(bp.GRU(3, use_bias=False)),
    "gru with dropouts": lambda: recurrent(bp.GRU(6, dropout=0.4, recurrent_dropout=0.4)),
    "both ways": lambda: recurrent(bp.Bidirectional(bp.LSTM(2, recurrent_dropout=0.3))),
    "both ways, added": lambda: at_every_step(
        bp.Bidirectional(bp.GRU(2, return_sequences=True), "sum")
    ),
    "every step": lambda: at_every_step(
        bp.TimeDistributed(bp.Dense(4, "tanh")), bp.LayerNorm(), bp.Dropout(0.3)
    ),
    "residual of a gru": lambda: at_every_step(
        bp.Residual([bp.GRU(3, return_sequences=True)]),
    ),
    "words": lambda: ([bp.Embedding(9, 2), bp.GRU(3), bp.Dense(1)], [3, 1, 3, 8, 0, 2], 1),
    "a row as a sequence": lambda: ([bp.Reshape((4, 2)), bp.GRU(2), bp.Dense(1)], ROWS.flat[:8], 1),
}
CASES = [pytest.param(make, id=name) for name, make in KINDS.items()]


def trained(layers: list[Layer], x: Any, y: Any, device: str = "cpu", **more: Any) -> bp.Sequential:
    """The model behind two steps of Adam, with parameters that no start would have."""
    model = bp.Sequential(layers, seed=3)
    model.compile(bp.Adam(0.01), more.get("loss", "mse"), device=device, dtype="float64")
    X, Y = as_batch(model, x, y)
    model.predict(X)  # builds it
    draw = np.random.default_rng(1)
    new = {name: p + draw.normal(size=p.shape) / 4 for name, p in model.parameters().items()}
    model.set_parameters(new)
    for _ in range(2):
        model.step(X, Y)
    return model


def as_batch(model: bp.Sequential, x: Any, y: Any) -> tuple[Any, Any]:
    """What explain was given as step takes it."""
    x, y = np.asarray(x), np.asarray(y)
    if not model._reads_sequences:
        return (x, y) if x.ndim == 2 else (x[None], y[None] if y.ndim else y.reshape(1))
    return x[None], (y[None] if y.ndim else y.reshape(1))


@pytest.mark.parametrize("make", CASES)
def test_the_numbers_are_the_models(make: Any, device: str) -> None:
    layers, x, y = make()
    model = trained(layers, x, y, device)
    X, Y = as_batch(model, x, y)
    found = model.explain(x, y)
    loss, gradients = model.gradients(X, Y)
    assert found.loss == pytest.approx(loss, rel=1e-11)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(found.gradients[name], gradient, rtol=1e-8, atol=1e-13)
    if not isinstance(found.steps[0], parts.EmbeddingStep):
        dx = model.input_gradient(X, Y)[1]
        np.testing.assert_allclose(found.dx, np.reshape(dx, found.dx.shape), rtol=1e-8, atol=1e-13)
    output = np.reshape(model.forward(X, training=True), np.shape(outputs(found)))
    np.testing.assert_allclose(outputs(found), output, rtol=1e-10, atol=1e-13)
    model.step(X, Y)
    for name, array in {**model.parameters(), **model.state()}.items():
        np.testing.assert_allclose(found.after[name], array, rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("every", [False, True])
def test_padding_behind_a_sequence_is_left_out(every: bool) -> None:
    """Of targets too: the explanation is that of the steps which count, but for its title."""
    padded, y = np.pad(ROWS[:3], ((0, 2), (0, 0))), np.arange(5.0)[:, None] if every else 1.0
    layers = [bp.Masking(), bp.GRU(2, return_sequences=every), bp.Dense(1)]
    model = trained(layers, padded, y)
    found, plain = (model.explain(x, y) for x in (padded, ROWS[:3]))
    assert str(found) == str(plain) and len(found.x) == 3


def outputs(found: parts.Explanation) -> Any:
    """Of the network, by its last step."""
    last = found.steps[-1]
    assert isinstance(last, parts.DenseStep)
    return last.z


def values(text: str) -> list[float]:
    """The numbers of "[1, 2, ...]"."""
    return [float(number) for number in re.findall(r"-?\d[\d.]*(?:e[-+]\d+)?(?=[,\]])", text)]


LABELS = {"bias": "db", "gamma": "dgamma", "beta": "dbeta"}


@pytest.mark.parametrize("make", CASES)
def test_the_text_prints_the_models_gradients(make: Any) -> None:
    """Each parameter's gradient stands, under its layer, as `model.gradients` has it."""
    layers, x, y = make()
    model = trained(layers, x, y)
    text = str(model.explain(x, y))
    assert max(map(len, text.splitlines())) <= 100
    assert "nan" not in text and not re.search(r" $", text, re.MULTILINE)
    back = unwrapped(text.split("BACKWARD")[1].split("UPDATE")[0])
    for name, gradient in model.gradients(*as_batch(model, x, y))[1].items():
        place, _, parameter = name.rpartition(".")
        own = "".join(re.findall(rf"^layer {re.escape(place)},.*\n(?:  .*\n)*", back, re.MULTILINE))
        for label, row in printed(model, place, parameter, gradient):
            line = re.search(rf"^  {re.escape(label)} = (\[.*)$", own, re.MULTILINE)
            assert line, (name, label, own)
            np.testing.assert_allclose(values(line[1]), row[:6], rtol=1e-6, atol=1e-13)


def unwrapped(text: str) -> str:
    """Lines that were broken because they are long, whole again."""
    whole: list[str] = []
    for line in text.splitlines():
        open_before = bool(whole) and whole[-1].endswith((",", "+")) and line.startswith("      ")
        if open_before:
            whole[-1] += " " + line.strip()
        else:
            whole.append(line)
    return "\n".join(whole) + "\n"


def printed(model: bp.Sequential, place: str, parameter: str, gradient: Any) -> Any:
    """Labels and numbers of the lines that belong to a parameter."""
    layer: Any = model.layers[int(place.split(".")[0])]
    for inner in place.split(".")[1:]:
        layer = layer.layers[int(inner)]
    layer = layer.layer if isinstance(layer, bp.TimeDistributed) else layer
    if isinstance(layer, bp.Dense) and parameter == "kernel":
        return [(f"dW{unit + 1}", gradient[:, unit]) for unit in range(min(6, gradient.shape[1]))]
    if isinstance(layer, bp.Embedding):
        read = np.flatnonzero(gradient.any(axis=1))
        return [(f"d(entry {entry})", gradient[entry]) for entry in read[:6]]
    if not isinstance(layer, (bp.Bidirectional, bp.SimpleRNN, bp.LSTM, bp.GRU)):
        return [(LABELS[parameter], gradient)]
    return of_gates(layer, parameter, gradient)


def of_gates(layer: Any, parameter: str, gradient: Any) -> Any:
    both = isinstance(layer, bp.Bidirectional)
    cell = layer.layer if both else layer
    gates = {"SimpleRNN": [""], "LSTM": list("ifgo"), "GRU": list("zrn")}[type(cell).__name__]
    own = parameter.removeprefix("backward_")
    symbol = {"kernel": "dW", "bias": "db", "recurrent_kernel": "dU", "recurrent_bias": "dd"}[own]
    if both and own in ("kernel", "bias"):
        gates = [f"{side} {gate}" for side in ("forward", "backward") for gate in gates]
    elif both:
        symbol += " (backward)" if own != parameter else " (forward)"
    for place, gate in enumerate(gates):
        first = gradient[..., place * cell.units]
        block = gradient[..., place * cell.units : (place + 1) * cell.units]
        if gradient.ndim == 2:
            yield f"{symbol} of {gate}, unit 1" if gate else f"{symbol} of unit 1", first
        else:
            yield f"{symbol} of {gate}" if gate else symbol, block


@pytest.mark.parametrize("make", CASES)
def test_the_sums_add_up(make: Any) -> None:
    """Every "a*b + c*d + ... = result" is right as printed, but for what it says is left out."""
    layers, x, y = make()
    text = unwrapped(str(trained(layers, x, y).explain(x, y)))
    found = re.findall(r"[=:] (-?[\d.e+-]+\*[^=\[\]:]*) = (-?[\d.e+-]+)$", text, re.MULTILINE)
    whole = [(formula, result) for formula, result in found if "(" not in formula]
    assert whole
    for formula, result in whole:
        products = [[float(f) for f in term.split("*")] for term in formula.split(" + ")]
        terms = [float(np.prod(factors)) for factors in products]
        size = max(1e-12, float(np.abs(terms).max()))
        assert sum(terms) == pytest.approx(float(result), rel=1e-5, abs=1e-6 * size), formula


def test_norms_show_how_they_come_about() -> None:
    layers, x, y = KINDS["batch norm"]()
    found = trained(layers, x, y).explain(x, y)
    step = found.steps[0]
    assert isinstance(step, parts.NormStep) and step.gamma is not None
    np.testing.assert_allclose(step.mean, x.mean(axis=0))
    np.testing.assert_allclose(step.variance, x.var(axis=0))
    np.testing.assert_allclose(step.n, (x - step.mean) / np.sqrt(step.variance + 1e-5))
    np.testing.assert_allclose(step.y, step.n * step.gamma + step.beta)
    assert "mean of column 1 = (" in str(found) and "moving_variance = [" in str(found)
    layers, x, y = KINDS["batch norm, a row"]()
    assert "give explain a batch" in str(trained(layers, x, y).explain(x, y))


def test_a_long_sequence_is_cut_and_says_so() -> None:
    layers, x, y = KINDS["lstm"]()
    text = str(trained(layers, x, y).explain(x, y))
    assert text.count("... steps 3 to 7 are left out ...") >= 3
    shown = re.findall(r"^  step (\d): x =", text, re.MULTILINE)
    assert shown == ["1", "2", "8", "9"]
    back = re.findall(r"^  step (\d): dL/dh =", text, re.MULTILINE)
    assert back == ["9", "8", "2", "1"]
    layers, _, y = KINDS["lstm"]()
    short = str(trained(layers, x[:4], y).explain(x[:4], y))
    assert "left out" not in short


def test_gates_and_states_of_a_recurrent_layer() -> None:
    layers, x, y = KINDS["lstm"]()
    model = trained(layers, x, y)
    found = model.explain(x, y)
    step = found.steps[0]
    assert isinstance(step, parts.RecurrentStep)
    last = step.ways[0].steps[-1]
    i, f, g, o, _ = last.saved
    np.testing.assert_allclose(last.after[1], f * last.before[1] + i * g)
    np.testing.assert_allclose(last.after[0], o * np.tanh(last.after[1]))
    _, states = model.predict(x[None], return_state=True)
    np.testing.assert_allclose(states["0.h"][0], last.after[0], rtol=1e-12)
    np.testing.assert_allclose(states["0.c"][0], last.after[1], rtol=1e-12)


def test_frozen_layers_stay_and_say_so() -> None:
    for name in ("dense, a batch", "batch norm", "lstm", "embedding"):
        layers, x, y = KINDS[name]()
        model = trained(layers, x, y)
        model.freeze(upto=1)
        found = model.explain(x, y)
        text = str(found)
        assert "frozen: " in text and f"layer 0, {found.steps[0].title}: frozen" in text
        X, Y = as_batch(model, x, y)
        assert found.loss == pytest.approx(model.gradients(X, Y)[0], rel=1e-11)
        for key, array in model.parameters().items():
            if key.startswith("0."):
                np.testing.assert_array_equal(found.after[key], array)


def test_states_that_go_on_from_call_to_call() -> None:
    layers = [bp.LSTM(3, stateful=True), bp.Dense(1)]
    model = bp.Sequential(layers, seed=0)
    model.compile("adam", "mse", dtype="float64")
    model.step(SEQUENCE[None], [1.0])
    model.step(SEQUENCE[None], [1.0])
    found = model.explain(SEQUENCE, 1.0)
    again = model.explain(SEQUENCE, 1.0)  # the states are still those before it
    assert found.loss == again.loss == pytest.approx(model.step(SEQUENCE[None], [1.0]), rel=1e-12)


def test_sequences_with_lengths_and_several_of_them() -> None:
    layers, x, y = KINDS["both ways, added"]()
    model = trained(layers, x, y)
    padded = np.vstack([x[:6], np.full((3, 3), 99.0)])
    short = model.explain(bp.Sequences(padded[None], [6]), y[None])
    assert str(short) == str(model.explain(x[:6], y[:6]))
    with pytest.raises(ValueError, match="explain takes one sequence"):
        model.explain(np.stack([x, x]), np.stack([y, y]))


def test_classes_show_their_probabilities() -> None:
    model = bp.Sequential([bp.Dense(4, "tanh"), bp.Dense(3)], seed=0)
    model.compile("sgd", "softmax_cross_entropy", dtype="float64")
    found = model.explain(ROWS, [0, 2, 1, 1, 0])
    np.testing.assert_allclose(found.probabilities, model.predict_proba(ROWS))
    assert "row 1: p = softmax(z) = [" in str(found)


def test_the_model_is_as_it_was(device: str) -> None:
    layers, x, y = KINDS["batch norm"]()
    model = trained(layers, x, y, device)
    arrays = {**model.parameters(), **model.state()}
    before = {name: array.copy() for name, array in arrays.items()}
    loss = model.gradients(x, y)[0]
    str(model.explain(x, y))
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])
    assert model.gradients(x, y)[0] == loss


def test_an_optimizer_without_single_steps_has_no_update_to_show() -> None:
    model = bp.Sequential([bp.Dense(2)], seed=0)
    model.compile("lbfgs", "mse", dtype="float64")
    found = model.explain(ROWS[0], [1, 2])
    assert found.after == {} and "UPDATE\nnone: the optimizer makes no single steps" in str(found)
    loss, gradients = model.gradients(ROWS[:1], np.array([[1.0, 2.0]]))
    assert found.loss == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(found.gradients["0.kernel"], gradients["0.kernel"], rtol=1e-12)
