"""Speakers by their vowels and seasons by electricity demand, from the UEA and UCR archives.

JapaneseVowels: 9 speakers say "ae"; 12 numbers a step, 7 to 29 steps, 270 utterances to train on
and 370 to test. ItalyPowerDemand: the demand of a day in 24 steps, winter or summer; 67 days to
train on and 1029 to test. The files come with sktime (pip install sktime), which is not imported.

Published accuracy on the same split: nearest neighbour with dynamic time warping, 0.949 on
JapaneseVowels (Bagnall et al. 2018) and 0.950 on ItalyPowerDemand (Dau et al. 2019).
"""

import importlib.util
from pathlib import Path

import numpy as np

from fastbp.sklearn import SequenceClassifier


def archive(name):
    """Training and test part of a data set of sktime: a list of arrays (steps, values), classes."""
    package = importlib.util.find_spec("sktime")
    if package is None:
        raise SystemExit("the data sets come with sktime: pip install sktime")
    folder = Path(package.origin).parent / "datasets" / "data" / name
    parts = []
    for part in ("TRAIN", "TEST"):
        text = (folder / f"{name}_{part}.ts").read_text(encoding="utf-8")
        lines = text[text.index("@data") + 5 :].split()
        rows = [line.split(":") for line in lines]
        sequences = [
            np.array([[float(v) for v in channel.split(",")] for channel in row[:-1]]).T
            for row in rows
        ]
        parts += [sequences, np.array([row[-1] for row in rows])]
    return parts


def vowels(random_state=0):
    """Accuracy on the test part of JapaneseVowels."""
    X, y, X_test, y_test = archive("JapaneseVowels")
    model = SequenceClassifier(
        "gru", 64, bidirectional=True, dropout=0.2, max_iter=60, random_state=random_state
    )
    return model.fit(X, y).score(X_test, y_test)


def power(random_state=0):
    """Accuracy on the test part of ItalyPowerDemand."""
    X, y, X_test, y_test = archive("ItalyPowerDemand")
    model = SequenceClassifier(
        "gru",
        16,
        bidirectional=True,
        dropout=0.2,
        recurrent_dropout=0.2,
        batch_size=16,
        max_iter=60,
        random_state=random_state,
    )
    return model.fit(X, y).score(X_test, y_test)


def main():
    for name, run in (("JapaneseVowels", vowels), ("ItalyPowerDemand", power)):
        print(f"{name}: accuracy {run():.3f}")


if __name__ == "__main__":
    main()
