"""The worked examples of the articles, with the right numbers (fixtures/worked_examples.json).

Compared: every quantity of the fixture, z, a, loss, delta, dW, db, dx, updated weights, in float64
to the 12 decimals that it gives (half a unit of the last, and 1e-15 for our own roundings), in
float32 to 16 roundings of a number of size 8. On every instruction set: through the engine, through
fastbp.ops layer by layer, and through Sequential on each device. The fixture's W is (out, in) and
its loss is half the sum of squares; one sample, networks of two or three layers. The element-wise
reading of the third article counts on its diagonal only. The recurrent example (three steps, our
own) is unrolled by hand from dense layers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp
import machine
import tolerances
from fastbp import _core
from sweeps import DTYPES, Array

isa = machine.isa

FIXTURES: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "fixtures" / "worked_examples.json").read_text()
)
CHAINS = [name for name, example in FIXTURES.items() if "delta" in example]
TOLERANCE = {"float64": 0.5e-12 + 1e-15 * 8, "float32": 16 * 8 * tolerances.unit("float32")}


def activation_of(example: dict[str, Any]) -> str:
    return {"linear": "identity"}.get(example["activation"], example["activation"])


def kernels(example: dict[str, Any], key: str, dtype: str) -> list[Array]:
    """Matrices of the fixture as kernels, (in, out)."""
    return [np.ascontiguousarray(np.array(w, dtype).T) for w in example[key]]


def close(actual: Any, expected: Any, dtype: str, what: str) -> None:
    tolerances.check(np.asarray(actual), np.asarray(expected, np.float64), TOLERANCE[dtype], what)


def check_matrices(
    actual: list[Array], example: dict[str, Any], key: str, dtype: str, name: str
) -> None:
    expected = kernels(example, key, "float64")
    for layer, (got, want) in enumerate(zip(actual, expected, strict=True)):
        if name == "s3_4.4_diagonal" and key in ("dW", "W_new"):
            got, want = np.diag(got), np.diag(want)
        close(got, want, dtype, f"{name}: {key}[{layer}]")


def test_the_fixture_has_all_examples() -> None:
    assert len(CHAINS) == 8
    assert set(FIXTURES) - set(CHAINS) == {"proposed_rnn_bptt"}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CHAINS)
def test_engine(isa: str, name: str, dtype: str) -> None:
    example = FIXTURES[name]
    layers: list[tuple[Any, ...]] = []
    for bias in example["b"]:
        layers += [("dense", len(bias), True), ("activation", activation_of(example), 0.0)]
    x, y = np.array([example["x"]], dtype), np.array([example["y"]], dtype)
    engine = _core.Engine(x.shape[1], layers, dtype)
    for shape, w, b in zip(
        engine.parameter_shapes, kernels(example, "W", dtype), example["b"], strict=True
    ):
        block = engine.parameters[shape[0] : shape[0] + w.size + len(b)]
        block[...] = np.concatenate([w.reshape(-1), np.array(b, dtype)])

    def matrices(flat: Array) -> tuple[list[Array], list[Array]]:
        blocks = [
            (flat[o : o + r * c], flat[o + r * c : o + (r + 1) * c])
            for o, r, c, _ in engine.parameter_shapes
        ]
        return [w.reshape(-1, len(b)) for w, b in blocks], [b for _, b in blocks]

    engine.compile("half_sse", 0.0, "sgd", {"learning_rate": example["lr"]})
    out = np.empty_like(y)
    engine.predict(x, out)
    close(out[0], example["a"][-1], dtype, f"{name}: output")
    close(engine.gradients(x, y), example["loss"], dtype, f"{name}: loss")
    dw, db = matrices(engine.gradients_)
    check_matrices(dw, example, "dW", dtype, name)
    close(np.concatenate(db), np.concatenate(example["db"]), dtype, f"{name}: db")
    loss, dx = engine.input_gradient(x, y)
    close(loss, example["loss"], dtype, f"{name}: loss")
    close(dx[0], example["dx"], dtype, f"{name}: dx")
    close(engine.step(x, y), example["loss"], dtype, f"{name}: loss of the step")
    w, b = matrices(engine.parameters)
    check_matrices(w, example, "W_new", dtype, name)
    close(np.concatenate(b), np.concatenate(example["b_new"]), dtype, f"{name}: b after")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CHAINS)
def test_functions(isa: str, name: str, dtype: str) -> None:
    """The same from matmul, activations, dense_forward, dense_backward, half_sse and sgd_update."""
    example = FIXTURES[name]
    activation = activation_of(example)
    weights, biases = kernels(example, "W", dtype), [np.array(b, dtype) for b in example["b"]]
    a, inputs, kept = np.array([example["x"]], dtype), [], []
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
        z = bp.ops.matmul(a, w, bias=b)
        close(z[0], example["z"][layer], dtype, f"{name}: z[{layer}]")
        inputs.append(a)
        a, saved = bp.ops.dense_forward(a, w, b, activation)
        kept.append(saved)
        close(a[0], example["a"][layer], dtype, f"{name}: a[{layer}]")
    loss, da = bp.ops.half_sse(a, np.array([example["y"]], dtype))
    close(loss, example["loss"], dtype, f"{name}: loss")
    gradients = []
    for layer in reversed(range(len(weights))):
        dx, dw, db = bp.ops.dense_backward(
            inputs[layer], weights[layer], kept[layer], da, activation
        )
        assert db is not None and dx is not None
        # With one sample, delta = dz is the gradient of the bias.
        close(db, example["delta"][layer], dtype, f"{name}: delta[{layer}]")
        close(db, example["db"][layer], dtype, f"{name}: db[{layer}]")
        gradients.insert(0, dw)
        da = dx
    close(da[0], example["dx"], dtype, f"{name}: dx")
    check_matrices(gradients, example, "dW", dtype, name)
    for w, dw in zip(weights, gradients, strict=True):
        bp.ops.sgd_update(w, dw, learning_rate=example["lr"])
    check_matrices(weights, example, "W_new", dtype, name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CHAINS)
def test_models(device: str, name: str, dtype: str) -> None:
    """Sequential: parameters() are live views; gradients, input_gradient, step."""
    example = FIXTURES[name]
    model = bp.Sequential(
        [bp.Dense(len(b), activation=activation_of(example)) for b in example["b"]]
    )
    x, y = np.array([example["x"]], dtype), np.array([example["y"]], dtype)
    model.compile(bp.SGD(example["lr"]), "half_sse", device=device, dtype=dtype)
    model.build(x.shape[1])
    for layer, w in enumerate(kernels(example, "W", dtype)):
        model.parameters()[f"{layer}.kernel"][...] = w
        model.parameters()[f"{layer}.bias"][...] = example["b"][layer]
    count = range(len(example["b"]))
    close(model.predict(x)[0], example["a"][-1], dtype, f"{name}: output")
    loss, gradients = model.gradients(x, y)
    close(loss, example["loss"], dtype, f"{name}: loss")
    check_matrices([gradients[f"{i}.kernel"] for i in count], example, "dW", dtype, name)
    for i in count:
        close(gradients[f"{i}.bias"], example["db"][i], dtype, f"{name}: db[{i}]")
    loss, dx = model.input_gradient(x, y)
    close(dx[0], example["dx"], dtype, f"{name}: dx")
    close(model.step(x, y), example["loss"], dtype, f"{name}: loss of the step")
    after = model.parameters()
    check_matrices([after[f"{i}.kernel"] for i in count], example, "W_new", dtype, name)
    for i in count:
        close(after[f"{i}.bias"], example["b_new"][i], dtype, f"{name}: b[{i}] after")


def test_loss_after_the_step(device: str) -> None:
    """What the articles' next evaluation should have shown: 2.2283 where the biases move too (first
    article), 0.0648 (second).
    """
    expected = {"s0_4.3_two_layers": (2.2283, 5e-5), "s1_4.4_T0": (0.0648, 1e-12)}
    for name, (loss, tolerance) in expected.items():
        example = FIXTURES[name]
        layers = [bp.Dense(len(b), activation=activation_of(example)) for b in example["b"]]
        model = bp.Sequential(layers)
        x, y = np.array([example["x"]], np.float64), np.array([example["y"]])
        model.compile(bp.SGD(example["lr"]), "half_sse", device=device, dtype="float64")
        model.build(2)
        for layer, w in enumerate(kernels(example, "W", "float64")):
            model.set_parameters({f"{layer}.kernel": w, f"{layer}.bias": example["b"][layer]})
        model.step(x, y)
        assert abs(model.evaluate(x, y)["loss"] - loss) <= tolerance, name


@pytest.mark.parametrize("dtype", DTYPES)
def test_recurrent_example_unrolled(isa: str, dtype: str) -> None:
    """h_t = tanh(Wx x_t + Wh h_(t-1) + b), one logit each, mean of the three losses; gradients go
    back through all steps. One dense layer on (x_t, h_(t-1)) is a step.
    """
    example = {
        key: np.array(v, dtype) for key, v in FIXTURES["proposed_rnn_bptt"].items() if key != "note"
    }
    kernel = np.concatenate([example["Wx"].T, example["Wh"].T])
    top, top_bias = np.ascontiguousarray(example["Wy"].T), example["by"]
    h, steps = np.zeros((1, 2), dtype), []
    for t in range(3):
        inputs = np.concatenate([example["X"][t : t + 1], h], axis=1)
        h, saved = bp.ops.dense_forward(inputs, kernel, example["bh"], "tanh")
        steps.append((inputs, saved, h))
        close(h[0], FIXTURES["proposed_rnn_bptt"]["h"][t], dtype, f"h[{t}]")
    states = np.concatenate([h for _, _, h in steps])
    logits, _ = bp.ops.dense_forward(states, top, top_bias)
    loss, dlogits = bp.ops.binary_cross_entropy_with_logits(logits, example["Y"])
    dstates, dtop, dtop_bias = bp.ops.dense_backward(states, top, logits, dlogits)
    assert dstates is not None
    total, total_bias, later = (
        np.zeros_like(kernel),
        np.zeros_like(example["bh"]),
        np.zeros((1, 2), dtype),
    )
    for t in reversed(range(3)):
        inputs, saved, _ = steps[t]
        dx, dw, db = bp.ops.dense_backward(
            inputs, kernel, saved, dstates[t : t + 1] + later, "tanh"
        )
        assert dx is not None and db is not None
        total, total_bias, later = total + dw, total_bias + db, dx[:, 2:]
    found = {
        "logits": logits, "loss": loss, "dWx": total[:2].T, "dWh": total[2:].T, "dbh": total_bias,
        "dWy": dtop.T, "dby": dtop_bias,
    }  # fmt: skip
    for key, value in found.items():
        close(value, FIXTURES["proposed_rnn_bptt"][key], dtype, key)
