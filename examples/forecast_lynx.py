"""Next year's catch of lynx from those of five years before: the Canadian series, 1821 to 1934.

The usual split: 100 years to learn from, the last 14 to forecast, each from the years before it, in
logarithms to base 10. Layer and epochs are chosen on three blocks of 14 years before those. Beside
it the model that Moran published in 1953 for this series, a regression on the last two years, and
the forecast that nothing changes. The series comes with sktime (pip install sktime), which is not
imported.
"""

import csv
import importlib.util
from itertools import product
from pathlib import Path

import numpy as np

import fastbp as bp

WINDOW, BLOCK = 5, 14  # years
CHOICES = list(product((bp.LSTM, bp.GRU), (50, 100, 200)))


def catches():
    """114 yearly numbers, as logarithms."""
    package = importlib.util.find_spec("sktime")
    if package is None:
        raise SystemExit("the series comes with sktime: pip install sktime")
    path = Path(package.origin).parent / "datasets" / "data" / "Lynx" / "Lynx.csv"
    with path.open(encoding="utf-8") as file:
        return np.log10([float(row[-1]) for row in list(csv.reader(file))[1:]])


def forecasts(series, first, layer, epochs, seed):
    """Of BLOCK years from `first` on, each from the years before it; learned from those before."""
    windows = np.lib.stride_tricks.sliding_window_view(series[: first + BLOCK], WINDOW + 1)
    scaled = (windows - series[:first].mean()) / series[:first].std()
    X, y = scaled[:, :-1, None], scaled[:, -1:]
    model = bp.Sequential([layer(8), bp.Dense(1)], seed=seed)
    model.compile(bp.Adam(1e-2), "mse")
    model.fit(X[:-BLOCK], y[:-BLOCK], epochs=epochs, batch_size=16, verbose=0)
    return model.predict(X[-BLOCK:])[:, 0] * series[:first].std() + series[:first].mean()


def regression(series, first, years=2):
    """Moran's: of BLOCK years from `first` on, a linear function of the two before each."""
    windows = np.lib.stride_tricks.sliding_window_view(series[: first + BLOCK], years + 1)
    X = np.column_stack([windows[:, :-1], np.ones(len(windows))])
    weights = np.linalg.lstsq(X[:-BLOCK], windows[:-BLOCK, -1], rcond=None)[0]
    return X[-BLOCK:] @ weights


def error(series, first, layer, epochs, seeds):
    """The mean squared error of the mean of some networks; that of each."""
    said = [forecasts(series, first, layer, epochs, seed) for seed in range(seeds)]
    actual = series[first : first + BLOCK]
    each = [float(((one - actual) ** 2).mean()) for one in said]
    return float(((np.mean(said, axis=0) - actual) ** 2).mean()), each


def main(seeds=10):
    series = catches()
    last = len(series) - BLOCK

    def before(choice):
        return np.mean([error(series, last - k * BLOCK, *choice, 3)[0] for k in (1, 2, 3)])

    layer, epochs = min(CHOICES, key=before)
    ours, each = error(series, last, layer, epochs, seeds)
    actual = series[last:]
    others = [
        float(((other - actual) ** 2).mean())
        for other in (regression(series, last), series[last - 1 : -1])
    ]
    print(
        f"{layer.__name__}, {epochs} epochs: mean squared error {ours:.4f}; each network "
        f"{min(each):.4f} to {max(each):.4f}; regression {others[0]:.4f}, no change {others[1]:.4f}"
    )
    return ours, each, *others


if __name__ == "__main__":
    main()
