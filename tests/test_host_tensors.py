"""Tensors of PyTorch and arrays of JAX on the host, as data: the answers are NumPy's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastbp as bp

X = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 20)


def new_model(device: str) -> bp.Sequential:
    model = bp.Sequential([bp.Dense(4, "tanh"), bp.Dense(3)], seed=0)
    model.compile("adam", "softmax_cross_entropy", metrics=["accuracy"], device=device)
    return model


def trained(device: str, x: Any, y: Any) -> Any:
    """All that a model answers to such data, in order."""
    model = new_model(device)
    history = model.fit(x, y, epochs=2, batch_size=8, verbose=0, validation_data=(x, y))
    loss, gradients = model.gradients(x, y)
    more = [model.input_gradient(x, y)[1], model.forward(x, training=True)]
    numbers = [model.step(x, y), loss, *model.evaluate(x, y).values()]
    found = [model.predict(x), model.predict_proba(x), model.predict_class(x), *more]
    assert all(type(array) is np.ndarray for array in found)
    return [*found, numbers, *history.history.values(), *gradients.values()]


def check(device: str, x: Any, y: Any, right: Any = X) -> None:
    """The same bits as from NumPy's arrays."""
    for mine, theirs in zip(trained(device, x, y), trained(device, right, Y), strict=True):
        np.testing.assert_array_equal(mine, theirs)


Made = Callable[[Any], Any]
TENSORS: dict[str, Made] = {
    "plain": lambda torch: torch.tensor(X),
    "float64": lambda torch: torch.tensor(X).double(),
    "turned": lambda torch: torch.tensor(np.ascontiguousarray(X.T)).T,
    "every other column": lambda torch: torch.tensor(np.repeat(X, 2, axis=1))[:, ::2],
    "read-only view": lambda torch: torch.tensor(X[:, :1]).expand(20, 5),
    "detached": lambda torch: torch.tensor(X).requires_grad_().detach(),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_of_pytorch(name: str, device: str) -> None:
    torch = pytest.importorskip("torch")
    tensor = TENSORS[name](torch)
    right = np.ascontiguousarray(tensor.float().numpy())
    for labels in (
        torch.tensor(Y),
        torch.tensor(Y).int(),
        torch.nn.functional.one_hot(torch.tensor(Y)),
    ):
        check(device, tensor, labels, right)
    assert type(new_model(device).predict(tensor)) is np.ndarray


def test_a_plain_tensor_is_read_where_it_lies(device: str) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(X)
    model = new_model(device)
    assert np.shares_memory(model._features(tensor), tensor.numpy())
    back = torch.from_numpy(model.predict(tensor))
    assert back.shape == (20, 3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"])
def test_short_floats_count_as_the_numbers_that_they_are(dtype: str, device: str) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(X).to(getattr(torch, dtype))
    check(device, tensor, torch.tensor(Y), tensor.float().numpy())
    one_hot = torch.nn.functional.one_hot(torch.tensor(Y)).to(getattr(torch, dtype))
    assert new_model(device).step(X, one_hot) == new_model(device).step(X, np.eye(3)[Y])


REFUSED: dict[str, tuple[Made, str]] = {
    "requires_grad": (lambda torch: torch.tensor(X).requires_grad_(), r"pass its \.detach\(\)"),
    "of a graph": (lambda torch: torch.tensor(X).requires_grad_() * 1, r"pass its \.detach\(\)"),
    "parameter": (lambda torch: torch.nn.Parameter(torch.tensor(X)), "X is a Parameter that requ"),
    "sparse": (lambda torch: torch.tensor(X).to_sparse(), "X is a Tensor that gives .*to_dense"),
    "meta": (lambda torch: torch.empty(20, 5, device="meta"), "X is a Tensor that gives"),
    "complex": (lambda torch: torch.tensor(X) * 1j, "X must hold real numbers; .*complex64"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tensors_that_are_no_data_are_refused_in_words(name: str, device: str) -> None:
    torch = pytest.importorskip("torch")
    make, words = REFUSED[name]
    model = new_model(device)
    model.build(5)
    before = {key: array.copy() for key, array in model.parameters().items()}
    tensor = make(torch)
    for call in (
        lambda: model.predict(tensor),
        lambda: model.step(tensor, Y),
        lambda: model.fit(tensor, Y, verbose=0),
        lambda: model.evaluate(tensor, Y),
    ):
        with pytest.raises(TypeError, match=words):
            call()
    for key, array in model.parameters().items():
        np.testing.assert_array_equal(array, before[key])


def test_targets_weights_and_parameters_are_read_alike(device: str) -> None:
    torch = pytest.importorskip("torch")
    model, weights = new_model(device), torch.linspace(0, 1, 20)
    assert model.gradients(X, Y, weights)[0] == model.gradients(X, Y, weights.numpy())[0]
    model.set_parameters({"0.bias": torch.ones(4).bfloat16()})
    np.testing.assert_array_equal(model.parameters()["0.bias"], 1)
    with pytest.raises(TypeError, match="sample_weight is a Tensor that requires gradients"):
        model.step(X, Y, weights.requires_grad_())
    with pytest.raises(TypeError, match="y is a Tensor that requires gradients"):
        model.step(X, torch.eye(3)[Y].requires_grad_())
    with pytest.raises(TypeError, match=r"0\.bias is a Parameter that requires gradients"):
        model.set_parameters({"0.bias": torch.nn.Parameter(torch.ones(4))})


def test_arrays_of_jax(device: str) -> None:
    jnp = pytest.importorskip("jax.numpy")
    check(device, jnp.array(X), jnp.array(Y))
    short = jnp.array(X, jnp.bfloat16)
    check(device, short, jnp.array(Y), np.asarray(short).astype(np.float32))


def test_bfloat16_of_numpy(device: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    short = X.astype(ml_dtypes.bfloat16)
    check(device, short, Y, short.astype(np.float32))
    with pytest.raises(TypeError, match="must hold real numbers"):
        new_model(device).predict(np.zeros((2, 5), np.dtype([("a", "f4")])))
