"""Losses as a user of Sequential meets them: names and numbers, targets, classes, files.

Compared: the evaluated loss with its definition in NumPy; training on every device with the
target of its kind; classes and probabilities; a saved loss with the one that was saved.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp
from fastbp.losses import Loss
from sweeps import Array

DEVICES = ["cpu", "reference"]


def model(loss: Any, outputs: int = 1, device: str = "cpu", last: str | None = None) -> Any:
    made = bp.Sequential([bp.Dense(8, activation="tanh"), bp.Dense(outputs, activation=last)], 3)
    made.compile(optimizer=bp.Adam(0.02), loss=loss, device=device, dtype="float64")
    return made


def rows(n: int = 60, inputs: int = 4) -> Array:
    return np.random.default_rng(0).normal(size=(n, inputs))


def pinball(y: Array, t: Array) -> Array:
    return np.where(t > y, 0.9 * (t - y), 0.1 * (y - t))


DEFINITIONS: dict[str, Callable[[Array, Array], Array]] = {
    "quantile": pinball,
    "poisson": lambda y, t: y - t * np.log(y),
    "poisson_with_log_rate": lambda y, t: np.exp(y) - t * y,
    "hinge": lambda y, t: np.maximum(0, 1 - (2 * t - 1) * y),
    "squared_hinge": lambda y, t: np.maximum(0, 1 - (2 * t - 1) * y) ** 2,
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", DEFINITIONS)
def test_the_loss_is_its_definition_and_falls(name: str, device: str) -> None:
    x = rows()
    t = (x.sum(axis=1) > 0).astype(float) * (1 if "hinge" in name else 3)
    loss = Loss("quantile", quantile=0.9) if name == "quantile" else name
    net = model(loss, device=device, last="softplus" if name == "poisson" else None)
    first = net.evaluate(x, t)["loss"]
    expected = DEFINITIONS[name](net.predict(x)[:, 0], t).mean()
    assert first == pytest.approx(expected, rel=1e-12)
    net.fit(x, t, epochs=30, verbose=0)
    assert net.evaluate(x, t)["loss"] < 0.7 * first


def test_the_quantile_loss_finds_the_quantile() -> None:
    """A constant: the share q of the targets lies below it."""
    t = np.random.default_rng(1).exponential(size=999)
    for q in (0.1, 0.5, 0.9):
        net = bp.Sequential([bp.Dense(1)], seed=0)
        net.compile(bp.SGD(0.05), Loss("quantile", quantile=q), dtype="float64")
        net.fit(np.zeros((999, 1)), t, epochs=1500, batch_size=999, verbose=0)
        assert (t < net.predict(np.zeros((1, 1)))[0, 0]).mean() == pytest.approx(q, abs=0.02)


def test_hinge_targets_may_be_one_and_minus_one_or_zero() -> None:
    x = rows()
    yes = x[:, 0] > 0
    net = model("hinge")
    first = net.evaluate(x, yes.astype(float))
    assert net.evaluate(x, np.where(yes, 1.0, -1.0)) == first
    net.fit(x, np.where(yes, 1, -1), epochs=60, verbose=0)
    assert (net.predict_class(x) == yes).mean() > 0.95
    with pytest.raises(ValueError, match="margins, not probabilities"):
        net.predict_proba(x)


@pytest.mark.parametrize("device", DEVICES)
def test_several_labels_of_a_row(device: str) -> None:
    """Three yes-or-no columns: probabilities of each, accuracy the share of right ones."""
    x = rows(200)
    t = (x[:, :3] > np.array([0.0, 0.5, -0.5])).astype(float)
    for loss in ("binary_cross_entropy_with_logits", "hinge"):
        net = bp.Sequential([bp.Dense(3)], seed=0)
        net.compile(bp.Adam(0.05), loss, metrics=["accuracy"], device=device)
        history = net.fit(x, t, epochs=40, verbose=0).history
        assert history["accuracy"][-1] > 0.95
        chosen = net.predict_class(x)
        assert chosen.shape == (200, 3)
        assert net.evaluate(x, t)["accuracy"] == pytest.approx((chosen == t).mean())


@pytest.mark.parametrize("device", DEVICES)
def test_label_smoothing(device: str) -> None:
    """The loss of smoothed rows, by class numbers too; metrics are of the targets as given."""
    x, labels = rows(), np.arange(60) % 3
    smooth = 0.8 * np.eye(3)[labels] + 0.2 / 3
    nets = {s: model(Loss("softmax_cross_entropy", label_smoothing=s), 3, device) for s in (0, 0.2)}
    value, gradients = nets[0.2].gradients(x, labels)
    expected, wanted = nets[0].gradients(x, smooth)
    assert value == pytest.approx(expected, rel=1e-12)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, wanted[name], rtol=0, atol=1e-13)
    for net in nets.values():
        net.compile(loss=net.loss, metrics=["mse", "mae"], device=device, dtype="float64")
    plain, smoothed = (net.evaluate(x, labels) for net in nets.values())
    errors = nets[0].predict_proba(x) - np.eye(3)[labels]
    for found in (plain, smoothed):
        assert found["mse"] == pytest.approx((errors**2).mean())
        assert found["mae"] == pytest.approx(np.abs(errors).mean())
    assert smoothed["loss"] == pytest.approx(value)
    assert nets[0.2].gradients(x, labels)[0] == value


def test_a_saved_loss_comes_back(tmp_path: Path) -> None:
    for loss in (
        Loss("quantile", quantile=0.7),
        Loss("softmax_cross_entropy", label_smoothing=0.1),
        Loss("hinge"),
    ):
        net = model(loss, outputs=3)
        net.build(4)
        net.save(tmp_path / "net")
        assert bp.load(tmp_path / "net").loss == loss
        assert Loss(**loss.config()) == loss


def test_bad_losses_and_targets() -> None:
    for error, match, make in (
        (ValueError, "quantile must be in", lambda: Loss("quantile", quantile=1.0)),
        (ValueError, "label_smoothing must be", lambda: Loss("softmax_cross_entropy", 1.0)),
        (ValueError, "label_smoothing must be", lambda: Loss("binary_cross_entropy", -0.1)),
        (ValueError, "has no parameter", lambda: Loss("mse", 0.5)),
        (TypeError, "takes 'delta', once; got quantile", lambda: Loss("huber", quantile=0.5)),
        (TypeError, "takes 'delta', once", lambda: Loss("huber", 0.5, delta=0.5)),
        (TypeError, "takes none", lambda: Loss("mse", delta=0.5)),
        (ValueError, "use 'quantile'", lambda: Loss("pinball")),
    ):
        with pytest.raises(error, match=match):
            make()
    x = rows()
    for loss, bad, match in (
        ("hinge", 2.0, r"lie in \[-1, 1\] for loss 'hinge'"),
        ("poisson_with_log_rate", -1.0, "must not be negative for loss 'poisson_with_log_rate'"),
        ("binary_cross_entropy_with_logits", 1.5, r"lie in \[0, 1\]"),
    ):
        net = model(loss)
        target = np.zeros((60, 1))
        target[7] = bad
        for call in (net.fit, net.step, net.evaluate, net.gradients):
            with pytest.raises(ValueError, match=match):
                call(x, target)
    with pytest.warns(UserWarning, match="takes rates"):
        model("poisson")
    with pytest.warns(UserWarning, match="takes logits"):
        model("hinge", last="sigmoid")
