"""The part of `fastbp verify` about training: losses, optimizer updates, whole small networks."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import _core
from .reference.losses import LOSSES
from .verify_cases import ELEMENTWISE, Array, Case, Library, normal, of_largest


def training_cases(dtype: str, quick: bool) -> Iterator[Case]:
    """Every loss, every update; gradients and training of networks with each of them."""
    rng = np.random.default_rng(21)
    yield from _losses(dtype, quick, rng)
    yield from _updates(dtype, quick, rng)
    yield from _networks(dtype, rng)


def _losses(dtype: str, quick: bool, rng: np.random.Generator) -> Iterator[Case]:
    for entry in _core.losses():
        name = entry["name"]

        def call(library: Library, y: Array, t: Array, name: str = name) -> list[Any]:
            return list(getattr(library.functions, name)(y, t))

        for rows, columns in (
            ((1, 1), (5, 3), (33, 10)) if quick else ((1, 1), (33, 10), (1000, 17))
        ):
            y = rng.uniform(0.02, 0.98, (rows, columns)).astype(
                dtype
            )  # probabilities suit them all
            targets = [rng.uniform(0, 1, (rows, columns)).astype(dtype)]
            if LOSSES[name].rows:
                targets.append(rng.integers(0, columns, rows))
            for t in targets:
                detail = f"{rows}x{columns}, target {t.dtype} {t.shape}"
                yield Case("loss", name, dtype, detail, (y, t), call, of_largest, ELEMENTWISE)


HYPER = {
    "learning_rate": 0.01,
    "momentum": 0.9,
    "rho": 0.9,
    "beta_1": 0.9,
    "beta_2": 0.999,
    "epsilon": 1e-8,
    "weight_decay": 0.01,
}


def _hyper(names: list[str]) -> dict[str, float]:
    """A value for each hyper-parameter; 0.1 for one that is new here."""
    return {name: HYPER.get(name, 0.1) for name in names}


def _updates(dtype: str, quick: bool, rng: np.random.Generator) -> Iterator[Case]:
    """Three steps from state zero."""
    size = 1_001 if quick else 100_003
    for entry in _core.optimizers():
        name, hyper = entry["name"], _hyper(entry["hyper"])

        def call(
            library: Library,
            w: Array,
            gradients: Array,
            name: str = name,
            slots: int = entry["slots"],
            hyper: dict[str, float] = hyper,
        ) -> list[Array]:
            update = getattr(library.functions, f"{name}_update")
            counts = "step" in inspect.signature(update).parameters
            w, states = w.copy(), [np.zeros_like(w) for _ in range(slots)]
            for step, g in enumerate(gradients, start=1):
                update(w, g, *states, **hyper, **({"step": step} if counts else {}))
            return [w, *states]

        inputs = (normal(rng, dtype, size), normal(rng, dtype, 3, size))
        detail = f"{size} parameters, 3 steps"
        yield Case("update", name, dtype, detail, inputs, call, of_largest, ELEMENTWISE)


# Other layers, 9 columns in and out, as an engine takes them.
LAYERS: dict[str, list[tuple[Any, ...]]] = {
    "dropout": [("dropout", 0.3)],
    "layer_norm": [("layer_norm", 1e-3, True, True)],
    "batch_norm": [("batch_norm", 1e-3, True, True, 0.1)],
    "softmax": [("softmax",)],
    "residual": [("dense", 9, True), ("add", 1)],
}


def _networks(dtype: str, rng: np.random.Generator) -> Iterator[Case]:
    """Gradients with every activation and every loss, training with every optimizer."""
    optimizers = [entry["name"] for entry in _core.optimizers()]
    losses = [entry["name"] for entry in _core.losses()]
    for entry in _core.activations():
        yield _network("network gradient", entry["name"], "mse", "sgd", dtype, rng)
    for loss in losses:
        yield _network("network gradient", "tanh", loss, "sgd", dtype, rng)
    for optimizer in optimizers:
        yield _network("network training", "tanh", "mse", optimizer, dtype, rng)
    for layer in LAYERS:
        for op in ("network gradient", "network training"):
            yield _network(op, "tanh", "mse", "sgd", dtype, rng, layer)


def _network(
    op: str,
    activation: str,
    loss: str,
    optimizer: str,
    dtype: str,
    rng: np.random.Generator,
    layer: str = "",
) -> Case:
    """5-9-3 with the activation between, perhaps another layer, and a sigmoid after.

    So outputs suit every loss. Errors count in eps of the largest gradient or parameter. Each of a
    layer's three products adds at most 37 terms; 8 steps that each move parameters by far less than
    their size add little.
    """
    param = next(e["default_param"] for e in _core.activations() if e["name"] == activation)
    layers = [
        ("dense", 9, True),
        ("activation", activation, param),
        *LAYERS.get(layer, []),
        ("dense", 3, True),
        ("activation", "sigmoid", 0.0),
    ]
    entry = next(e for e in _core.optimizers() if e["name"] == optimizer)
    loss_param = next(e["default_param"] for e in _core.losses() if e["name"] == loss)
    hyper = _hyper(entry["hyper"])
    x, y = normal(rng, dtype, 37, 5), rng.uniform(0, 1, (37, 3)).astype(dtype)
    start = (0.5 * rng.standard_normal(5 * 9 + 9 + 9 * 9 + 9 + 9 * 3 + 3)).astype(dtype)

    def call(library: Library, x: Array, y: Array, start: Array) -> list[Any]:
        engine = library.engine(5, layers, library.dtype or dtype)
        engine.compile(loss, loss_param, optimizer, hyper)
        used = 0
        for offset, rows, columns, bias in engine.parameter_shapes:
            size = (rows + bias) * columns
            engine.parameters[offset : offset + size] = start[used : used + size]
            used += size
        if op == "network gradient":
            value = engine.gradients(x, y)
            return [value, engine.gradients_.copy()]
        values, _ = engine.train(x, y, 10, 2, 0, True, 7, [])
        return [*values, engine.parameters.copy()]

    detail = ", ".join(filter(None, (activation, layer, loss, optimizer)))
    return Case("network", op, dtype, detail, (x, y, start), call, of_largest, 64.0)
