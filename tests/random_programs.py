"""Random networks with their data and settings, and all that a model says and holds when one runs.

Tests let two devices, or two ways of one device, run the same program and compare what is said.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

import fastbp as bp
from fastbp.registry import ACTIVATIONS
from sweeps import Array

WIDTHS = (1, 2, 3, 5, 8, 9, 15, 16, 17, 33, 40, 65)
ROWS = (1, 2, 7, 15, 17, 32, 33, 40)
BATCHES = (8, 16, 20, 33)
LIMITS = (("clip_norm", 0.05), ("clip_value", 0.002), ("gradient_accumulation_steps", 2),
          ("use_ema", True))  # fmt: skip
RATES = (0.05, bp.ExponentialDecay(0.05, 3, 0.9), bp.WarmUp(bp.CosineDecay(0.05, 7), 2),
         lambda step: 0.05 / (1 + step))  # fmt: skip
Said = list[tuple[str, Any]]


def softsign(z: Array) -> Array:
    return z / (1 + np.abs(z))


def slope(z: Array) -> Array:
    return 1 / (1 + np.abs(z)) ** 2


def log_cosh(y: Array, t: Array) -> tuple[Array, Array]:
    return np.log(np.cosh(y - t)), np.tanh(y - t)


class Program(NamedTuple):
    """A network, its data and how it is trained."""

    seed: int
    layers: list[bp.layers.Layer]
    inputs: int
    x: Array  # float64, all of which float32 holds
    y: Array
    loss: Any
    metrics: list[str]
    optimizer: bp.optimizers.Optimizer
    fit: dict[str, Any]  # the arguments of fit
    weights: dict[str, Any]  # of rows, for the calls that take some
    lengths: dict[str, Any]  # of sequences

    def model(self, device: str, dtype: str) -> bp.Sequential:
        """Built; of float16 with a scale at which few updates are left out."""
        model = bp.Sequential(copy.deepcopy(self.layers), seed=self.seed)
        model.compile(self.optimizer, self.loss, self.metrics, device=device, dtype=dtype)
        model.build(self.inputs)
        if self.seed % 6 == 0:
            model.freeze(layers=[self.seed // 6 % len(self.layers)])
        scale = model._require_built().loss_scale if dtype == "float16" else None
        if scale is not None:
            scale[0] = 2**9
        return model

    def data(self, dtype: str) -> tuple[Array, Array]:
        """x and y in the dtype of a model's parameters."""
        numbers = np.float64 if dtype == "float64" else np.float32
        return self.x.astype(numbers), self.y.astype(numbers if self.y.dtype.kind == "f" else "i8")


class Draw:
    """Draws the parts of a program."""

    def __init__(self, seed: int, *, sequences: bool) -> None:
        self.rng = np.random.default_rng([seed, sequences])
        self.sequences = sequences

    def one(self, choices: Sequence[Any]) -> Any:
        return choices[self.rng.integers(len(choices))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def activation(self) -> Any:
        if self.chance(0.06):
            return bp.CustomActivation(softsign, slope)
        return self.one([None, None, *ACTIVATIONS])

    def dense(self, units: int, **given: Any) -> bp.Dense:
        return bp.Dense(
            units,
            **{"activation": self.activation(), **given},
            use_bias=self.chance(0.85),
            kernel_regularizer=bp.L1L2(0.002, 0.01) if self.chance(0.1) else None,
            max_norm=self.one([0.3, 1.0]) if self.chance(0.1) else None,
        )

    def between(self, width: int) -> bp.layers.Layer:
        """A layer with as many outputs as inputs."""
        affine = {"center": self.chance(0.8), "scale": self.chance(0.8)}
        inner = self.dense(self.one(WIDTHS))
        norm = bp.LayerNorm(**affine) if self.sequences else bp.BatchNorm(**affine)
        block = bp.Residual([inner, self.dense(width, activation=None)])
        layers = [bp.Dropout(0.3), bp.LayerNorm(**affine), norm, block, bp.SiLU(), bp.Softmax()]
        return self.one(layers)

    def dense_chain(self, inputs: int) -> list[bp.layers.Layer]:
        layers: list[bp.layers.Layer] = []
        if self.chance(0.15):
            spread = self.rng.normal(1, 2, (20, inputs))
            layers.append(bp.Normalize(self.one(["standard", "minmax"])).adapt(spread))
        for _ in range(self.rng.integers(0, 4)):
            layers.append(self.dense(self.one(WIDTHS)))
            if self.chance(0.5):
                layers.append(self.between(layers[-1].outputs(None) or 1))
        return layers

    def recurrent_chain(self, every_step: bool) -> list[bp.layers.Layer]:
        layers: list[bp.layers.Layer] = []
        for behind in reversed(range(self.rng.integers(1, 4))):
            cell = self.one([bp.SimpleRNN, bp.LSTM, bp.GRU])
            layer = cell(
                self.one((1, 3, 6, 9, 17, 33)),
                return_sequences=every_step or behind > 0,
                use_bias=self.chance(0.85),
                dropout=self.one((0, 0, 0, 0.25)),
                recurrent_dropout=self.one((0, 0, 0, 0.25)),
                truncate=self.one((0, 0, 0, 2)),
            )
            layers.append(bp.Bidirectional(layer) if self.chance(0.25) else layer)
            if self.chance(0.3):
                layers.append(self.between(layers[-1].outputs(None) or 1))
        return layers

    def loss(self, shape: tuple[int, ...]) -> tuple[bp.Dense, Any, Array, list[str]]:
        """The last layer, the loss, targets and metrics; shape: (rows,) or (rows, steps)."""
        outputs, rng = self.one((2, 3, 10, 17)), self.rng
        kind = self.one(["numbers", "yes or no", "counts", "classes", "classes"])
        given: dict[str, Any] = {}
        if kind == "classes":
            loss: Any = bp.Loss("softmax_cross_entropy", label_smoothing=self.one((0, 0.1)))
            y = rng.integers(0, outputs, shape)
            y = y if self.chance(0.6) else np.eye(outputs)[y]
        elif kind == "counts":
            loss = self.one(["poisson_with_log_rate", "mse"])
            y = rng.integers(0, 5, (*shape, outputs)).astype(float)
        elif kind == "yes or no":
            loss = self.one(["hinge", "squared_hinge", "binary_cross_entropy_with_logits",
                             "binary_cross_entropy"])  # fmt: skip
            y = rng.integers(0, 2, (*shape, outputs)).astype(float)
            given = {"activation": "sigmoid"} if loss == "binary_cross_entropy" else {}
        else:
            loss = self.one(["mse", "half_sse", "mae", "huber", bp.CustomLoss(log_cosh)])
            y = rng.normal(size=(*shape, outputs)).astype(np.float32).astype(float)
        metrics = ["mse", "mae"] if kind == "numbers" else []
        return self.dense(outputs, **given), loss, y, metrics

    def optimizer(self) -> bp.optimizers.Optimizer:
        """An epsilon so large that a step hardly depends on the sign of a gradient close to 0."""
        rules: dict[str, Any] = {name: value for name, value in LIMITS if self.chance(0.12)}
        kind = self.one([bp.SGD, bp.RMSprop, bp.Adagrad, bp.Adam, bp.AdamW])
        rules |= {"momentum": self.one((0.0, 0.9))} if kind is bp.SGD else {"epsilon": 0.01}
        made: bp.optimizers.Optimizer = kind(self.one(RATES), **rules)
        return made


def program(seed: int, *, sequences: bool) -> Program:
    draw = Draw(seed, sequences=sequences)
    rows, every_step = draw.one(ROWS), sequences and draw.chance(0.4)
    inputs, steps = draw.one(WIDTHS), draw.one((1, 2, 4, 5))
    chain = draw.recurrent_chain(every_step) if sequences else draw.dense_chain(inputs)
    shape = (rows, steps) if sequences else (rows,)
    x = draw.rng.normal(size=(*shape, inputs)).astype(np.float32).astype(float)
    if draw.chance(0.15):
        inputs = 2
        x = draw.rng.integers(0, 11, (*shape, inputs)).astype(float)
        chain = [layer for layer in chain if not isinstance(layer, bp.Normalize)]
        chain.insert(0, bp.Embedding(11, 5))
    last, loss, y, metrics = draw.loss(shape if every_step else (rows,))
    fit = {"epochs": 2, "batch_size": draw.one(BATCHES), "shuffle": draw.chance(0.7), "verbose": 0}
    if rows > 6 and draw.chance(0.4):
        fit["validation_split"] = 0.3
    weights = {"sample_weight": draw.rng.random(rows) + 0.01} if draw.chance(0.25) else {}
    lengths = {}
    if sequences and draw.chance(0.5):
        lengths = {"lengths": draw.rng.integers(1, steps + 1, rows)}
    return Program(seed, [*chain, last], inputs, x, y, loss, metrics, draw.optimizer(), fit,
                   weights, lengths)  # fmt: skip


def held(model: bp.Sequential) -> list[Array]:
    """Copies of the parameters, of the optimizer's state and of what layers keep."""
    engine = model._require_built()
    return [array.copy() for array in (engine.parameters, *engine.optimizer_state, engine.state)]


def outcome(made: Program, device: str, dtype: str) -> Said:
    """What a model says before training, in it and behind it, each with a name."""
    model, (x, y) = made.model(device, dtype), made.data(dtype)
    both = {**made.weights, **made.lengths}
    said: Said = [("predict", model.predict(x, **made.lengths))]
    said += [(f"gradient of {n}", g) for n, g in model.gradients(x, y, **both)[1].items()]
    if not isinstance(made.layers[0], bp.Embedding):
        said.append(("gradient of x", model.input_gradient(x, y, **both)[1]))
    said += list(model.evaluate(x, y, batch_size=24, **both).items())
    history = model.fit(x, y, **made.fit, **both).history
    said += [(f"fit's {name}", np.array(values)) for name, values in sorted(history.items())]
    said += [(f"state {number}", array) for number, array in enumerate(held(model))]
    said += [("scale", model.loss_scale), ("trained", model.predict(x, **made.lengths))]
    return said


def more(made: Program, device: str, dtype: str) -> Said:
    """The same, and calls of every kind behind it, of batches of any size."""
    said, rng = outcome(made, device, dtype), np.random.default_rng(made.seed)
    model, (x, y) = made.model(device, dtype), made.data(dtype)
    for name in rng.choice(["step", "predict", "evaluate", "write", "freeze", "copy", "fit"], 5):
        some = slice(rng.integers(1, len(x) + 1))
        one = {key: value[some] for key, value in (made.weights | made.lengths).items()}
        if name == "step":
            said.append(("step", model.step(x[some], y[some], **one)))
        elif name == "predict":
            said.append(("predict", model.predict(x[some], one.get("lengths"))))
        elif name == "evaluate":
            said.append(("evaluate", list(model.evaluate(x[some], y[some], **one).values())))
        elif name == "write":
            for array in model.parameters().values():
                array *= array.dtype.type(0.75)
        elif name == "freeze":
            model.freeze(layers=rng.integers(0, len(made.layers), 1).tolist())
        elif name == "copy":
            model = copy.deepcopy(model)
        else:
            history = model.fit(x[some], y[some], **made.fit | {"validation_split": 0.0}, **one)
            said.append(("fit", list(history.history.values())))
        said.append((f"behind {name}", held(model)))
    return said
