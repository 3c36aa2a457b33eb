"""What happens after every epoch of an estimator's training: records, rate, and when to stop."""

from __future__ import annotations

from typing import Any

from ..arrays import Array
from ..callbacks import Callback
from . import settings

SMALLEST_RATE = 1e-6  # where learning_rate="adaptive" ends


class Monitor(Callback):
    """Keeps an estimator's loss_curve_ and scores, follows its schedule, and ends the training.

    The rules are scikit-learn's: an epoch without an improvement by more than tol counts, an
    improvement sets the count to 0, and a count above n_iter_no_change stops, or with the schedule
    "adaptive" divides the rate by 5. What must improve is the training loss or, with early
    stopping, the validation score.

    Args:
        estimator: its attributes are updated in place.
        samples: rows per epoch.
        scale: of the loss, see settings.Objective.
        score: gives the validation score of the present model, NaN if it is not finite; None
            without validation rows.
    """

    def __init__(self, estimator: Any, samples: int, scale: float, score: Any = None) -> None:
        self.estimator, self.samples, self.scale, self.score = estimator, samples, scale, score
        self.best: dict[str, Array] | None = None
        self.stopped = False

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """The start is the best so far: it stays if no epoch scores better."""
        self.estimator.n_iter_ = 0
        if self.estimator.early_stopping:
            self._keep_best()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Records the epoch and decides whether to go on."""
        assert logs is not None
        estimator = self.estimator
        self._record(epoch, logs)
        better = self._score_improved() if estimator.early_stopping else self._loss_improved()
        estimator._no_improvement_count = 0 if better else estimator._no_improvement_count + 1
        if self._is_sgd and estimator.learning_rate == "invscaling":
            slowdown = (estimator.t_ + 1) ** estimator.power_t
            self._set_rate(settings.learning_rate(estimator) / slowdown)
        if estimator._no_improvement_count > estimator.n_iter_no_change:
            self._end_or_slow_down()

    def _record(self, epoch: int, logs: dict[str, float]) -> None:
        estimator = self.estimator
        estimator.n_iter_ = epoch + 1
        estimator.t_ += self.samples
        estimator.loss_ = logs["loss"] * self.scale
        estimator.loss_curve_.append(estimator.loss_)
        self._say(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")
        if self.score is not None:
            estimator.validation_loss_curve_.append(logs["val_loss"] * self.scale)
            estimator.validation_scores_.append(self.score())
            self._say(f"Validation score: {estimator.validation_scores_[-1]:f}")

    # Comparisons are written so that NaN counts as an improvement: as with scikit-learn, a
    # diverged training goes on to max_iter and its last score says what happened.

    def _loss_improved(self) -> bool:
        estimator, loss = self.estimator, self.estimator.loss_
        better = not loss > estimator.best_loss_ - estimator.tol
        if loss < estimator.best_loss_:
            estimator.best_loss_ = loss
        self._score_improved()
        return better

    def _score_improved(self) -> bool:
        """Also counts the best of validation scores that nothing else depends on."""
        estimator = self.estimator
        if self.score is None:
            return False
        score = estimator.validation_scores_[-1]
        better = not score < estimator.best_validation_score_ + estimator.tol
        if score > estimator.best_validation_score_:
            estimator.best_validation_score_ = score
            if estimator.early_stopping:
                self._keep_best()
        return better

    def _keep_best(self) -> None:
        self.best = self.model._snapshot()

    def _end_or_slow_down(self) -> None:
        estimator = self.estimator
        what = "Validation score" if estimator.early_stopping else "Training loss"
        reason = (
            f"{what} did not improve more than tol={estimator.tol:f} for "
            f"{estimator.n_iter_no_change} consecutive epochs."
        )
        rate = self.model.optimizer.learning_rate / self.scale
        if self._is_sgd and estimator.learning_rate == "adaptive" and rate > SMALLEST_RATE:
            self._set_rate(rate / 5)
            estimator._no_improvement_count = 0
            self._say(f"{reason} Setting learning rate to {rate / 5:f}")
        else:
            self.stopped = self.model.stop_training = True
            self._say(f"{reason} Stopping.")

    @property
    def _is_sgd(self) -> bool:
        """Only plain gradient descent has a schedule, as with scikit-learn."""
        return settings.solver_name(self.estimator) == "sgd"

    def _set_rate(self, rate: float) -> None:
        self.model.optimizer.learning_rate = rate * self.scale

    def _say(self, line: str) -> None:
        if self.estimator.verbose:
            print(line)
