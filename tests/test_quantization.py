"""Quantised networks: the bound holds for every output, files come back as they were or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp
from fastbp.errors import ModelFileError

RNG = np.random.default_rng(5)


def network(activation: Any, seed: int = 0) -> bp.Sequential:
    X = RNG.normal(3, 2, (50, 9))
    layers = [bp.Normalize().adapt(X), bp.Dense(40, activation), bp.Dropout(0.5)]
    model = bp.Sequential(
        [*layers, bp.Dense(17, use_bias=False), bp.Activation("tanh"), bp.Dense(4)], seed=seed
    )
    model.build(9)
    values = {n: RNG.normal(size=v.shape) * 0.5 for n, v in model.parameters().items()}
    model.set_parameters(values)
    return model


@pytest.mark.parametrize("activation", [None, *bp.registry.ACTIVATIONS])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_no_output_is_further_off_than_the_bound(activation: Any, scale: float) -> None:
    model = network(activation)
    X = scale * RNG.normal(size=(200, 9))
    X[0] = 0
    y, bound = bp.quantize(model).predict(X, return_bound=True)
    assert y.dtype == bound.dtype == np.float32 and y.shape == bound.shape == (200, 4)
    assert (np.abs(y - model.predict(X)) <= bound).all()


def test_the_bound_is_met_by_one_layer_about_as_often_as_it_should() -> None:
    """Of one layer it is within an order of magnitude of what happens."""
    model = bp.Sequential([bp.Dense(3)], seed=1)
    model.build(4)
    X = RNG.normal(size=(500, 4))
    y, bound = bp.quantize(model).predict(X, return_bound=True)
    share = np.abs(y - model.predict(X)) / bound
    assert 0.3 < share.max() <= 1


def test_a_steep_activation() -> None:
    model = network(bp.Activation("leaky_relu", 3.0))
    X = RNG.normal(size=(100, 9))
    y, bound = bp.quantize(model).predict(X, return_bound=True)
    assert (np.abs(y - model.predict(X)) <= bound).all()


def test_integers_are_exact() -> None:
    """Weights and rows that are multiples of max / 127 lose nothing."""
    model = bp.Sequential([bp.Dense(5, use_bias=False)], seed=0)
    model.build(30)
    weights = RNG.integers(-127, 128, (30, 5))
    weights[0], X = 127, RNG.integers(-127, 128, (20, 30))
    X[:, 0] = 127
    model.set_parameters({"0.kernel": weights})
    np.testing.assert_array_equal(bp.quantize(model).predict(X), X @ weights)


def test_files(tmp_path: Path) -> None:
    model = network("gelu")
    X = RNG.normal(size=(30, 9))
    quantized = bp.quantize(model)
    quantized.save(tmp_path / "q")
    loaded = bp.load_quantized(tmp_path / "q")
    assert repr(loaded) == repr(quantized)
    assert (loaded.predict(X) == quantized.predict(X)).all()
    kernels = sum(v.size for n, v in model.parameters().items() if n.endswith("kernel"))
    assert quantized.nbytes - kernels == 4 * 2 * (40 + 17 + 4) + 8 * 2 * 9
    content = (tmp_path / "q").read_bytes()
    for damaged in (content[:-1], content + b"x", content[:-9] + b"?" + content[-8:]):
        (tmp_path / "d").write_bytes(damaged)
        with pytest.raises(ModelFileError):
            bp.load_quantized(tmp_path / "d")
    model.save(tmp_path / "whole")
    with pytest.raises(ModelFileError, match=r"no quantised network: it is a model, which .*load"):
        bp.load_quantized(tmp_path / "whole")
    with pytest.raises(ModelFileError, match=r"quantised network, which fastbp\.load_quantized"):
        bp.load(tmp_path / "q")


def test_what_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no parameters yet"):
        bp.quantize(bp.Sequential([bp.Dense(2)]))
    with pytest.raises(TypeError, match="quantize takes a Sequential; got NoneType None"):
        bp.quantize(None)
    model = bp.Sequential([bp.Dense(3), bp.LayerNorm(), bp.Dense(2)])
    model.build(2)
    with pytest.raises(ValueError, match="layer 1, LayerNorm"):
        bp.quantize(model)
    good = bp.quantize(network("relu"))
    for X, said in ((np.zeros((2, 3)), r"\(n, 9\)"), (np.full((1, 9), np.nan), "NaN or infinity")):
        with pytest.raises(ValueError, match=said):
            good.predict(X)
