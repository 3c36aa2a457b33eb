"""fit with LBFGS: all rows in every iteration, by SciPy, with the engine's loss and gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core, network
from .arrays import Array
from .holdout import Rows
from .layers import Dropout, Layer
from .lazy import EVALUATION_BATCH
from .normalization import BatchNorm
from .optimizers import LBFGS
from .recurrent import Recurrent
from .sources import ArraySource
from .structure import leaves
from .training import Fit
from .wrappers import Bidirectional, TimeDistributed

if TYPE_CHECKING:
    from .model import Sequential


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
        if _changes(layer):
            raise ValueError(
                "LBFGS compares losses of the same function, but dropout or a batch's statistics "
                f"in layer {name}, {layer.title()}, change it from step to step: leave them out, "
                "or use another optimizer"
            )
        if layer.column_limit("kernel") is not None:
            raise ValueError(
                f"LBFGS does not know limits on weights, and layer {name} has max_norm: leave it "
                "out, or use another optimizer"
            )


def _changes(layer: Layer) -> bool:
    """Whether it makes another function of every step: its own dropout or statistics do."""
    if isinstance(layer, (Bidirectional, TimeDistributed)):
        layer = layer.layer
    drops = isinstance(layer, Recurrent) and (layer.dropout or layer.recurrent_dropout)
    return bool(drops) or isinstance(layer, (Dropout, BatchNorm))


class WholeBatchFit(Fit):
    """An epoch is an iteration; losses and metrics are those behind it.

    Parameters are tried in an engine of the fit's own. Those of the model are of an iteration
    whenever a callback or another thread sees them, and when it ends, however it does.
    """

    @staticmethod
    def working_engine(model: Sequential) -> _core.Engine:
        own, compiled = model._require_built(), model._require_compiled()
        assert model._backend is not None and model.inputs is not None
        made = network.make_engine(
            model.layers, model.inputs, model._backend, model.dtype, model.seed, model._frozen
        )
        network.compile_engine(model.layers, made, compiled)
        made.parameters[...] = own.parameters
        made.state[...] = own.state
        return made

    def _work(self) -> None:
        minimize, optimizer = minimizer(), self.model.optimizer
        assert isinstance(optimizer, LBFGS)
        engine, epochs = self.engine, self.job.epochs
        own = self.model._require_built()

        def value_and_gradient(flat: Array) -> tuple[float, Array]:
            self.run.interrupts.deliver()
            engine.parameters[...] = flat
            loss, gradient = engine.flat_gradient(*self._rows())
            return loss, gradient.astype(np.float64)

        def accept() -> None:
            own.parameters[...] = engine.parameters

        # SciPy knows by the parameter's name that it wants the result so far.
        def after(intermediate_result: Any) -> None:
            engine.parameters[...] = intermediate_result.x
            with self.model._turns.pieces:
                own.still(accept)
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
        with np.errstate(over="ignore", invalid="ignore"):
            found = minimize(
                value_and_gradient,
                engine.parameters.astype(np.float64),
                jac=True,
                method="L-BFGS-B",
                callback=after,
                options=options,
            )
        if not self._ended():
            self.run.history.stop_reason = "converged" if found.status == 0 else str(found.message)

    def _rows(self) -> Rows:
        """All rows; stateful layers begin with states of 0 at every look at the function."""
        assert isinstance(self.job.source, ArraySource)
        data, states = self.job.source.data, self.run.states
        if states is None:
            return data
        return data._replace(x=data.x.with_states(np.zeros_like(states)))

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
        if run.states is not None:
            run.states[...] = rows.x.states
        run.batch, run.seen, run.stage = 1, len(rows.x), "batch_end"
        self.model._epochs = run.first_epoch + run.epochs_trained

    def _iteration(self) -> None:
        """What comes after it."""
        self._batch_end()
        self._validate()
        self._epoch_end()
