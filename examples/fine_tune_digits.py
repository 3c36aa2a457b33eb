"""Fine-tuning against training from scratch, on real images with few labels.

A network learns handwritten digits from the first thousand images of scikit-learn's set. Then the
scanner is changed: the other images, of other writers, come paler and with noise, and only a few of
them have labels. The pretrained network gets a new head and is trained on; beside it a network of
the same shape starts from nothing, with the same images, steps and rate. Run over several seeds,
each of which draws other labelled images.
"""

import numpy as np
from sklearn.datasets import load_digits

import fastbp as bp

LABELLED = 3  # images per class that the new scanner's have labels for
EPOCHS = 200


def network(outputs, seed):
    model = bp.Sequential(
        [bp.Dense(64, "relu"), bp.Dense(32, "relu"), bp.Dense(outputs)], seed=seed
    )
    model.compile(bp.Adam(1e-3), "softmax_cross_entropy", ["accuracy"])
    return model


def few_labels(y, seed):
    """Row numbers of LABELLED images of each class, and of all others."""
    order = np.random.default_rng(seed).permutation(len(y))
    chosen = np.concatenate([order[y[order] == digit][:LABELLED] for digit in np.unique(y)])
    return chosen, np.setdiff1d(order, chosen)


def new_scanner(images, seed):
    """The images paler, with uniform noise; values stay in [0, 1]."""
    noise = np.random.default_rng(seed).random(images.shape)
    return np.clip(0.6 * images + 0.25 * noise, 0, 1)


def compare(seed):
    """Accuracy on unseen images of the new scanner: (fine-tuned, from scratch)."""
    images, digits = load_digits(return_X_y=True)
    images = images / 16
    pretrained = network(10, seed)
    pretrained.fit(images[:1000], digits[:1000], epochs=40, verbose=0)
    pretrained.replace_head(10)
    X, y = new_scanner(images[1000:], seed), digits[1000:]
    few, rest = few_labels(y, seed)
    scratch = network(10, seed)
    for model in (pretrained, scratch):
        model.fit(X[few], y[few], epochs=EPOCHS, batch_size=10, verbose=0)
    return tuple(model.evaluate(X[rest], y[rest])["accuracy"] for model in (pretrained, scratch))


def main(seeds=10):
    results = np.array([compare(seed) for seed in range(seeds)])
    for seed, (tuned, scratch) in enumerate(results):
        print(f"seed {seed}: fine-tuned {tuned:.3f}, from scratch {scratch:.3f}")
    tuned, scratch = results.mean(axis=0)
    print(f"mean of {seeds}: fine-tuned {tuned:.3f}, from scratch {scratch:.3f}")
    return results


if __name__ == "__main__":
    main()
