"""fit with LBFGS: all rows in every iteration, by SciPy, with the engine's loss and gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import Array
from .holdout import Rows
from .layers import Dropout, Layer
from .lazy import EVALUATION_BATCH
from .normalization import BatchNorm
from .optimizers import LBFGS
from .sources import ArraySource
from .structure import leaves
from .training import Fit


def minimizer() -> Any:
    """SciPy's minimize. Raises ImportError, saying what to install, without SciPy."""
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise ImportError("the optimizer LBFGS needs SciPy: pip install scipy") from error
    return minimize


def require_same_loss(layers: Sequence[Layer]) -> None:
    """Raises ValueError for layers that make another function of every step."""
    for name, layer in leaves(layers):
        if isinstance(layer, (Dropout, BatchNorm)):
            kind = type(layer).__name__
            raise ValueError(
                f"LBFGS compares losses of the same function, but layer {name}, a {kind}, changes "
                f"it from step to step: leave the {kind} out, or use another optimizer"
            )
        if layer.column_limit("kernel") is not None:
            raise ValueError(
                f"LBFGS does not know limits on weights, and layer {name} has max_norm: leave it "
                "out, or use another optimizer"
            )


class WholeBatchFit(Fit):
    """An epoch is an iteration; losses and metrics are those behind it.

    The parameters are those of the last iteration whenever a callback sees them, and when it ends,
    however it does.
    """

    def _work(self) -> None:
        minimize, optimizer = minimizer(), self.model.optimizer
        assert isinstance(optimizer, LBFGS)
        engine, epochs = self.engine, self.job.epochs
        rows, turns = self._rows(), self.model._turns
        accepted = engine.parameters.astype(np.float64)

        def value_and_gradient(flat: Array) -> tuple[float, Array]:
            self.run.interrupts.deliver()
            with turns.pieces:  # another thread that saves finds those of the last iteration
                try:
                    engine.parameters[...] = flat
                    loss, gradient = engine.flat_gradient(*rows)
                finally:
                    engine.parameters[...] = accepted
                return loss, gradient.astype(np.float64)

        # SciPy knows by the parameter's name that it wants the result so far.
        def after(intermediate_result: Any) -> None:
            accepted[...] = intermediate_result.x
            with turns.pieces:
                engine.parameters[...] = accepted
                self._measure()
            self._iteration()
            if self._ended():
                raise StopIteration
            self._begin()

        if self._ended():
            return
        self._begin()
        options = {
            "maxiter": epochs,
            "maxfun": 20 * epochs + 20,
            "maxcor": optimizer.history_size,
            "gtol": optimizer.tolerance,
            "ftol": 0.0,
        }
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                found = minimize(
                    value_and_gradient,
                    accepted.copy(),
                    jac=True,
                    method="L-BFGS-B",
                    callback=after,
                    options=options,
                )
        finally:
            engine.parameters[...] = accepted
        if not self._ended():
            self.run.history.stop_reason = "converged" if found.status == 0 else str(found.message)

    def _rows(self) -> Rows:
        assert isinstance(self.job.source, ArraySource)
        return self.job.source.data

    def _begin(self) -> None:
        self._epoch_begin()
        self._batch_begin()

    def _measure(self) -> None:
        """The only step of an epoch is done."""
        run, rows = self.run, self._rows()
        loss, values = self.engine.evaluate(
            rows.x,
            rows.y,
            EVALUATION_BATCH,
            run.settings.names,
            outputs=run.outputs,
            weights=rows.weights,
        )
        run.sums[:] = [loss, *values]
        run.batch, run.seen, run.stage = 1, len(rows.x), "batch_end"
        self.model._epochs = run.first_epoch + run.epochs_trained

    def _iteration(self) -> None:
        """What comes after it."""
        self._batch_end()
        self._validate()
        self._epoch_end()
