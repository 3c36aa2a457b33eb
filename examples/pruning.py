"""Magnitude pruning: most weights of a trained network set to 0, the rest trained on.

The weights smallest in absolute value go (Han et al. 2015), over all kernels at once. A callback
holds them at 0 while the others make up for the loss. A network of a tenth of the weights, kept as
a sparse matrix, takes a tenth of the memory and of the multiplications.
"""

import numpy as np
from sklearn.datasets import load_digits

import fastbp as bp

SHARES = (0.5, 0.8, 0.9, 0.95)  # of the weights that are pruned


class Masked(bp.Callback):
    """Sets the pruned weights back to 0 after every step."""

    def __init__(self, masks):
        self.masks = masks

    def on_train_batch_end(self, batch, logs=None):
        apply(self.model, self.masks)


def apply(model, masks):
    for name, view in model.parameters().items():
        if name in masks:
            view *= masks[name]


def smallest(model, share):
    """For each kernel 1 where a weight stays, 0 where it goes."""
    kernels = {n: v for n, v in model.parameters().items() if n.endswith("kernel")}
    sizes = np.concatenate([np.abs(view).ravel() for view in kernels.values()])
    limit = np.quantile(sizes, share)
    return {name: (np.abs(view) > limit).astype(view.dtype) for name, view in kernels.items()}


def main(seed=0):
    """(share, accuracy pruned, accuracy trained on) of each share, on rows not trained on."""
    images, digits = load_digits(return_X_y=True)
    X, y, X_test, y_test = images[:1400] / 16, digits[:1400], images[1400:] / 16, digits[1400:]
    model = bp.Sequential([bp.Dense(64, "relu"), bp.Dense(32, "relu"), bp.Dense(10)], seed=seed)
    model.compile(bp.Adam(1e-3), "softmax_cross_entropy", ["accuracy"])
    model.fit(X, y, epochs=40, verbose=0)
    results = [(0.0, model.evaluate(X_test, y_test)["accuracy"])]
    for share in SHARES:
        masks = smallest(model, share)
        apply(model, masks)
        pruned = model.evaluate(X_test, y_test)["accuracy"]
        model.fit(X, y, epochs=15, verbose=0, callbacks=[Masked(masks)])
        zeros = np.mean([(model.parameters()[name] == 0).mean() for name in masks])
        tuned = model.evaluate(X_test, y_test)["accuracy"]
        print(f"{share:.0%} pruned ({zeros:.0%} of a kernel): {pruned:.3f}, trained on {tuned:.3f}")
        results.append((share, pruned, tuned))
    return results


if __name__ == "__main__":
    main()
