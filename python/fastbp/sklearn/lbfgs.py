"""L-BFGS over the whole batch, by SciPy, with the engine's loss and gradient.

Liu and Nocedal 1989. Best on small data: some hundreds of evaluations, no learning rate.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from ..arrays import Array

if TYPE_CHECKING:
    from ..model import Sequential
    from .base import Rows


def run(estimator: Any, model: Sequential, rows: Rows, scale: float) -> None:
    """Minimises scale * loss + alpha / (2 n) * (sum of squared kernels); sets n_iter_ and loss_.

    n is the number of rows, or the sum of their weights.

    max_iter bounds the iterations, max_fun the evaluations, tol the largest gradient. Warns with
    ConvergenceWarning where one of the bounds ended it.
    """
    parameters = model.parameters()
    decay = estimator.alpha / (len(rows.x) if rows.weights is None else rows.weights.sum())

    def put(flat: Array) -> None:
        start = 0
        for array in parameters.values():
            array[...] = flat[start : start + array.size].reshape(array.shape)
            start += array.size

    def value_and_gradient(flat: Array) -> tuple[float, Array]:
        put(flat)
        loss, gradients = model.gradients(rows.x, rows.y, sample_weight=rows.weights)
        loss *= scale
        parts = []
        for name, array in parameters.items():
            part = gradients[name].astype(np.float64) * scale
            if name.endswith("kernel"):
                part += decay * array
                loss += decay / 2 * float(np.vdot(array, array))
            parts.append(part.ravel())
        return loss, np.concatenate(parts)

    start = np.concatenate([array.ravel() for array in parameters.values()]).astype(np.float64)
    options = {"maxfun": estimator.max_fun, "maxiter": estimator.max_iter, "gtol": estimator.tol}
    with np.errstate(over="ignore", invalid="ignore"):
        found = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
    put(found.x)
    estimator.n_iter_ = min(int(found.nit), int(estimator.max_iter))
    estimator.loss_ = estimator.best_loss_ = float(found.fun)
    if estimator.verbose:
        print(f"L-BFGS: {estimator.n_iter_} iterations, loss = {estimator.loss_:.8f}")
    if found.status != 0:
        warnings.warn(
            f"L-BFGS ended after {found.nit} iterations and {found.nfev} evaluations before it "
            f"converged ({found.message}): increase max_iter or max_fun, or scale the data",
            ConvergenceWarning,
            stacklevel=5,
        )
