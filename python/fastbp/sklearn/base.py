"""What the two estimators share: training, attributes after it, prediction, pickling."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from .. import arrays, weights
from ..arrays import Array
from ..callbacks import Callback
from ..callbacks import get as get_callbacks
from ..model import Sequential
from . import lbfgs, settings
from .monitor import Monitor
from .pickling import PickledModel
from .settings import Objective

INPUTS = {"accept_sparse": ["csr", "csc"], "dtype": (np.float64, np.float32)}


def trains_by_steps(estimator: BaseMLP) -> bool:
    """Whether partial_fit exists: L-BFGS has no step to do."""
    return not settings.is_lbfgs(estimator)


class Rows(NamedTuple):
    """Rows for the engine: inputs, encoded targets, and weights or None."""

    x: Array
    y: Array
    weights: Array | None = None


class BaseMLP(PickledModel):
    """A Sequential model behind scikit-learn's interface; see MLPClassifier, MLPRegressor."""

    device: str
    dtype: str
    model_: Sequential
    n_outputs_: int
    _no_improvement_count: int

    # What differs between classes and quantities.

    @abstractmethod
    def _check_targets(self, X: Any, y: Any, first: bool, incremental: bool) -> Rows:
        """X and y checked and encoded for the engine; learns what the outputs stand for."""

    @abstractmethod
    def _encode(self, y: Any) -> Array:
        """Targets of validation rows for the engine."""

    @abstractmethod
    def _objective(self) -> Objective:
        """What is minimised."""

    @abstractmethod
    def _split(self, rows: Rows, random: Any) -> tuple[Rows, Rows]:
        """Training and validation rows for early stopping."""

    @abstractmethod
    def _validation_score(self, rows: Rows) -> float:
        """Accuracy or R^2 of the present model against encoded targets; NaN if not finite."""

    def _class_factors(self, y: Any, incremental: bool) -> Array | None:
        """What class_weight makes of each row; None where there are no classes."""
        return None

    def _store(self, arguments: dict[str, Any]) -> None:
        """Keeps the constructor's arguments under their names, unchecked until fit."""
        for name in self._get_param_names():
            setattr(self, name, arguments[name])

    # Training.

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        validation_data: tuple[Any, ...] | None = None,
        callbacks: Iterable[Callback] | Callback | None = None,
    ) -> Any:
        """Trains until max_iter epochs are done or nothing improves any more.

        Args:
            X: (n, features) numbers; sparse matrices are made dense.
            y: (n,) or (n, outputs).
            sample_weight: (n,) weights of the rows in the loss, at least 0; only their ratios count
                (fastbp.weights).
            validation_data: (X, y) or (X, y, sample_weight) to score after every epoch. With
                early_stopping=True it decides when to stop, and no rows of X are held out.
            callbacks: fastbp.Callback objects, called beside the estimator's own; not with
                solver="lbfgs".

        Returns the estimator. Raises ValueError and TypeError for wrong arguments or data, before
        anything is trained; ValueError if training ends in NaN or infinity. After an error the
        estimator is what it was before, unless warm_start has trained its network further. Warns
        with ConvergenceWarning where max_iter ended it. Ctrl-C raises KeyboardInterrupt; what was
        reached until then stays usable.
        """
        first = not (self.warm_start and hasattr(self, "model_"))
        with self._as_before_if_refused():
            self._fit(X, y, sample_weight, first, False, validation_data, get_callbacks(callbacks))
        return self

    @available_if(trains_by_steps)
    def partial_fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        validation_data: tuple[Any, ...] | None = None,
    ) -> Any:
        """One more epoch over these rows; the optimizer goes on as it is.

        Arguments as for fit. k calls equal one fit of k epochs on the same rows, bit for bit, up to
        where fit stops. Raises ValueError with early_stopping=True unless validation_data is given:
        rows drawn from every call's X would be trained on in another.
        """
        if self.early_stopping and validation_data is None:
            raise ValueError(
                "partial_fit does not support early_stopping=True without validation_data=(X, y)"
            )
        first = not hasattr(self, "model_")
        with self._as_before_if_refused():
            self._fit(X, y, sample_weight, first, True, validation_data, [])
        return self

    @contextmanager
    def _as_before_if_refused(self) -> Iterator[None]:
        """Brings the attributes back where an error comes, but for what training has reached.

        That is kept after Ctrl-C, and where a network that was there has been trained further.
        """
        before = dict(vars(self))
        epochs = len(before.get("loss_curve_", ()))
        try:
            yield
        except BaseException as error:
            model = vars(self).get("model_")
            trained = model is not None and isinstance(error, KeyboardInterrupt)
            if model is not None and model is before.get("model_"):
                trained = trained or len(self.loss_curve_) > epochs
            if not trained:
                self.__dict__ = before
            raise

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        first: bool,
        incremental: bool,
        validation_data: tuple[Any, ...] | None,
        callbacks: list[Callback],
    ) -> None:
        settings.check(self)
        if callbacks and settings.is_lbfgs(self):
            raise ValueError("solver='lbfgs' has no epochs to call callbacks after: leave them out")
        rows = self._check_targets(X, y, first, incremental)
        rows = rows._replace(weights=self._row_weights(rows, y, sample_weight, incremental))
        random = check_random_state(self.random_state)
        start = settings.draw_start(self, rows.x.shape[1], random) if first else None
        if validation_data is not None:
            training, validation = rows, self._validation_rows(validation_data)
        elif self.early_stopping and not settings.is_lbfgs(self):
            training, validation = self._split(rows, random)
        else:
            training, validation = rows, None
        seed = int(random.randint(np.iinfo(np.int32).max))
        batch = self._batch_rows(len(training.x))
        model = self._prepare(training, start, seed, batch, incremental)
        if first:
            self._start_records(validation is not None)
        self.model_ = model
        if settings.is_lbfgs(self):
            lbfgs.run(self, model, training, self._objective().scale)
        else:
            self._run_epochs(training, validation, batch, incremental, callbacks)
        if not all(np.isfinite(array).all() for array in model.parameters().values()):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large "
                "values and need to be preprocessed."
            )

    def _row_weights(
        self, rows: Rows, y: Any, sample_weight: Any, incremental: bool
    ) -> Array | None:
        """sample_weight times what class_weight makes of the row; None where both are absent."""
        found = self._class_factors(y, incremental)
        if sample_weight is not None:
            given = _checked_weights(sample_weight, len(rows.x))
            found = given if found is None else given * found
        if found is not None and not found.any():
            raise ValueError("class_weight leaves no row a weight: none would count")
        return found

    def _validation_rows(self, data: Any) -> Rows:
        if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
            raise TypeError("validation_data must be (X, y) or (X, y, sample_weight)")
        x = _dense(validate_data(self, data[0], reset=False, **INPUTS))
        y = self._encode(data[1])
        return Rows(x, y, _checked_weights(data[2], len(x)) if len(data) == 3 else None)

    def _batch_rows(self, rows: int) -> int:
        """Rows per step."""
        if self.batch_size == "auto":
            return min(200, rows)
        if self.batch_size > rows:
            warnings.warn(
                f"batch_size={self.batch_size} exceeds the {rows} rows: all are one batch",
                UserWarning,
                stacklevel=4,
            )
        return min(int(self.batch_size), rows)

    def _prepare(
        self, rows: Rows, start: list[Array] | None, seed: int, batch: int, incremental: bool
    ) -> Sequential:
        """The model to train: new if there is a start for it, else the fitted one."""
        x, factors = rows.x, rows.weights
        inputs = x.shape[1]
        layers = settings.layers(self, self.n_outputs_)
        model = Sequential(layers, seed) if start is not None else self.model_
        if [layer.config() for layer in layers] != [layer.config() for layer in model.layers]:
            raise ValueError(
                "training goes on with the network that was fitted, but hidden_layer_sizes, "
                "activation or the number of outputs have changed: fit with warm_start=False, or "
                "a clone of the estimator"
            )
        if start is not None or not incremental:
            objective = self._objective()
            mean = 1.0 if factors is None else float(factors.mean())
            model.compile(
                settings.optimizer(self, objective, batch * mean),
                objective.loss,
                device=self.device,
                dtype=x.dtype.name if self.dtype == "auto" else self.dtype,
            )
            model.build(inputs)
        if start is not None:
            model.set_parameters(dict(zip(model.parameters(), start, strict=True)))
        return model

    def _start_records(self, validated: bool) -> None:
        self.n_iter_ = self.t_ = 0
        self.n_layers_ = len(settings.hidden_units(self.hidden_layer_sizes)) + 2
        self._no_improvement_count = 0
        self.loss_curve_: list[float] = []
        self.best_loss_ = None if self.early_stopping else math.inf
        self.validation_scores_: list[float] | None = [] if validated else None
        self.validation_loss_curve_: list[float] | None = [] if validated else None
        self.best_validation_score_ = -math.inf if validated else None

    def _run_epochs(
        self,
        training: Rows,
        validation: Rows | None,
        batch: int,
        incremental: bool,
        callbacks: list[Callback],
    ) -> None:
        if validation is not None and self.validation_scores_ is None:
            self.validation_scores_, self.validation_loss_curve_ = [], []
            self.best_validation_score_ = -math.inf
        score = None
        if validation is not None:
            score = partial(self._validation_score, validation)
        monitor = Monitor(self, len(training.x), self._objective().scale, score)
        epochs = 1 if incremental else int(self.max_iter)
        self.model_.fit(
            training.x,
            training.y,
            sample_weight=training.weights,
            epochs=epochs,
            batch_size=batch,
            validation_data=None if validation is None else _present(validation),
            shuffle=self.shuffle,
            verbose=0,
            callbacks=[monitor, *callbacks],
        )
        if incremental:
            return
        if monitor.best is not None:
            self.model_._restore(monitor.best)
        if self.n_iter_ == epochs and not monitor.stopped:
            warnings.warn(
                f"max_iter={epochs} epochs are done and the training has not converged yet: "
                "increase max_iter, or loosen tol",
                ConvergenceWarning,
                stacklevel=4,
            )

    def _rows(self, X: Any) -> Array:
        """Rows to predict, checked and dense; raises NotFittedError before fit."""
        check_is_fitted(self)
        return _dense(validate_data(self, X, reset=False, **INPUTS))

    # Attributes.

    @property
    def coefs_(self) -> list[Array]:
        """The kernels from input to output, each (inputs, units): live views, writable."""
        return self._parameters("kernel")

    @coefs_.setter
    def coefs_(self, values: Any) -> None:
        self._set_parameters("kernel", values)

    @property
    def intercepts_(self) -> list[Array]:
        """The biases from input to output, each (units,): live views, writable."""
        return self._parameters("bias")

    @intercepts_.setter
    def intercepts_(self, values: Any) -> None:
        self._set_parameters("bias", values)

    def _dense_names(self, kind: str) -> list[str]:
        if "model_" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no parameters before it is fitted")
        return [name for name in self.model_.parameters() if name.endswith(f".{kind}")]

    def _parameters(self, kind: str) -> list[Array]:
        names = self._dense_names(kind)
        named = self.model_.parameters()
        return [named[name] for name in names]

    def _set_parameters(self, kind: str, values: Any) -> None:
        names = self._dense_names(kind)
        if len(values) != len(names):
            raise ValueError(f"{len(names)} arrays are needed, one per layer; got {len(values)}")
        self.model_.set_parameters(dict(zip(names, values, strict=True)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _dense(X: Any) -> Array:
    array: Array = X.toarray() if hasattr(X, "toarray") else X
    return array


def _present(rows: Rows) -> tuple[Any, ...]:
    """Without the weights where there are none."""
    return rows if rows.weights is not None else rows[:2]


def _checked_weights(value: Any, n: int) -> Array:
    """sample_weight as float64 (n,); one number stands for all rows."""
    array = np.asarray(value)
    if array.dtype.kind in "biuf" and not array.any():
        raise ValueError("sample_weight is zero in every row: no row would count")
    return weights.samples(np.full(n, array) if array.ndim == 0 else array, n)


def checked_rows(
    estimator: Any, X: Any, y: Any, *, reset: bool, **rules: Any
) -> tuple[Array, Array]:
    """X and y by scikit-learn's rules, X dense: finite numbers, as many targets as rows."""
    X, y = validate_data(estimator, X, y, reset=reset, multi_output=True, **INPUTS, **rules)
    x = _dense(X)
    if estimator.dtype != "auto":
        x = x.astype(arrays.stored(arrays.dtype_name(estimator.dtype)), copy=False)
    return x, y


def split_rows(estimator: Any, rows: Rows, random: Any, strata: Array | None) -> tuple[Rows, Rows]:
    """Training rows, and validation_fraction of all rows to validate, drawn at random."""
    parts = train_test_split(
        *_present(rows), random_state=random, test_size=estimator.validation_fraction,
        stratify=strata,
    )  # fmt: skip
    training, rest = Rows(*parts[::2]), Rows(*parts[1::2])
    if len(rest.x) < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' or the size of your "
            "dataset."
        )
    return training, rest
