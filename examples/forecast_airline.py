"""Passengers of next month from those of three years before: the airline series of Box and Jenkins.

The LSTM reads two years of growth over the year before, in logarithms, which takes out season and
trend, and says by how much growth will change; the naive forecast is that it stays. The series
comes with sktime (pip install sktime), which is not imported.
"""

import csv
import importlib.util
from pathlib import Path

import numpy as np

import fastbp as bp

WINDOW, HELD_OUT = 24, 36  # months


def passengers():
    """144 months from 1949 on, in thousands."""
    package = importlib.util.find_spec("sktime")
    if package is None:
        raise SystemExit("the series comes with sktime: pip install sktime")
    path = Path(package.origin).parent / "datasets" / "data" / "Airline" / "Airline.csv"
    with path.open(encoding="utf-8") as file:
        return np.array([float(row["Passengers"]) for row in csv.DictReader(file)])


def windows(series):
    """X (n, WINDOW, 1), and how the value behind each window differs from its last one (n, 1)."""
    rows = np.lib.stride_tricks.sliding_window_view(series, WINDOW + 1)
    return rows[:, :-1, None], rows[:, -1:] - rows[:, -2:-1]


def main(seeds=5):
    series = passengers()
    growth = np.log(series[12:] / series[:-12])
    X, y = windows(growth)
    train = len(X) - HELD_OUT
    forecasts = []
    for seed in range(seeds):  # the mean of a few networks is steadier than one
        model = bp.Sequential(
            [bp.Normalize().adapt(growth[:, None]), bp.LSTM(8), bp.Dense(1)], seed=seed
        )
        model.compile(bp.Adam(5e-3), "mse")
        model.fit(X[:train], y[:train], epochs=40, batch_size=16, verbose=0)
        forecasts.append(model.predict(X[train:])[:, 0])
    year_before, actual = series[-HELD_OUT - 12 : -12], series[-HELD_OUT:]
    stays = growth[-HELD_OUT - 1 : -1]
    ours = year_before * np.exp(stays + np.mean(forecasts, axis=0))
    naive = year_before * np.exp(stays)
    errors = [float(np.abs(forecast / actual - 1).mean()) for forecast in (ours, naive)]
    print(f"mean error of {HELD_OUT} months: LSTM {errors[0]:.2%}, naive {errors[1]:.2%}")
    return errors


if __name__ == "__main__":
    main()
