"""A small network for each field in which networks are used, beside the simplest answer there is.

images            handwritten digits of scikit-learn                     the most frequent digit
sentiment         made reviews, as counts of words                       the most frequent answer
medicine          breast_cancer of scikit-learn                          the most frequent answer
fraud             made payments, 2 % of them false; class weights        F1 of calling all false
recommendation    made ratings of films by people; two embeddings        the mean rating
control           a pole on a cart: the next state from this and push    that nothing changes
forecasting       a made price with a season; from the last 12 values    that it stays

Speech is in sequence_archives.py (speakers of Japanese vowels), text that is written in
character_model.py. Data that is made follows a rule that stands in the function, so that one sees
whether the network found it. Everything is scored on rows that were not trained on.
"""

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits

import fastbp as bp


def held_out(X, y, share=0.25):
    """The rows but the last, and the last."""
    cut = int(len(X) * (1 - share))
    return X[:cut], y[:cut], X[cut:], y[cut:]


def classify(X, y, classes, epochs, **fit):
    """Test accuracy of a network, and of always saying the most frequent class."""
    X, y, X_test, y_test = held_out(X, y)
    model = bp.Sequential(
        [bp.Normalize().adapt(X), bp.Dense(32, "relu"), bp.Dropout(0.2), bp.Dense(classes)], seed=0
    )
    model.compile(bp.Adam(3e-3), "softmax_cross_entropy", ["accuracy"])
    model.fit(X, y, epochs=epochs, verbose=0, **fit)
    simple = np.mean(y_test == np.bincount(y).argmax())
    return model.evaluate(X_test, y_test)["accuracy"], simple


def images():
    X, y = load_digits(return_X_y=True)
    return classify(X, y, 10, epochs=30)


def sentiment(rng):
    """Each word has a tone; a review is good if the tones of its words add up to more than 0."""
    tone = rng.normal(size=200)
    words = rng.poisson(0.15, (2000, 200))
    return classify(words, (words @ tone > 0).astype(int), 2, epochs=30)


def medicine():
    X, y = load_breast_cancer(return_X_y=True)
    return classify(X, y, 2, epochs=30)


def fraud(rng):
    """False are payments that are large, at night and abroad at once; F1 of those."""
    X = np.column_stack([rng.lognormal(3, 1, 8000), rng.uniform(0, 24, 8000), rng.random(8000)])
    score = (np.log(X[:, 0]) - 3) + np.cos(X[:, 1] / 24 * 2 * np.pi) + 2 * X[:, 2]
    y = (score > np.quantile(score, 0.98)).astype(int)
    X, y, X_test, y_test = held_out(X, y)
    model = bp.Sequential(
        [bp.Normalize().adapt(X), bp.Dense(16, "tanh"), bp.Dense(16, "tanh"), bp.Dense(1)], seed=0
    )
    model.compile(bp.Adam(5e-3), "binary_cross_entropy_with_logits", ["f1"])
    model.fit(X, y, epochs=40, class_weight={0: 1, 1: 5}, verbose=0)
    all_false = bp.metrics.f1(y_test, np.ones_like(y_test))
    return model.evaluate(X_test, y_test)["f1"], all_false


def recommendation(rng):
    """Ratings are the product of what a person likes and what a film has, and noise."""
    people, films = 60, 40
    likes, has = rng.normal(size=(people, 3)), rng.normal(size=(films, 3))
    pairs = np.column_stack([rng.integers(0, people, 12000), rng.integers(0, films, 12000)])
    ratings = (likes[pairs[:, 0]] * has[pairs[:, 1]]).sum(axis=1) + 0.1 * rng.normal(size=12000)
    pairs[:, 1] += people  # one table: the people's entries, then the films'
    X, y, X_test, y_test = held_out(pairs, ratings)
    model = bp.Sequential(
        [bp.Embedding(people + films, 8), bp.Flatten(), bp.Dense(64, "relu"), bp.Dense(1)], seed=0
    )
    model.compile(bp.Adam(5e-3), "mse", ["r2"])
    model.fit(X, y, epochs=40, batch_size=64, verbose=0)
    return model.evaluate(X_test, y_test)["r2"], 0.0


def cart_pole(state, push, step=0.05):
    """Position, speed, angle and angular speed of a pole on a cart, a moment later."""
    _, v, a, w = state.T
    force = (10 * push + 0.05 * w**2 * np.sin(a)) / 1.1
    turn = (9.8 * np.sin(a) - np.cos(a) * force) / (0.5 * (4 / 3 - 0.1 * np.cos(a) ** 2 / 1.1))
    return state + step * np.column_stack([v, force - 0.05 * turn * np.cos(a) / 1.1, w, turn])


def control(rng):
    """R2 of the change of the state; that nothing changes has at most 0."""
    state, push = rng.uniform(-1, 1, (4000, 4)), rng.uniform(-1, 1, 4000)
    change = cart_pole(state, push) - state
    X, y, X_test, y_test = held_out(np.column_stack([state, push]), change)
    scale = y.std(axis=0)
    model = bp.Sequential([bp.Dense(32, "tanh"), bp.Dense(32, "tanh"), bp.Dense(4)], seed=0)
    model.compile(bp.Adam(3e-3), "mse", ["r2"])
    model.fit(X, y / scale, epochs=60, verbose=0)
    return model.evaluate(X_test, y_test / scale)["r2"], bp.metrics.r2(y_test, 0 * y_test)


def forecasting(rng):
    """R2 of the next change of a price that follows a season and its own last step."""
    price = np.zeros(1500)
    for i in range(2, 1500):
        drift = np.sin(2 * np.pi * i / 12)
        price[i] = price[i - 1] + 0.5 * (price[i - 1] - price[i - 2]) + drift + 0.3 * rng.normal()
    changes = np.diff(price)
    past = np.lib.stride_tricks.sliding_window_view(changes, 12)[:-1]
    X, y, X_test, y_test = held_out(past, changes[12:])
    model = bp.Sequential([bp.Normalize().adapt(X), bp.Dense(24, "tanh"), bp.Dense(1)], seed=0)
    model.compile(bp.Adam(3e-3), "mse", ["r2"])
    model.fit(X, y, epochs=60, verbose=0)
    return model.evaluate(X_test, y_test)["r2"], bp.metrics.r2(y_test, 0 * y_test)


def main():
    """{field: (score of the network, score of the simplest answer)}."""
    rng = np.random.default_rng(0)
    scores = {
        "images": images(),
        "sentiment": sentiment(rng),
        "medicine": medicine(),
        "fraud": fraud(rng),
        "recommendation": recommendation(rng),
        "control": control(rng),
        "forecasting": forecasting(rng),
    }
    for field, (network, simple) in scores.items():
        print(f"{field:<15} network {network:.3f}   simplest answer {simple:.3f}")
    return scores


if __name__ == "__main__":
    main()
