"""A network reads Python's reference, character by character, and writes in its manner.

The text is that of Python's help(), which every installation has. An LSTM is trained to tell the
next character, on pieces of 64; then it writes: what it draws is what it reads next, one step at a
time (model.stream).
"""

import pydoc_data.topics

import numpy as np

import fastbp as bp

STEPS = 64


def text(characters=200_000):
    """The first so many characters of the reference."""
    topics = pydoc_data.topics.topics
    return "\n".join(topics[name] for name in sorted(topics))[:characters]


def pieces(codes):
    """X (pieces, STEPS, 1), and y (pieces, STEPS): the character behind each."""
    count = (len(codes) - 1) // STEPS
    X = codes[: count * STEPS].reshape(count, STEPS, 1)
    return X, codes[1 : count * STEPS + 1].reshape(count, STEPS)


def train(codes, size, epochs=12, units=128, seed=0):
    """The network, and its bits per character on the tenth of the text that it has not seen."""
    model = bp.Sequential(
        [bp.Embedding(size, 32), bp.LSTM(units, return_sequences=True), bp.Dense(size)], seed=seed
    )
    model.compile(bp.Adam(5e-3, clip_norm=1.0), "softmax_cross_entropy")
    X, y = pieces(codes)
    seen = len(X) * 9 // 10
    model.fit(X[:seen], y[:seen], epochs=epochs, batch_size=32)
    return model, model.evaluate(X[seen:], y[seen:])["loss"] / np.log(2)


def write(model, alphabet, begin="The ", length=300, temperature=0.6, seed=0):
    """Text that goes on from `begin`: each character drawn by the network's probabilities."""
    stream, rng = model.stream(), np.random.default_rng(seed)
    written = list(begin)
    for character in begin:
        logits = stream.step([alphabet.index(character)])
    for _ in range(length):
        shares = np.exp((logits - logits.max()).astype(np.float64) / temperature)
        written.append(alphabet[rng.choice(len(alphabet), p=shares / shares.sum())])
        logits = stream.step([alphabet.index(written[-1])])
    return "".join(written)


def main():
    source = text()
    alphabet = sorted(set(source))
    codes = np.searchsorted(alphabet, list(source))
    model, bits = train(codes, len(alphabet))
    print(f"{bits:.2f} bits per character\n")
    print(write(model, alphabet))


if __name__ == "__main__":
    main()
