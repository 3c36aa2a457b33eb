"""Optuna looks for a network's settings and gives up hopeless trials early (pruning).

A callback reports the validation accuracy after every epoch; where Optuna's pruner finds it worse
than that of earlier trials at the same epoch, the trial ends. Needs optuna: pip install optuna.

Hyperopt works alike: an objective that trains and returns a loss, without the pruning.
"""

import optuna
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastbp as bp

EPOCHS = 15


class Pruning(bp.Callback):
    """Reports a value to Optuna after every epoch and ends the trial where it says so."""

    def __init__(self, trial, monitor="val_accuracy"):
        super().__init__()
        self.trial, self.monitor = trial, monitor

    def on_epoch_end(self, epoch, logs=None):
        self.trial.report(logs[self.monitor], epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def data():
    images, digits = load_digits(return_X_y=True)
    return train_test_split(images / 16, digits, test_size=0.3, random_state=0)


def objective(trial, parts):
    """The validation accuracy of one choice of settings."""
    X, X_rest, y, y_rest = parts
    width = trial.suggest_int("width", 4, 128, log=True)
    activation = trial.suggest_categorical("activation", ["relu", "tanh", "silu"])
    rate = trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
    model = bp.Sequential([bp.Dense(width, activation), bp.Dense(10)], seed=trial.number)
    model.compile(bp.Adam(rate), "softmax_cross_entropy", ["accuracy"])
    history = model.fit(
        X,
        y,
        epochs=EPOCHS,
        batch_size=64,
        validation_data=(X_rest, y_rest),
        callbacks=Pruning(trial),
        verbose=0,
    )
    return history.history["val_accuracy"][-1]


def main(trials=30):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
    )
    parts = data()
    study.optimize(lambda trial: objective(trial, parts), n_trials=trials)
    pruned = [trial for trial in study.trials if trial.state.name == "PRUNED"]
    print(f"{trials} trials, {len(pruned)} of them ended early")
    print(f"best: {study.best_value:.4f} with {study.best_params}")
    return study


if __name__ == "__main__":
    main()
