"""MLPRegressor: quantities from a network, one column or several."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_array, column_or_1d

from ..arrays import Array
from ..losses import Loss
from ..losses import get as get_loss
from ..optimizers import Optimizer
from .base import BaseMLP, Rows, checked_rows, split_rows
from .settings import Objective


class MLPRegressor(RegressorMixin, BaseMLP):
    """A multi-layer perceptron for quantities, trained by fastbp.

    Constructor arguments, attributes and defaults are those of scikit-learn's MLPRegressor; see
    MLPClassifier for what differs, and for `dtype` and `device`.

    Args:
        loss: "squared_error" (half of it, as scikit-learn); "poisson" for counts, whose network
            gives the logarithm of the rate, and `predict` the rate (`loss_` lacks the terms of y
            alone); or the name or object of any other loss of fastbp for quantities: "mae",
            "huber", Loss("quantile", quantile=0.9).

    Several columns of y are several outputs of one network; `loss_` is summed over them for
    "squared_error", averaged otherwise.
    """

    def __init__(
        self,
        loss: str | Loss = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str | Optimizer = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str | float = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dropout: float = 0.0,
        dtype: str = "auto",
        device: str = "auto",
    ) -> None:
        self._store(locals())

    def predict(self, X: Any) -> Array:
        """Quantities of the dtype of the parameters: (n,) for one output, else (n, outputs)."""
        rows = self._rows(X)
        output = self.model_.predict(rows)
        if self.out_activation_ == "exp":
            output = np.exp(output)
        return output[:, 0] if output.shape[1] == 1 else output

    @property
    def _counts(self) -> bool:
        return isinstance(self.loss, str) and self.loss == "poisson"

    def _objective(self) -> Objective:
        if isinstance(self.loss, str) and self.loss == "squared_error":
            return Objective(Loss("mse"), self.n_outputs_ / 2)
        if self._counts:
            return Objective(Loss("poisson_with_log_rate"), float(self.n_outputs_))
        loss = get_loss(self.loss)
        if loss.traits.link is not None:
            raise ValueError(f"loss {loss.name!r} is about classes: use MLPClassifier")
        return Objective(loss, 1.0)

    def _check_targets(self, X: Any, y: Any, first: bool, incremental: bool) -> Rows:
        x, y = checked_rows(self, X, y, reset=first, y_numeric=True)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        self.n_outputs_ = 1 if y.ndim == 1 else y.shape[1]
        self.out_activation_ = "exp" if self._counts else "identity"
        self._objective()  # raises for a loss that cannot be meant
        return Rows(x, self._columns(y))

    def _encode(self, y: Any) -> Array:
        return self._columns(check_array(y, ensure_2d=False, dtype="numeric"))

    @staticmethod
    def _columns(y: Array) -> Array:
        return np.asarray(y, np.float64).reshape(len(y), -1)

    def _split(self, rows: Rows, random: Any) -> tuple[Rows, Rows]:
        return split_rows(self, rows, random, None)

    def _validation_score(self, rows: Rows) -> float:
        output = self.model_.predict(rows.x)
        if self.out_activation_ == "exp":
            output = np.exp(output)
        if not np.isfinite(output).all():
            return float("nan")
        return float(r2_score(rows.y, output, sample_weight=rows.weights))
