"""Recurrent layers beside PyTorch and in ONNX Runtime: outputs, gradients, weights in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fastbp as bp
from fastbp.layers import Layer

Array = NDArray[Any]
SHAPES = [(1, 1, 1, 1), (3, 7, 2, 5), (5, 1, 4, 67), (1, 9, 3, 67), (40, 4, 6, 1)]  # n, t, f, u


def layer_of(kind: str, units: int, sequences: bool, both: bool, bias: bool = True) -> Layer:
    classes: dict[str, Any] = {"lstm": bp.LSTM, "gru": bp.GRU, "tanh": bp.SimpleRNN}
    classes["relu"] = bp.SimpleRNN
    more = {"activation": kind} if kind in ("tanh", "relu") else {}
    layer = classes[kind](units, return_sequences=sequences, use_bias=bias, **more)
    return bp.Bidirectional(layer) if both else layer


def model_of(layers: list[Layer], inputs: int | None, dtype: str = "float64") -> bp.Sequential:
    model = bp.Sequential(layers, seed=1)
    model.compile(loss="half_sse", dtype=dtype)
    if inputs is not None:
        model.build(inputs)
        rng = np.random.default_rng(3)
        for value in model.parameters().values():
            value[...] = rng.normal(0, 0.4, value.shape)
    return model


def torch_layer(torch: Any, kind: str, f: int, u: int, both: bool, bias: bool, stack: int) -> Any:
    more = {"nonlinearity": kind} if kind in ("tanh", "relu") else {}
    modules = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
    make = modules.get(kind, torch.nn.RNN)
    shape = {"num_layers": stack, "bidirectional": both, "bias": bias}
    return make(f, u, batch_first=True, **shape, **more).double()


@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh", "relu"])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(("n", "t", "f", "u"), SHAPES)
def test_pytorch_computes_the_same(kind: str, both: bool, n: int, t: int, f: int, u: int) -> None:
    """Weights of a stack of two come in; outputs and all gradients are PyTorch's."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(n + u)
    bias = n != 3
    theirs = torch_layer(torch, kind, f, u, both, bias, stack=2)
    layers = [layer_of(kind, u, True, both, bias) for _ in range(2)]
    model = model_of(layers, None)
    model.load_torch_state_dict(theirs.state_dict())
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(n, t, f)), rng.normal(size=(n, t, u * (1 + both)))
    x_theirs = torch.from_numpy(x).requires_grad_()
    output = theirs(x_theirs)[0]
    np.testing.assert_allclose(model.predict(x), output.detach().numpy(), rtol=1e-9, atol=1e-12)
    (0.5 * (output - torch.from_numpy(target)) ** 2).sum().backward()
    dx = model.input_gradient(x, target)[1]
    np.testing.assert_allclose(dx, x_theirs.grad.numpy(), rtol=1e-8, atol=1e-10)
    _, gradients = model.gradients(x, target)
    expected = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    check = model_of(layers, f)
    check.load_torch_state_dict({name: np.array(value) for name, value in expected.items()})
    for name, value in gradients.items():
        wanted = check.parameters()[name]
        # Where PyTorch has two biases for our one, both have its gradient, and they were added up.
        if name.endswith(".bias") and kind != "gru":
            wanted = wanted / 2
        np.testing.assert_allclose(value, wanted, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh"])
@pytest.mark.parametrize("both", [False, True])
def test_weights_go_out_to_pytorch(kind: str, both: bool) -> None:
    torch = pytest.importorskip("torch")
    model = model_of([layer_of(kind, 6, False, both), bp.Dense(2)], 3)
    state = model.to_torch_state_dict()
    module = torch_layer(torch, kind, 3, 6, both, True, stack=1)
    module.load_state_dict({n[2:]: value for n, value in state.items() if n.startswith("0.")})
    x = np.random.default_rng(0).normal(size=(5, 4, 3))
    _, last = module(torch.from_numpy(x))
    last = last[0] if kind == "lstm" else last
    features = torch.cat(list(last), dim=-1).detach().numpy()
    ours = features @ state["1.weight"].numpy().T + state["1.bias"].numpy()
    np.testing.assert_allclose(model.predict(x), ours, rtol=1e-9, atol=1e-12)


def test_pytorch_s_padded_batches_compute_the_same() -> None:
    torch = pytest.importorskip("torch")
    theirs = torch_layer(torch, "lstm", 3, 5, True, True, stack=1)
    model = model_of([layer_of("lstm", 5, False, True)], None)
    model.load_torch_state_dict(theirs.state_dict())
    lengths = np.array([4, 1, 7, 2])
    x = np.random.default_rng(0).normal(size=(4, 7, 3))
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.from_numpy(x), torch.from_numpy(lengths), batch_first=True, enforce_sorted=False
    )
    states = theirs(packed)[1][0].detach().numpy()
    expected = np.concatenate([states[0], states[1]], axis=1)
    np.testing.assert_allclose(model.predict(x, lengths), expected, rtol=1e-9, atol=1e-12)


def test_round_trip_without_pytorch() -> None:
    for kind in ("lstm", "gru", "relu"):
        for both in (False, True):
            layers = [layer_of(kind, 4, True, both), layer_of(kind, 3, False, both), bp.Dense(1)]
            model = model_of(layers, 2)
            other = model_of(layers, None)
            other.load_torch_state_dict(model.to_torch_state_dict(as_numpy=True))
            for name, value in model.parameters().items():
                np.testing.assert_array_equal(other.parameters()[name], value)


BAD = [
    (lambda s: s.pop("0.weight_hh_l0"), "needs weight_ih, weight_hh"),
    (lambda s: s.update({"0.weight_ih_l0": np.zeros((15, 2))}), "has 16 columns; weight_ih"),
    (lambda s: s.update({"0.weight_ih_l0": np.zeros((16, 5))}), "for 5 inputs, the model for 2"),
    (lambda s: s.update({"0.weight_ih_l0_reverse": np.zeros((16, 2))}), "_reverse"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_what_does_not_fit_changes_nothing(change: Any, message: str) -> None:
    model = model_of([bp.LSTM(4), bp.Dense(1)], 2)
    before = {name: value.copy() for name, value in model.parameters().items()}
    state = {n: value + 1 for n, value in model.to_torch_state_dict(as_numpy=True).items()}
    change(state)
    with pytest.raises(ValueError, match=message):
        model.load_torch_state_dict(state)
    for name, value in model.parameters().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh", "relu"])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_onnx_runtime_computes_the_same(kind: str, both: bool, dtype: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    for sequences in (False, True):
        layers = [
            bp.TimeDistributed(bp.Dense(3, "tanh")),
            layer_of(kind, 5, True, both),
            bp.Dropout(0.2),
            layer_of(kind, 4, sequences, both, bias=False),
            bp.Dense(2),
        ]
        model = model_of(layers, 3, dtype)
        path = tmp_path / "net.onnx"
        model.export_onnx(path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for n, t in ((1, 1), (6, 9)):
            x = np.random.default_rng(n).normal(size=(n, t, 3)).astype(dtype)
            (theirs,) = session.run(None, {"x": x})
            ours = model.predict(x)
            assert theirs.shape == ours.shape
            np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


def test_onnx_takes_what_reshape_gives(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = model_of([bp.Reshape((4, 3)), bp.GRU(4), bp.Dense(2)], 3, "float32")
    model.export_onnx(tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "net.onnx", providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)
    (theirs,) = session.run(None, {"x": x.reshape(5, 4, 3)})
    np.testing.assert_allclose(theirs, model.predict(x), rtol=1e-4, atol=1e-5)


def test_added_ways_and_steps_backwards_in_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    for first in (
        bp.Bidirectional(bp.GRU(4, return_sequences=True), merge_mode="sum"),
        bp.LSTM(4, return_sequences=True, go_backwards=True),
    ):
        last = bp.Bidirectional(bp.LSTM(3), merge_mode="sum")
        model = model_of([first, last, bp.Dense(2)], 3, "float32")
        model.export_onnx(tmp_path / "net.onnx")
        session = onnxruntime.InferenceSession(
            tmp_path / "net.onnx", providers=["CPUExecutionProvider"]
        )
        x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
        (theirs,) = session.run(None, {"x": x})
        np.testing.assert_allclose(theirs, model.predict(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["lstm", "gru", "tanh"])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("every_step", [False, True])
def test_onnx_takes_lengths(kind: str, both: bool, every_step: bool, tmp_path: Path) -> None:
    """Second input "lengths"; what lies behind the ends changes nothing in front of them."""
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    first = layer_of(kind, 5, True, both)
    last = layer_of(kind, 4, every_step, both, bias=False)
    model = model_of([first, bp.LayerNorm(), last, bp.Dense(2)], 3, "float32")
    model.export_onnx(tmp_path / "net.onnx", lengths=True)
    session = onnxruntime.InferenceSession(
        tmp_path / "net.onnx", providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(0)
    x, lengths = rng.normal(size=(6, 7, 3)).astype(np.float32), np.array([3, 7, 1, 5, 2, 7])
    (theirs,) = session.run(None, {"x": x, "lengths": lengths})
    ours = model.predict(x, lengths=lengths)
    if every_step:
        counts = np.arange(7) < lengths[:, None]
        theirs, ours = theirs[counts], ours[counts]
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


def test_lengths_in_onnx_are_about_sequences(tmp_path: Path) -> None:
    model = bp.Sequential([bp.Dense(2)])
    model.build(3)
    with pytest.raises(ValueError, match="lengths=True is about sequences"):
        model.export_onnx(tmp_path / "net.onnx", lengths=True)


def test_layers_of_every_step_go_out_and_in() -> None:
    """TimeDistributed has the names of what it holds; an activation is a module of its own."""
    layers: list[Layer] = [
        bp.TimeDistributed(bp.Dense(4, "relu")), bp.TimeDistributed(bp.LayerNorm()),
        bp.GRU(3, return_sequences=True), bp.TimeDistributed(bp.Dense(2)),
    ]  # fmt: skip
    model, other = model_of(layers, 3), model_of(layers, None)
    state = model.to_torch_state_dict(as_numpy=True)
    assert {name.rpartition(".")[0] for name in state} == {"0", "2", "3", "4"}
    np.testing.assert_array_equal(state["0.weight"].T, model.parameters()["0.kernel"])
    other.load_torch_state_dict(state)
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    assert other.predict(x).tobytes() == model.predict(x).tobytes()
