"""Remedies against over-fitting, side by side: few images, a network that can learn them by heart.

100 handwritten digits to train on, 797 others to see what was learned. Each remedy alone, over
several seeds: the mean loss on either, and the accuracy on the others. Not all help here: a
network too small, or one without a fifth of the few images, does worse than learning by heart.
"""

import numpy as np
from sklearn.datasets import load_digits

import fastbp as bp

TRAIN = 100
EPOCHS = 150


def network(regularizer=None, dropout=0.0, units=128, norm=False):
    layers = []
    for _ in range(2):
        layers.append(bp.Dense(units, kernel_regularizer=regularizer))
        layers += [bp.BatchNorm()] if norm else []
        layers += [bp.ReLU(), *([bp.Dropout(dropout)] if dropout else [])]
    return [*layers, bp.Dense(10)]


def noisy(x, rng):
    """Other images of the same digits: moved by a pixel, with noise."""
    images = x.reshape(-1, 8, 8)
    for axis in (1, 2):
        images = np.roll(images, rng.integers(-1, 2), axis)
    return images.reshape(x.shape) + 0.1 * rng.normal(size=x.shape)


# Of each remedy: the layers, the optimizer, what else fit takes.
REMEDIES = {
    "none": (network(), {}, {}),
    "L2": (network(bp.L2(1e-3)), {}, {}),
    "L1": (network(bp.L1(3e-4)), {}, {}),
    "weight decay": (network(), {"weight_decay": 0.5}, {}),
    "dropout": (network(dropout=0.5), {}, {}),
    "augmentation": (network(), {}, {"augment": noisy}),
    "early stopping": (network(), {}, {"validation_split": 0.2}),
    "smaller network": (network(units=12), {}, {}),
    "batch norm": (network(norm=True), {}, {}),
}


def run(name, seed):
    """(loss in training, loss on others, accuracy on others) of one remedy."""
    images, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(1797)
    train, test = order[:TRAIN], order[1000:]
    layers, optimizer, arguments = REMEDIES[name]
    model = bp.Sequential(layers, seed=seed)
    model.compile(bp.AdamW(1e-3, **{"weight_decay": 0.0, **optimizer}), "softmax_cross_entropy")
    stop = [bp.EarlyStopping(patience=15)] if "validation_split" in arguments else []
    X, y = images[train] / 16, digits[train]
    model.fit(X, y, epochs=EPOCHS, batch_size=20, verbose=0, callbacks=stop, **arguments)
    losses = []
    for x, t in ((X, y), (images[test] / 16, digits[test])):
        p = model.predict_proba(x)[np.arange(len(t)), t]
        losses.append(float(-np.log(np.maximum(p, 1e-30)).mean()))
    right = float((model.predict_class(images[test] / 16) == digits[test]).mean())
    return (*losses, right)


def main(seeds=5):
    """{remedy: (loss in training, loss on others, accuracy on others)}, means over the seeds."""
    results = {}
    for name in REMEDIES:
        results[name] = np.mean([run(name, seed) for seed in range(seeds)], axis=0)
        train, test, right = results[name]
        print(f"{name:16s} loss {train:.3f}, on others {test:.3f}; accuracy {right:.3f}")
    return results


if __name__ == "__main__":
    main()
