"""How sure is a network? Twelve, trained at once on bootstrapped rows, and where they disagree.

    python examples/uncertain_digits.py

Digits are classified by the mean probabilities of an Ensemble. Where its members disagree most, it
errs most: the tenth of the held-out digits with the largest spread holds most of the errors, and
handing those to a person leaves far fewer. Needs scikit-learn for the data.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastbp as bp


def main(members: int = 12) -> dict[str, float]:
    """Accuracies of a member on average, of the ensemble, and of that where it is sure."""
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.5, random_state=0)
    ensemble = bp.Ensemble(
        bp.Sequential([bp.Dense(64, activation="relu"), bp.Dense(10)]), members, seed=0
    )
    ensemble.compile(bp.Adam(3e-3), "softmax_cross_entropy", metrics=["accuracy"])
    ensemble.fit(X, y, epochs=30, bootstrap=True, verbose=0)

    own = [member.evaluate(X_test, y_test)["accuracy"] for member in ensemble]
    mean, spread = ensemble.predict_proba(X_test, return_std=True)
    right = mean.argmax(axis=1) == y_test
    doubt = spread[np.arange(len(mean)), mean.argmax(axis=1)]
    sure = doubt <= np.quantile(doubt, 0.9)
    found = {
        "a member": float(np.mean(own)),
        "the ensemble": float(right.mean()),
        "where it is sure": float(right[sure].mean()),
        "errors in the least sure tenth": float((~right[~sure]).sum() / (~right).sum()),
    }
    for name, share in found.items():
        print(f"{name:<32} {share:.3f}")
    return found


if __name__ == "__main__":
    main()
