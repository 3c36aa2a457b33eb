"""SequenceClassifier and SequenceRegressor: recurrent networks behind scikit-learn's interface."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from .. import arrays, checks, weights
from ..arrays import Array
from ..callbacks import EarlyStopping
from ..errors import describe, lookup
from ..layers import Dense, Layer
from ..model import Sequential
from ..normalization import Normalize, standard
from ..optimizers import Adam
from ..recurrent import GRU, LSTM, SimpleRNN
from ..sequences import Sequences, padded
from ..wrappers import Bidirectional
from .pickling import PickledModel

_CELLS: dict[str, Any] = {"lstm": LSTM, "gru": GRU, "rnn": SimpleRNN}
_share = partial(checks.real, low=0, high=1, open_low=True, open_high=True)


class _BaseSequence(PickledModel):
    """What the two estimators share; see SequenceClassifier."""

    model_: Sequential
    device: str

    def _store(self, arguments: dict[str, Any]) -> None:
        """Keeps the constructor's arguments under their names, unchecked until fit."""
        for name in self._get_param_names():
            setattr(self, name, arguments[name])

    def _train(self, x: Sequences, y: Array, loss: str, outputs: int, sample_weight: Any) -> None:
        """Makes the model and trains it."""
        random = check_random_state(self.random_state)
        model = Sequential([*self._layers(x), Dense(outputs)], seed=int(random.randint(2**31 - 1)))
        optimizer = Adam(
            checks.real("learning_rate", self.learning_rate, 0, open_low=True),
            clip_norm=self.clip_norm,
        )
        model.compile(optimizer, loss, device=self.device, dtype=self.dtype)
        patience = checks.integer("n_iter_no_change", self.n_iter_no_change)
        early = checks.boolean("early_stopping", self.early_stopping)
        order = random.permutation(len(x))  # so that what is held out is drawn at random
        history = model.fit(
            x[order],
            y[order],
            epochs=checks.integer("max_iter", self.max_iter),
            batch_size=checks.integer("batch_size", self.batch_size),
            validation_split=_share("validation_fraction", self.validation_fraction)
            if early
            else 0.0,
            callbacks=EarlyStopping(patience=patience, restore_best_weights=True)
            if early
            else None,
            tol=None if early else checks.real("tol", self.tol, 0),
            patience=None if early else patience,
            sample_weight=None if sample_weight is None else sample_weight[order],
            verbose=self.verbose,
        )
        losses = list(history.history["loss"])
        if not np.isfinite(losses[-1]):
            raise ValueError(
                "training ended in a loss that is not finite: lower learning_rate, or scale X"
            )
        self.model_, self.n_features_in_ = model, x.shape[2]
        self.loss_curve_, self.loss_, self.n_iter_ = losses, losses[-1], len(losses)
        self.validation_loss_curve_ = list(history.history["val_loss"]) if early else None

    def _layers(self, x: Sequences) -> list[Layer]:
        kind = lookup("cell", self.cell, _CELLS)
        units = list(self.units) if isinstance(self.units, Iterable) else [self.units]
        if not units:
            raise ValueError("units must name at least one recurrent layer; got none")
        both = checks.boolean("bidirectional", self.bidirectional)
        dropout = {"dropout": self.dropout, "recurrent_dropout": self.recurrent_dropout}
        chain: list[Layer] = []
        if checks.boolean("normalize", self.normalize):
            chain.append(Normalize().adapt(x.values[x.running()]))
        for place, width in enumerate(units):
            layer = kind(width, return_sequences=place + 1 < len(units), **dropout)
            chain.append(Bidirectional(layer) if both else layer)
        return chain

    def _output(self, X: Any, method: str) -> Array:
        check_is_fitted(self, "model_")
        x = _sequences(X)
        if x.shape[2] != self.n_features_in_:
            raise ValueError(
                f"X has {x.shape[2]} features a step; {self.n_features_in_} were trained on"
            )
        output: Array = getattr(self.model_, method)(x)
        return output

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Columns of a matrix are steps here, of which predict may get more or fewer than fit did:
        # a table of features, which is what the first tag promises, it is not.
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags


class SequenceClassifier(ClassifierMixin, _BaseSequence):
    """Classes of sequences, from recurrent layers and a dense one on the last state.

    Args:
        cell: "lstm", "gru" or "rnn".
        units: width of the recurrent layer, or a list with one for each of several.
        bidirectional: reads the sequences in both directions.
        dropout, recurrent_dropout: shares of inputs and state that are left out in training.
        normalize: brings each feature to mean 0 and deviation 1, by the steps trained on.
        learning_rate, clip_norm: of Adam; the gradient is scaled down to the norm clip_norm (None:
            not at all).
        batch_size, max_iter: sequences per step, epochs at most.
        early_stopping: hold out validation_fraction of the sequences and keep the parameters with
            the least loss on them.
        n_iter_no_change, tol: ends training after so many epochs without an improvement, with
            early_stopping of the held-out loss, else of the training loss by more than tol.
        class_weight: {class: weight} or "balanced".
        random_state: start, order and dropout follow from it.
        verbose: as in Sequential.fit.
        dtype, device: as in Sequential.compile.

    Attributes:
        model_: the fastbp.Sequential; its last layer gives logits.
        classes_: the classes, sorted.
        n_features_in_, n_iter_, loss_, loss_curve_: features a step, epochs, and their losses.
        validation_loss_curve_: with early_stopping the losses on what is held out, else None.
    """

    def __init__(
        self,
        cell: str = "lstm",
        units: Any = 64,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        normalize: bool = True,
        learning_rate: float = 0.003,
        clip_norm: float | None = 1.0,
        batch_size: int = 32,
        max_iter: int = 100,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        class_weight: Any = None,
        random_state: Any = None,
        verbose: bool | int = False,
        dtype: str = "float32",
        device: str = "auto",
    ) -> None:
        self._store(locals())

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SequenceClassifier:
        """Trains on sequences X and their classes y (n,), numbers or text.

        Args:
            X: (n, steps, features); (n, steps) of one feature; fastbp.Sequences; or a list or array
                of arrays (steps, features), each of its own length.
            y: (n,), or with a warning (n, 1).
            sample_weight: (n,) weights in the loss, at least 0.

        Returns the estimator. Raises ValueError and TypeError for wrong arguments or data.
        """
        _require_targets(self, y)
        x, labels = _sequences(X), np.asarray(y)
        if labels.shape == (len(x), 1):
            labels = column_or_1d(labels, warn=True)
        if labels.shape != (len(x),):
            raise ValueError(f"y must have shape ({len(x)},), one class for each sequence; got "
                             f"{labels.shape}")  # fmt: skip
        check_classification_targets(labels)
        classes, numbers = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"y must hold at least two classes; got {classes}")
        factors = _weights(sample_weight, len(x))
        if self.class_weight is not None:
            by_class = compute_sample_weight(self.class_weight, labels)
            factors = by_class if factors is None else factors * by_class
        self._train(x, numbers, "softmax_cross_entropy", len(classes), factors)
        self.classes_ = classes
        return self

    def predict(self, X: Any) -> Array:
        """The likeliest class of each sequence (n,)."""
        numbers = self._output(X, "predict_class")  # or says that fit is missing
        classes: Array = self.classes_[numbers]
        return classes

    def predict_proba(self, X: Any) -> Array:
        """Probabilities (n, classes) in the order of classes_."""
        return self._output(X, "predict_proba")


class SequenceRegressor(RegressorMixin, _BaseSequence):
    """Quantities of sequences, from recurrent layers and a dense one on the last state.

    Constructor arguments and attributes as SequenceClassifier's, and:

    Args:
        loss: "mse", or another loss of fastbp for quantities: "mae", "huber".

    Targets are brought to mean 0 and deviation 1 for training, and back in predict.
    """

    def __init__(
        self,
        cell: str = "lstm",
        units: Any = 64,
        *,
        loss: str = "mse",
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        normalize: bool = True,
        learning_rate: float = 0.003,
        clip_norm: float | None = 1.0,
        batch_size: int = 32,
        max_iter: int = 100,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        random_state: Any = None,
        verbose: bool | int = False,
        dtype: str = "float32",
        device: str = "auto",
    ) -> None:
        self._store(locals())

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SequenceRegressor:
        """Trains on X, as SequenceClassifier.fit, and quantities y (n,) or (n, outputs)."""
        lookup("loss", self.loss, dict.fromkeys(("mse", "mae", "huber")))
        _require_targets(self, y)
        x, target = _sequences(X), arrays.as_numbers("y", y)
        if target.ndim not in (1, 2) or len(target) != len(x):
            raise ValueError(
                f"y must have shape ({len(x)},) or ({len(x)}, outputs); got {target.shape}"
            )
        if not np.isfinite(target).all():
            raise ValueError("y has NaN or infinity")
        columns = target.reshape(len(x), -1).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            center, scale = standard(columns)
        if not np.isfinite(center + scale).all():
            raise ValueError("y spans more than float64 holds: scale it first")
        scale[scale == 0] = 1
        factors = _weights(sample_weight, len(x))
        self._train(x, (columns - center) / scale, self.loss, columns.shape[1], factors)
        self._center, self._scale, self._flat = center, scale, target.ndim == 1
        return self

    def predict(self, X: Any) -> Array:
        """Quantities (n,) or (n, outputs), as y was given."""
        values: Array = self._output(X, "predict") * self._scale + self._center
        return values[:, 0] if self._flat else values


def _require_targets(estimator: Any, y: Any) -> None:
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None"
        )


def _sequences(X: Any) -> Sequences:
    """X as sequences with finite values; see SequenceClassifier.fit."""
    if isinstance(X, Sequences):
        x = X if X.ndim == 3 else X.like(X.values[:, :, None])
    elif isinstance(X, (list, tuple)) or _holds_arrays(X):
        x = Sequences(*padded("X", [_steps(f"X[{i}]", item) for i, item in enumerate(X)]))
    else:
        array = arrays.as_numbers("X", X)
        if array.ndim == 2:
            array = array[:, :, None]
        if array.ndim != 3:
            raise ValueError(
                "X must have shape (sequences, steps, features) or (sequences, steps), or be a "
                f"list of arrays (steps, features); got shape {array.shape}"
            )
        if array.size == 0:
            raise ValueError(f"X has no sequences, steps or features; got shape {np.shape(X)}")
        x = Sequences(array)
    gaps = np.argwhere(~np.isfinite(x.values) & x.running()[:, :, None])
    if len(gaps):
        sequence, step, feature = gaps[0]
        raise ValueError(
            f"X has NaN or infinity in sequence {sequence}, step {step}, feature {feature}: fill "
            "the gaps, or leave the steps out"
        )
    return x


def _holds_arrays(X: Any) -> bool:
    """Whether X is an array (n,) of objects that are arrays, as ragged data is often kept."""
    objects = isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1 and len(X) > 0
    return objects and isinstance(X[0], (np.ndarray, list))


def _steps(name: str, item: Any) -> Array:
    """One sequence (steps, features) of a list; (steps,) has one feature."""
    array = arrays.as_numbers(name, item)
    if array.ndim not in (1, 2):
        raise ValueError(f"{name} must have shape (steps, features); got {describe(item)}")
    return array[:, None] if array.ndim == 1 else array


def _weights(value: Any, n: int) -> Array | None:
    return None if value is None else weights.samples(value, n)
