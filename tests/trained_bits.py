"""Prints digests of what training gives, for comparison between machines: `.ci/arm`.

Networks with each activation, the normalisations and the recurrent layers, trained in float32 and
float64 by several optimizers; and matrix products of odd shapes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import fastbp as bp
from fastbp.registry import ACTIVATIONS

PRODUCTS = (
    (1, 1, 1), (3, 5, 7), (64, 64, 64), (17, 33, 129), (1, 40, 70), (40, 1, 300), (7, 2, 1366),
    (51, 8, 600), (130, 70, 515),
)  # fmt: skip
OPTIMIZERS = (bp.Adam(0.01), bp.SGD(0.05, momentum=0.9), bp.AdamW(0.01), bp.RMSprop(0.01))
Layers = Callable[[], Sequence[bp.layers.Layer]]


def hidden(*activations: str, units: int = 33) -> Layers:
    return lambda: [*(bp.Dense(units, activation=name) for name in activations), bp.Dense(3)]


NETWORKS: dict[str, Layers] = {
    **{name: hidden(name, units=17) for name in ACTIVATIONS},
    "narrow": hidden("relu", units=4),
    "deep": hidden("gelu", "silu", "tanh", units=64),
    "wide": hidden("relu", "sigmoid", units=300),
    "norms": lambda: [bp.Dense(33), bp.LayerNorm(), bp.ReLU(), bp.Dense(20), bp.BatchNorm(),
                      bp.Dropout(0.3), bp.Residual([bp.Dense(20)]), bp.Dense(3)],
}  # fmt: skip
RECURRENT = {"SimpleRNN": bp.SimpleRNN, "LSTM": bp.LSTM, "GRU": bp.GRU}


def digest(*arrays: Any) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def trained(
    layers: Sequence[bp.layers.Layer], x: Any, y: Any, loss: str, optimizer: Any, dtype: str
) -> str:
    model = bp.Sequential(layers, seed=5)
    model.compile(optimizer, loss, dtype=dtype)
    history = model.fit(x, y, epochs=2, batch_size=16, verbose=0).history
    return digest(model.predict(x), history["loss"])


def main() -> None:
    for dtype in ("float32", "float64"):
        rng = np.random.default_rng(0)
        for m, n, k in PRODUCTS:
            a, b = rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(k, n)).astype(dtype)
            transposed = bp.ops.matmul(np.asfortranarray(a), np.asfortranarray(b))
            print("matmul", dtype, m, n, k, digest(bp.ops.matmul(a, b), transposed))
        x = rng.normal(size=(70, 11)).astype(dtype)
        target, labels = rng.random((70, 3)).astype(dtype), rng.integers(0, 3, 70)
        for name, layers in NETWORKS.items():
            for opt in OPTIMIZERS:
                print(
                    name, dtype, type(opt).__name__,
                    trained(layers(), x, target, "mse", opt, dtype),
                    trained(layers(), x, labels, "softmax_cross_entropy", opt, dtype),
                )  # fmt: skip
        steps = rng.normal(size=(20, 9, 5)).astype(dtype)
        for name, layer in RECURRENT.items():
            ends = [layer(13), bp.Dense(3)]
            print(name, dtype, trained(ends, steps, target[:20], "mse", OPTIMIZERS[0], dtype))


if __name__ == "__main__":
    main()
