"""A whole job: handwritten digits, 64-128-10, batch 32, 30 epochs, beside scikit-learn.

Both train the same network with the same optimizer for the same number of epochs on the same
images, shuffled, without early stopping; timed is everything from the network's description to the
trained model. The result is verified: test accuracy, and the loss of the NumPy reference for the
same job.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import harness
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import fastbp as bp

HIDDEN, BATCH, EPOCHS, LEARNING_RATE = 128, 32, 30, 2e-3
SEEDS = range(5)  # the accuracy is the mean over these starts
MIN_RATIO, MIN_ACCURACY, MAX_LOSS_GAP = 10.0, 0.97, 1e-3


def digits() -> tuple[Any, Any, Any, Any]:
    """Training images, test images (float32, 0..1), training labels, test labels."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        (images / 16).astype(np.float32), labels, test_size=0.2, stratify=labels, random_state=0
    )
    return tuple(parts)


def train_fastbp(x: Any, y: Any, device: str = "auto", seed: int = 0) -> tuple[Any, float]:
    """The trained model and its last epoch's loss."""
    model = bp.Sequential([bp.Dense(HIDDEN, activation="relu"), bp.Dense(10)], seed=seed)
    model.compile(
        optimizer=bp.Adam(LEARNING_RATE),
        loss="softmax_cross_entropy",
        device=device,
        dtype="float32",
    )
    history = model.fit(x, y, epochs=EPOCHS, batch_size=BATCH, verbose=0)
    return model, history.history["loss"][-1]


def train_sklearn(x: Any, y: Any, seed: int = 0) -> Any:
    """alpha=0: no L2 term; n_iter_no_change above max_iter: never stops early."""
    model = MLPClassifier(
        (HIDDEN,),
        alpha=0,
        batch_size=BATCH,
        max_iter=EPOCHS,
        n_iter_no_change=EPOCHS + 1,
        learning_rate_init=LEARNING_RATE,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


def accuracy(model: Any, x: Any, y: Any) -> float:
    return float(np.mean(model.predict(x).argmax(axis=1) == y))


def main() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"exit 1 below {MIN_RATIO:g} times scikit-learn or {MIN_ACCURACY} accuracy",
    )
    arguments = parser.parse_args()
    harness.announce()
    x, x_test, y, y_test = digits()

    timings = harness.interleaved(
        {"fastbp": lambda: train_fastbp(x, y), "scikit-learn": lambda: train_sklearn(x, y)},
        arguments.repeats,
    )
    model, loss = train_fastbp(x, y)
    reference, reference_loss = train_fastbp(x, y, device="reference")
    accuracies = {
        "fastbp": [accuracy(train_fastbp(x, y, seed=s)[0], x_test, y_test) for s in SEEDS],
        "scikit-learn": [float(train_sklearn(x, y, s).score(x_test, y_test)) for s in SEEDS],
    }
    apart = max(
        float(np.max(np.abs(values - reference.parameters()[name])))
        for name, values in model.parameters().items()
    )
    results = {
        "timings": timings,
        "ratio": timings["scikit-learn"].median / timings["fastbp"].median,
        "accuracies": accuracies,
        "accuracy": {name: float(np.mean(values)) for name, values in accuracies.items()},
        "loss": {"fastbp": loss, "reference": reference_loss},
        "largest_parameter_difference": apart,
    }
    report(results)
    harness.write(arguments.json, "digits", results)
    failures = shortfalls(results)
    for failure in failures:
        print(f"FAIL: {failure}")
    return 1 if failures and arguments.check else 0


def report(results: dict[str, Any]) -> None:
    rows = [
        [
            "digits, 64-128-10, batch 32, 30 epochs",
            "ms",
            "p10",
            "p90",
            f"accuracy, mean of {len(SEEDS)}",
        ]
    ]
    for name, timing in results["timings"].items():
        times = [f"{1e3 * t:.1f}" for t in (timing.median, timing.p10, timing.p90)]
        rows.append([name, *times, f"{results['accuracy'][name]:.4f}"])
    print(harness.table(rows))
    print(f"fastbp is {results['ratio']:.1f} times as fast (ratio of the medians)")
    print(
        f"last epoch's loss {results['loss']['fastbp']:.6f}, NumPy reference "
        f"{results['loss']['reference']:.6f}; parameters differ by at most "
        f"{results['largest_parameter_difference']:.1e}"
    )


def shortfalls(results: dict[str, Any]) -> list[str]:
    loss, reference = results["loss"]["fastbp"], results["loss"]["reference"]
    mean = results["accuracy"]["fastbp"]
    checks = {
        f"ratio {results['ratio']:.1f} is below {MIN_RATIO:g}": results["ratio"] >= MIN_RATIO,
        f"test accuracy {mean:.4f} is below {MIN_ACCURACY}": mean >= MIN_ACCURACY,
        f"loss {loss:.6f} is not the reference's {reference:.6f}": abs(loss - reference)
        <= MAX_LOSS_GAP * reference,
    }
    return [message for message, passed in checks.items() if not passed]


if __name__ == "__main__":
    sys.exit(main())
