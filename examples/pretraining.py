"""Layer-wise pretraining: each layer learns first to describe its input, without labels.

A stack of auto-encoders (Hinton and Salakhutdinov 2006, Bengio et al. 2007): a layer and a decoder
behind it are trained to give back the layer's input; then the next layer, on what the first makes
of the data. With a head on top the whole is trained on the few rows that have labels, beside a
network of the same shape that starts from nothing.
"""

import numpy as np
from sklearn.datasets import load_digits

import fastbp as bp

UNITS = (64, 32)
LABELLED = 60


def encoder(inputs, units, seed):
    """A layer that describes its input: its parameters, its outputs, the errors in training."""
    pair = [bp.Dense(units, "sigmoid"), bp.Dense(inputs.shape[1])]
    model = bp.Sequential(pair, seed=seed)
    model.compile(bp.Adam(3e-3), "mse")
    errors = model.fit(inputs, inputs, epochs=60, batch_size=32, verbose=0).history["loss"]
    parameters = {name: model.parameters()[f"0.{name}"].copy() for name in ("kernel", "bias")}
    hidden = 1 / (1 + np.exp(-(inputs @ parameters["kernel"] + parameters["bias"])))
    return parameters, hidden, errors


def classifier(seed):
    model = bp.Sequential([*(bp.Dense(u, "sigmoid") for u in UNITS), bp.Dense(10)], seed=seed)
    model.compile(bp.Adam(1e-2), "softmax_cross_entropy", ["accuracy"])
    return model


def compare(seed):
    """(accuracy pretrained, from scratch, first and last error of each auto-encoder)."""
    images, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(1797)
    X, y = images[order].astype(np.float32) / 16, digits[order]
    pretrained, scratch = classifier(seed), classifier(seed)
    pretrained.build(64)
    hidden, learned = X[:1400], []
    for place, units in enumerate(UNITS):
        parameters, hidden, errors = encoder(hidden, units, seed)
        pretrained.set_parameters({f"{place}.{name}": a for name, a in parameters.items()})
        learned.append((errors[0], errors[-1]))
    for model in (pretrained, scratch):
        model.fit(X[:LABELLED], y[:LABELLED], epochs=60, batch_size=20, verbose=0)
    scores = [model.evaluate(X[1400:], y[1400:])["accuracy"] for model in (pretrained, scratch)]
    return *scores, learned


def main(seeds=5):
    results = [compare(seed) for seed in range(seeds)]
    for seed, (pretrained, scratch, _) in enumerate(results):
        print(f"seed {seed}: pretrained {pretrained:.3f}, from scratch {scratch:.3f}")
    return results


if __name__ == "__main__":
    main()
