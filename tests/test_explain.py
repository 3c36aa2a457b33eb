"""`explain`: every number of a hand calculation, against the fixtures and the engine.

The worked examples that ship with fastbp are the givens of fixtures/worked_examples.json; what is
calculated from them must be the rest of it, to its 12 digits. Networks of one's own are checked
against what the model itself computes.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp
from fastbp.cli import main
from fastbp.explain import ActivationStep
from fastbp.worked_examples import EXAMPLES

FIXTURES: dict[str, dict[str, Any]] = {
    name: example
    for name, example in json.loads(
        (Path(__file__).parent / "fixtures" / "worked_examples.json").read_text()
    ).items()
    if "delta" in example
}
EXACT = 0.5e-12 + 1e-14  # half a unit of the fixture's last digit, and our own rounding


def close(found: Any, right: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(right, float), rtol=0, atol=EXACT)


def test_the_givens_are_the_fixtures() -> None:
    assert set(EXAMPLES) == set(FIXTURES)
    for name, example in EXAMPLES.items():
        given = FIXTURES[name]
        assert example.activation == {"linear": "identity"}.get(*[given["activation"]] * 2)
        assert list(example.x) == given["x"] and list(example.y) == given["y"]
        assert [list(map(list, w)) for w in example.weights] == given["W"]
        assert list(map(list, example.biases)) == given["b"]
        assert example.learning_rate == given["lr"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_examples(name: str) -> None:
    example, right = EXAMPLES[name], FIXTURES[name]
    model = example.model()
    found = model.explain(example.x, example.y)
    activated = [step.a for step in found.steps if isinstance(step, ActivationStep)]
    close(np.concatenate([step.z for step in found.dense]), np.concatenate(right["z"]))
    close(np.concatenate(activated), np.concatenate(right["a"]))
    close(found.loss, right["loss"])
    for place, step in enumerate(found.dense):
        close(step.delta, right["delta"][place])
        close(step.delta, right["db"][place])
        new, old = found.after[f"{place}.kernel"].T, np.array(right["W_new"][place])
        gradient, wanted = step.dkernel.T, np.array(right["dW"][place])
        if name == "s3_4.4_diagonal":
            gradient, wanted, new, old = map(np.diag, (gradient, wanted, new, old))
        close(gradient, wanted)
        close(new, old)
        close(found.after[f"{place}.bias"], right["b_new"][place])
    close(found.dx, right["dx"])
    close(model.predict([example.x])[0], right["a"][-1])  # the model is as it was


@pytest.mark.parametrize(
    ("loss", "outputs", "target"),
    [
        ("softmax_cross_entropy", 3, 2),
        ("softmax_cross_entropy", 3, [0.2, 0.3, 0.5]),
        ("binary_cross_entropy_with_logits", 1, 1),
        ("binary_cross_entropy_with_logits", 2, [1, 0]),
        ("mse", 2, [0.5, -1]),
        ("huber", 1, 2.5),
    ],
)
def test_a_network_of_ones_own(loss: str, outputs: int, target: Any, device: str) -> None:
    """Against gradients, input_gradient and step of the model, in its 9th step of Adam."""
    layers = [bp.Dense(9, "gelu"), bp.Dropout(0.0), bp.Dense(8), bp.Tanh(), bp.Dense(outputs)]
    model = bp.Sequential(layers, seed=3)
    model.compile(bp.Adam(0.01), loss, device=device, dtype="float64")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(16, 5))
    y = np.broadcast_to(target, (16,) if np.ndim(target) == 0 else (16, outputs)).copy()
    for _ in range(8):
        model.step(X, y)
    model.optimizer.learning_rate = 0.02  # not yet known to the engine
    found = model.explain(X[0], target)
    loss_there, gradients = model.gradients(X[:1], y[:1])
    assert found.loss == pytest.approx(loss_there, rel=1e-12)
    for step in found.dense:
        np.testing.assert_allclose(
            step.dkernel, gradients[f"{step.place}.kernel"], rtol=1e-9, atol=1e-14
        )
        np.testing.assert_allclose(
            step.delta, gradients[f"{step.place}.bias"], rtol=1e-9, atol=1e-14
        )
    np.testing.assert_allclose(found.dx, model.input_gradient(X[:1], y[:1])[1][0], rtol=1e-9)
    model.step(X[:1], y[:1])
    for name, array in model.parameters().items():
        np.testing.assert_allclose(found.after[name], array, rtol=1e-9, atol=1e-12)


def test_rows_of_any_shape_that_are_normalized(device: str) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 17, (20, 3, 2)), rng.integers(0, 3, 20)
    layers = [bp.Flatten(), bp.Normalize().adapt(X.reshape(20, -1)), bp.Dense(4, "tanh")]
    model = bp.Sequential([*layers, bp.Dense(3)], seed=1)
    model.compile("adam", "softmax_cross_entropy", device=device, dtype="float64")
    model.fit(X, y, verbose=0)
    found = model.explain(X[2], y[2])
    loss, gradients = model.gradients(X[2:3], y[2:3])
    assert found.loss == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(found.dense[0].dkernel, gradients["2.kernel"], atol=1e-13)
    dx = model.input_gradient(X[2:3], y[2:3])[1].reshape(-1)
    np.testing.assert_allclose(found.dx, dx, rtol=1e-9, atol=1e-14)
    model.step(X[2:3], y[2:3])
    for name, array in model.parameters().items():
        np.testing.assert_allclose(found.after[name], array, rtol=1e-9, atol=1e-12)
    assert "a = (x - center) / scale = [" in str(found)


def test_the_text_adds_up() -> None:
    """Every line "... = a*b + c*d + e = result" is right as it is printed."""
    text = str(EXAMPLES["s0_4.3_three_layers"].model().explain([1, 2], [3, 4]))
    sums = re.findall(r"= ([^=\[\]]*\*[^=\[\]]*) = (\S+)$", text, re.MULTILINE)
    assert len(sums) == 3 * 2 + 3 * 2  # a sum for each z and each dL/d(input)
    for formula, result in sums:
        terms = [term.split("*") for term in formula.split(" + ")]
        total = sum(float(np.prod([float(factor) for factor in term])) for term in terms)
        assert total == pytest.approx(float(result), rel=1e-6)
    assert "loss = 1.611965" in text
    assert "delta = [-3.21062, -3.7416]" in text


def test_long_sums_are_cut() -> None:
    model = bp.Sequential([bp.Dense(20, "relu"), bp.Dense(1)], seed=0)
    model.compile("sgd", "mse")
    text = str(model.explain(np.ones(50), 1))
    assert "(44 more products)" in text and "... and 14 more units" in text
    assert max(map(len, text.splitlines())) <= 100


def test_what_cannot_be_explained_says_so() -> None:
    model = bp.Sequential([bp.Dense(2)], seed=0)
    with pytest.raises(RuntimeError, match="not compiled"):
        model.explain([1, 2], [0, 1])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="X has 2 rows, but y has 1"):
        model.explain([[1, 2], [3, 4]], [[0, 1]])
    with pytest.raises(ValueError, match="shape"):
        model.explain([1, 2], [0, 1, 2])


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["explain", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, listed, _ = run(capsys)
    assert status == 0 and all(name in listed for name in EXAMPLES)
    status, text, _ = run(capsys, "s1_4.4_T0")
    assert status == 0 and "loss = 18" in text and "dW1 = [6, 12]" in text
    status, _, error = run(capsys, "s1_4.4_T9")
    assert status == 2 and "s1_4.4_T0" in error
    path = tmp_path / "net.safetensors"
    model = EXAMPLES["s1_4.4_T0"].model()
    model.save(path)
    status, again, _ = run(capsys, path, "--x", "1,2", "--y", "0")
    assert status == 0 and again == text
    assert run(capsys, path, "--x", "1,2")[0] == 2
    assert run(capsys, path)[0] == 2
    assert "takes 2" in run(capsys, path, "--x", "1,2,3", "--y", "0")[2]
    status, batch, _ = run(capsys, path, "--x", "1,2;3,4", "--y", "0;1")
    assert status == 0 and batch.rstrip() == str(model.explain([[1, 2], [3, 4]], [0, 1]))
    status, _, error = run(capsys, path, "--x", "1,2;3", "--y", "0;1")
    assert status == 2 and "as many numbers in each row" in error
    assert run(capsys, path, "--row", "3-2")[0] == 2


def test_a_row_of_a_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [f"{a:.3f},{b:.3f},{'yes' if a > b else 'no'}" for a, b in rng.normal(size=(40, 2))]
    table, path = tmp_path / "t.csv", tmp_path / "t.safetensors"
    table.write_text("\n".join(["a,b,more", *rows]))
    assert main(["train", str(table), "--target", "more", "--epochs", "3", "--hidden", "3",
                 "--output", str(path)]) == 0  # fmt: skip
    capsys.readouterr()
    status, text, _ = run(capsys, path, table, "--row", 2)
    assert status == 0 and "binary_cross_entropy_with_logits" in text
    model = bp.load(path)
    assert f"loss = {model.explain(*_second(model, rows[1])).loss:.7g}" in text
    status, text, _ = run(capsys, path, table, "--row", "2-4")
    inputs, answers = zip(*(_second(model, row) for row in rows[1:4]), strict=True)
    assert status == 0 and f"loss = {model.explain(inputs, answers).loss:.7g}" in text
    status, _, error = run(capsys, path, table, "--row", 41)
    assert status == 2 and "has 40 rows" in error


def _second(model: bp.Sequential, row: str) -> tuple[list[float], list[float]]:
    """The row as the model's file says that its columns are prepared."""
    stored = json.loads(model.metadata["fastbp_table"])
    cells = row.split(",")
    x = [
        (float(cell) - column["mean"]) / column["std"]
        for cell, column in zip(cells, stored["columns"], strict=False)
    ]
    return x, [float(cells[2] == "yes")]
