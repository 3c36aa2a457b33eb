"""MLPClassifier: classes from a network; two, several, or several labels at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, issparse
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels

from ..arrays import Array
from ..losses import Loss
from ..optimizers import Optimizer
from .base import BaseMLP, Rows, checked_rows, split_rows, trains_by_steps
from .settings import Objective


class MLPClassifier(ClassifierMixin, BaseMLP):
    """A multi-layer perceptron for classes, trained by fastbp.

    Constructor arguments, attributes and defaults are those of scikit-learn's MLPClassifier, and
    the same numbers mean the same: rates, alpha, tol and the start of the weights. What differs:

    Args:
        hidden_layer_sizes: may be empty, for a linear model.
        activation: any of fastbp's activations by name ("logistic" is sigmoid), an activation
            layer such as LeakyReLU(0.2), or a list with one per hidden layer.
        solver: "adam", "sgd", "lbfgs"; any other optimizer of fastbp by name, or as an object such
            as SGD(0.1, momentum=0.9), whose numbers then count alone: alpha, momentum, beta_1 and
            the learning rates here do not.
        alpha: L2; it is divided by the rows of a batch, and decays the biases too. `loss_` does
            not contain it, except with "lbfgs", which leaves the biases alone.
        learning_rate: "constant", "invscaling", "adaptive" as scikit-learn, or a number, which
            takes the place of learning_rate_init.
        random_state: the weights start as scikit-learn's do with the same random_state; the order
            of the rows follows from it too, but by fastbp's own generator.
        early_stopping: hold out validation_fraction of the rows, with the classes in proportion,
            unless fit gets validation_data. The parameters with the best score stay.
        class_weight: {class: weight} or "balanced": factors of the rows' weights in the loss, as
            elsewhere in scikit-learn; with partial_fit a dict.
        dropout: share of every hidden layer's outputs that is left out in training.
        dtype: "float32", "float64", "bfloat16" of network and arithmetic; "auto" takes that of X,
            as scikit-learn does. float32 is about twice as fast as float64.
        device: as in Sequential.compile.

    Attributes:
        model_: the fastbp.Sequential; its last layer gives logits.
        classes_: the classes, sorted; for several labels their numbers.
        coefs_, intercepts_: live views of the parameters.
        n_iter_, t_: epochs of the last call of fit; rows seen in all.
        loss_, loss_curve_, best_loss_: last, all and least loss of an epoch.
        validation_scores_, validation_loss_curve_, best_validation_score_: accuracy (R^2 for
            MLPRegressor) and loss on the validation rows after each epoch; None without any.

    y may be numbers or text (n,); or 0 and 1 in (n, labels), several labels at once: where that is
    sparse, so is what predict gives.
    """

    _sparse_labels = False

    def __init__(
        self,
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
        class_weight: Any = None,
        dtype: str = "auto",
        device: str = "auto",
    ) -> None:
        self._store(locals())

    @available_if(trains_by_steps)
    def partial_fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        classes: Any = None,
        *,
        validation_data: tuple[Any, ...] | None = None,
    ) -> Any:
        """One more epoch over these rows; see MLPRegressor.partial_fit.

        `classes` lists all classes that will ever come; the first call needs it (not with several
        labels, whose columns are the classes), later calls may repeat it.
        """
        with self._as_before_if_refused():
            self._take_classes(y, classes)
            return super().partial_fit(X, y, sample_weight, validation_data=validation_data)

    def _take_classes(self, y: Any, classes: Any) -> None:
        """Learns the classes at the first call of partial_fit; later they must be the same."""
        if hasattr(self, "classes_"):
            if classes is not None and not np.array_equal(self.classes_, unique_labels(classes)):
                raise ValueError(
                    f"classes={classes!r} is not what the first call of partial_fit or fit gave: "
                    f"{self.classes_!r}"
                )
        elif type_of_target(y) == "multilabel-indicator":
            self._learn_classes(y)
        elif classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        else:
            self._learn_classes(np.asarray(classes))

    def predict(self, X: Any) -> Array:
        """The likeliest class of each row (n,); 0 or 1 in (n, labels) for several labels.

        Those are a SciPy csr_matrix where the y of the first fit was sparse.
        """
        rows = self._rows(X)
        logits = self.model_.predict(rows)
        if self._multilabel:
            labels: Array = (logits > 0).astype(np.int64)
            return csr_matrix(labels) if self._sparse_labels else labels
        classes: Array = self.classes_[self._class_numbers(logits)]
        return classes

    def predict_proba(self, X: Any) -> Array:
        """Probabilities (n, classes) in the order of classes_, of the dtype of the parameters.

        For several labels (n, labels), the probability of each.
        """
        rows = self._rows(X)
        shares = self.model_.predict_proba(rows)
        if self._multilabel or self.out_activation_ == "softmax":
            return shares
        if len(self.classes_) == 1:
            return np.ones_like(shares)
        both: Array = np.hstack([1 - shares, shares])
        return both

    def predict_log_proba(self, X: Any) -> Array:
        """The natural logarithm of predict_proba; -inf where that is 0."""
        with np.errstate(divide="ignore"):
            logarithms: Array = np.log(self.predict_proba(X))
        return logarithms

    def _class_numbers(self, logits: Array) -> Array:
        """Positions in classes_ (n,)."""
        if self.out_activation_ == "softmax":
            numbers: Array = logits.argmax(axis=1)
            return numbers
        return ((logits[:, 0] > 0) & (len(self.classes_) > 1)).astype(np.int64)

    def _objective(self) -> Objective:
        if self.out_activation_ == "softmax":
            return Objective(Loss("softmax_cross_entropy"), 1.0)
        return Objective(Loss("binary_cross_entropy_with_logits"), float(self.n_outputs_))

    def _check_targets(self, X: Any, y: Any, first: bool, incremental: bool) -> Rows:
        x, y = checked_rows(self, X, y, reset=first)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if first and not incremental:
            self._learn_classes(y)
        elif not incremental:
            self._require_same_classes(y)
        return Rows(x, self._encode(y))

    def _learn_classes(self, y: Any) -> None:
        check_classification_targets(y)
        kind = type_of_target(y)
        if kind == "multiclass-multioutput":
            raise ValueError(
                "y has several columns of classes: fit one classifier per column, with "
                "sklearn.multioutput.MultiOutputClassifier. Columns of 0 and 1 are several labels"
            )
        self.classes_ = unique_labels(y)
        self._multilabel = kind == "multilabel-indicator"
        self._sparse_labels = issparse(y)
        several = len(self.classes_) > 2 and not self._multilabel
        self.out_activation_ = "softmax" if several else "logistic"
        self.n_outputs_ = len(self.classes_) if several or self._multilabel else 1

    def _require_same_classes(self, y: Array) -> None:
        found = unique_labels(y)
        if set(found) != set(self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous "
                f"call to fit. Previously got {self.classes_}, `y` has {found}"
            )

    def _encode(self, y: Any) -> Array:
        """Class numbers (n,) for softmax, else 0.0 and 1.0 in (n, outputs)."""
        y = y.toarray() if hasattr(y, "toarray") else np.asarray(y)
        if self._multilabel:
            if y.ndim != 2 or y.shape[1] != self.n_outputs_ or not np.isin(y, (0, 1)).all():
                raise ValueError(
                    f"y must hold 0 and 1 in (n, {self.n_outputs_}), one column per label as in "
                    f"the first fit; got shape {y.shape}"
                )
            labels: Array = y.astype(np.float64)
            return labels
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(
                f"`y` has classes not in `self.classes_`, {unknown}; known are {self.classes_}"
            )
        numbers: Array = np.searchsorted(self.classes_, y)
        return numbers if self.out_activation_ == "softmax" else numbers.astype(np.float64)[:, None]

    def _class_factors(self, y: Any, incremental: bool) -> Array | None:
        if self.class_weight is None:
            return None
        if incremental and isinstance(self.class_weight, str):
            raise ValueError(
                f"class_weight={self.class_weight!r} needs all rows at once: with partial_fit give "
                "a dict of weights"
            )
        factors: Array = compute_sample_weight(self.class_weight, y)
        return factors

    def _split(self, rows: Rows, random: Any) -> tuple[Rows, Rows]:
        """Classes in proportion; several labels, and classes too many or too rare, as they fall.

        Two classes are always in proportion, as with scikit-learn, and refused where that cannot
        be.
        """
        strata, y = None, rows.y
        if not self._multilabel:
            strata = self.classes_[y] if y.ndim == 1 else y.astype(bool)
        if y.ndim == 1:
            counts = np.unique(y, return_counts=True)[1]
            held = math.ceil(self.validation_fraction * len(y))
            if counts.min() < 2 or not len(counts) <= held <= len(y) - len(counts):
                strata = None
        return split_rows(self, rows, random, strata)

    def _validation_score(self, rows: Rows) -> float:
        logits, y = self.model_.predict(rows.x), rows.y
        if not np.isfinite(logits).all():
            return float("nan")
        if self._multilabel:
            right = ((logits > 0) == y).all(axis=1)
        else:
            right = self._class_numbers(logits) == y.reshape(-1)
        return float(np.average(right, weights=rows.weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
