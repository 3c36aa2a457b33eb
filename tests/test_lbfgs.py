"""LBFGS: fit by iterations over the whole data.

Compared: a least-squares problem with NumPy's solution; the iterations with SciPy called by hand on
the oracle's loss; callbacks, weights, penalties, files, errors.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp

pytest.importorskip("scipy")
from scipy.optimize import minimize

X = np.random.default_rng(0).normal(size=(60, 4))
Y = np.tanh(X @ np.random.default_rng(1).normal(size=(4, 2)))
DEVICES = ["cpu", "reference"]


def model_of(device: str = "cpu", loss: Any = "mse", hidden: bool = True, **more: Any) -> Any:
    layers = [bp.Dense(5, activation="tanh")] if hidden else []
    model = bp.Sequential([*layers, bp.Dense(2, **more)], seed=3)
    model.compile(bp.LBFGS(), loss, metrics=["mae"], device=device, dtype="float64")
    model.build(4)
    return model


@pytest.mark.parametrize("device", DEVICES)
def test_least_squares(device: str) -> None:
    model = model_of(device, hidden=False)
    w = np.linspace(0.1, 2, 60)
    history = model.fit(X, Y, epochs=200, sample_weight=w, verbose=0)
    assert history.stop_reason == "converged"
    ones = np.column_stack([X, np.ones(60)]) * np.sqrt(w)[:, None]
    exact = np.linalg.lstsq(ones, Y * np.sqrt(w)[:, None], rcond=None)[0]
    np.testing.assert_allclose(model.parameters()["0.kernel"], exact[:4], atol=1e-4)
    assert len(history.history["loss"]) == model.epochs_trained < 100


def test_iterations_are_scipys() -> None:
    """Loss and metrics behind each iteration; the parameters are those of the last."""
    model, other = model_of(), model_of("reference")
    found: list[float] = []

    def value_and_gradient(flat: Any) -> tuple[float, Any]:
        other._engine.parameters[...] = flat
        return other._engine.gradients(X, Y), other._engine.gradients_.copy()

    def after(intermediate_result: Any) -> None:
        found.append(intermediate_result.fun)

    start = model._engine.parameters.copy()
    options = {"maxiter": 12, "maxcor": 10, "gtol": 1e-5, "ftol": 0.0}
    result = minimize(
        value_and_gradient, start, jac=True, method="L-BFGS-B", callback=after, options=options
    )
    history = model.fit(X, Y, epochs=12, validation_data=(X[:9], Y[:9]), verbose=0)
    np.testing.assert_allclose(history.history["loss"], found, rtol=1e-6)
    np.testing.assert_allclose(model._engine.parameters, result.x, rtol=0, atol=1e-5)
    assert history.stop_reason == "epochs"
    measured = model.evaluate(X, Y)
    assert history.history["loss"][-1] == measured["loss"]
    assert history.history["mae"][-1] == measured["mae"]
    assert history.history["val_loss"][-1] == model.evaluate(X[:9], Y[:9])["loss"]


def test_nobody_sees_the_parameters_that_are_tried() -> None:
    """Not a thread that predicts meanwhile either: the model's own are those of an iteration."""
    model = bp.Sequential([bp.Dense(5, "tanh"), bp.Dense(2)], seed=3)
    looked: list[bytes] = []

    def squares(y: Any, t: Any) -> Any:
        looked.append(model.parameters()["0.kernel"].tobytes())
        return (y - t) ** 2, 2 * (y - t)

    model.compile(bp.LBFGS(), bp.CustomLoss(squares), dtype="float64")
    model.build(4)
    start = model.parameters()["0.kernel"].tobytes()
    iterations = {start}
    note = bp.LambdaCallback(
        on_epoch_end=lambda *_: iterations.add(model.parameters()["0.kernel"].tobytes())
    )
    model.fit(X, Y, epochs=6, verbose=0, callbacks=note)
    assert len(iterations) == 7 and set(looked) <= iterations
    assert looked[:2] == [start, start]  # the second is of other parameters that were tried


def test_stateful_layers_begin_with_zero_at_every_look() -> None:
    """The same function as without stateful; behind it states are those of the result."""
    x, y = X[:, None, :].repeat(3, axis=1), Y
    models = []
    for stateful in (False, True):
        model = bp.Sequential([bp.LSTM(3, stateful=stateful), bp.Dense(2)], seed=3)
        model.compile(bp.LBFGS(), "mse", dtype="float64")
        model.fit(x, y, epochs=4, verbose=0)
        models.append(model)
    plain, carries = models
    assert carries.history.history == plain.history.history
    np.testing.assert_array_equal(carries._engine.parameters, plain._engine.parameters)
    _, states = plain.predict(x, return_state=True)
    expected = plain.predict(x, initial_state=states)
    np.testing.assert_array_equal(carries.predict(x), expected)


def test_callbacks_see_iterations_and_stop_them() -> None:
    class Watch(bp.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            assert logs is not None
            assert logs["loss"] == self.model.evaluate(X, Y)["loss"]
            self.model.stop_training = epoch == 3

    model = model_of(kernel_regularizer=bp.L2(1e-3))
    history = model.fit(X, Y, epochs=50, callbacks=Watch(), verbose=0)
    assert len(history.epoch) == 4
    assert history.stop_reason == "stop_training"
    assert history.history["loss"] == sorted(history.history["loss"], reverse=True)
    before = model.parameters()["0.kernel"].copy()

    class Break(bp.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            self.seen = self.model.parameters()["0.kernel"].copy()
            if epoch == 1:
                raise RuntimeError("enough")

    watch = Break()
    with pytest.raises(RuntimeError, match="enough"):
        model.fit(X, Y, epochs=50, callbacks=watch, verbose=0)
    assert (model.parameters()["0.kernel"] != before).any()
    np.testing.assert_array_equal(model.parameters()["0.kernel"], watch.seen)
    assert model.fit(X, Y, epochs=0, verbose=0).history == {}


def test_files_and_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of()
    model.fit(X, Y, epochs=3, verbose=0)
    model.save(tmp_path / "net")
    loaded = bp.load(tmp_path / "net")
    assert loaded.optimizer == bp.LBFGS()
    assert loaded.epochs_trained == 3
    with pytest.raises(ValueError, match=r"LBFGS makes no single steps: call model\.fit"):
        model.step(X, Y)
    for error, match, make in (
        (ValueError, "history_size must be", lambda: bp.LBFGS(history_size=0)),
        (ValueError, "tolerance must be", lambda: bp.LBFGS(tolerance=-1.0)),
        (ValueError, "LBFGS has no clip_norm", lambda: bp.LBFGS(clip_norm=1.0)),
        (AttributeError, "no learning rate", lambda: setattr(bp.LBFGS(), "learning_rate", 0.1)),
    ):
        with pytest.raises(error, match=match):
            make()
    before = model.parameters()["0.kernel"].copy()
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ImportError, match="pip install scipy"):
        model.fit(X, Y, epochs=3, verbose=0)
    np.testing.assert_array_equal(model.parameters()["0.kernel"], before)
