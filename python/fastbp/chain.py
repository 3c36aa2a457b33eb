"""Chain: the layers of a model, what compile chose, and the engine that holds the parameters."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import (
    _core,
    arrays,
    checks,
    devices,
    loss_scale,
    losses,
    network,
    optimizers,
    weights,
)
from .arrays import Array
from .embedding import Embedding
from .errors import describe
from .intake import Intake
from .layers import Layer
from .loss_scale import LossScale
from .metrics import get as get_metrics
from .network import Compiled
from .structure import Flatten, Masking, owning, require_order
from .turns import Turns

if TYPE_CHECKING:
    from .history import History
    from .resume import Saved
    from .runs import Run


class Chain(Intake):
    """What Sequential is before anything is done with it: see there.

    Modules that work on a model (training, files, ...) use the attributes and methods with an
    underscore.
    """

    def __init__(self, layers: Iterable[Layer] = (), seed: int | None = None) -> None:
        if seed is None:
            seed = int.from_bytes(os.urandom(4), "little")
        self.seed = checks.integer("seed", seed, 0, 2**64 - 1)
        self.metadata: dict[str, str] = {}
        self.history: History | None = None
        self.stop_training = False
        self._layers: list[Layer] = []
        self._inputs: int | None = None
        self._outputs: int | None = None
        self._frozen: network.Frozen = frozenset()
        self._flattens = False  # rows may have any shape
        self._reads_sequences = False
        self._embedding: Embedding | None = None  # the first layer, if it is one
        self._masking: Masking | None = None  # so too
        self._carried: Array | None = None  # states that stateful layers begin with
        self._engine: _core.Engine | None = None
        self._quick: _core.Engine | None = None  # the engine, if it is the compiled one
        self._backend: devices.Backend | None = None
        self._device = "auto"
        self._dtype_name = "float32"
        self._dtype = np.dtype(np.float32)  # of parameters and data
        self._compiled: Compiled | None = None
        self._epochs = 0
        self._seconds_per_row: float | None = None  # of training, as the last fit took them
        self._turns = Turns()
        self._run: Run | Saved | None = None  # of the last fit, or as the model's file had it
        if isinstance(layers, Layer) or not isinstance(layers, Iterable):
            raise TypeError(f"layers must be a list: write Sequential([...]); got {layers!r}")
        for layer in layers:
            self.add(layer)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers from input to output."""
        return tuple(self._layers)

    @property
    def inputs(self) -> int | None:
        """Number of input columns; None until the model is built."""
        return self._inputs

    @property
    def outputs(self) -> int:
        """Number of output columns: the units of the last Dense. ValueError if there is none."""
        return self._outputs or network.outputs(self._layers)

    @property
    def device(self) -> str:
        """Where the model runs, "cpu" or "reference"; "auto" before it is compiled or built."""
        return self._device

    @property
    def dtype(self) -> str:
        """ "float32", "float64", "bfloat16", "float16" or "tf32": what compile chose."""
        return self._dtype_name

    @property
    def loss_scale(self) -> LossScale | None:
        """Of a model that is built with dtype="float16", how its loss is scaled; otherwise None."""
        return loss_scale.of(self._engine)

    @property
    def epochs_trained(self) -> int:
        """Epochs completed in all calls of fit; the number of the next epoch's order of rows."""
        return self._epochs

    @property
    def optimizer(self) -> optimizers.Optimizer:
        """The model's optimizer; new values of its hyper-parameters count from the next step."""
        return self._require_compiled().optimizer

    @property
    def loss(self) -> losses.Loss:
        """The loss that compile chose."""
        return self._require_compiled().loss

    @property
    def metrics(self) -> list[str]:
        """The metric names that compile chose."""
        return list(self._require_compiled().metrics)

    def add(self, layer: Layer) -> None:
        """Appends a layer. Raises RuntimeError once the model is compiled or built."""
        if not isinstance(layer, Layer):
            hint = " (write it with parentheses)" if isinstance(layer, type) else ""
            raise TypeError(
                "layers must be layer objects such as Dense(10) or ReLU(); got "
                f"{describe(layer)}{hint}"
            )
        if self._engine is not None or self._compiled is not None:
            raise RuntimeError("layers cannot be added once the model is compiled or built")
        require_order([*self._layers, layer])
        taken = set(map(id, owning(self._layers)))
        if any(id(owner) in taken for owner in owning([layer])):
            raise ValueError(
                f"the same object {layer!r} appears twice; layers share no weights here: "
                "make one object for each"
            )
        self._outputs = layer.outputs(self._outputs)
        self._layers.append(layer)
        self._flattens = isinstance(self._layers[0], Flatten)
        self._reads_sequences = network.reads_sequences(self._layers)
        if isinstance(layer, Embedding):
            self._embedding = layer
        if isinstance(layer, Masking):
            self._masking = layer

    def compile(
        self,
        optimizer: str | optimizers.Optimizer = "adam",
        loss: str | losses.Loss | None = None,
        metrics: Iterable[str] | None = None,
        device: str = "auto",
        dtype: str = "float32",
    ) -> None:
        """Chooses how to train and where to run.

        Parameters stay; the optimizer's state starts afresh.

        Args:
            optimizer: a name ("sgd", "rmsprop", "adagrad", "adam", "adamw") or an object such as
                Adam(1e-3).
            loss: a name or a Loss; see fastbp.losses.
            metrics: names: "accuracy", "mse", "mae", "f1", "precision", "recall", "auc", "r2",
                "top_5", ...; see fastbp.metrics.
            device: "auto" (FASTBP_DEVICE, else the processor), "cpu", "reference" (plain NumPy).
            dtype: "float32" or "float64", of parameters, data and arithmetic; or "bfloat16", which
                is float32 but for the matrix products: they round their operands to bfloat16 (8
                bits of precision) and sum in float32, at up to twice the speed on processors that
                offer it; or, on device "cuda", "tf32": the same with 11 bits, and "float16": with
                11 bits and a small range, for which the loss is scaled in training (`loss_scale`).
                Parameters that exist are converted, into new arrays.

        Raises ValueError for unknown names, DeviceNotAvailableError for a device, or a dtype on it,
        that this machine does not offer; RuntimeError while fit trains the model.
        """
        self._turns.require_idle("compile")
        if loss is None:
            raise TypeError(
                "compile needs a loss: for example loss='mse' or loss='softmax_cross_entropy'"
            )
        chosen = Compiled(losses.get(loss), optimizers.get(optimizer).bound(), get_metrics(metrics))
        network.check_layer_rates(self._layers, chosen.optimizer)
        kind, name = arrays.dtype_name(dtype), devices.resolve(device)
        devices.require_dtype(name, kind)
        warning = losses.check_outputs(
            chosen.loss, self.outputs, network.last_activation(self._layers)
        )
        if warning:
            warnings.warn(warning, UserWarning, stacklevel=2)
        self._adopt(chosen, name, kind)
        self._run = None

    def _adopt(self, chosen: Compiled | None, name: str, kind: str) -> None:
        """Takes over checked settings; parameters move to an engine that fits them."""
        engine, backend = self._engine, self._backend
        if engine is not None and (name, kind) != (self._device, self._dtype_name):
            assert self._inputs is not None
            backend = devices.backend(name)
            moved = network.make_engine(
                self._layers, self._inputs, backend, kind, self.seed, self._frozen
            )
            moved.parameters[...] = engine.parameters
            kept = network.state(self._layers, engine)
            for place, view in network.state(self._layers, moved).items():
                view[...] = kept[place]
            engine = moved
        if engine is not None and chosen is not None:
            network.compile_engine(self._layers, engine, chosen)
        self._use(engine)
        self._backend, self._compiled = backend, chosen
        self._device, self._dtype_name, self._dtype = name, kind, arrays.stored(kind)

    def build(self, input_shape: int | tuple[int | None, int]) -> None:
        """Makes the parameters for a number of inputs: build(64) or build((None, 64)).

        Happens by itself with the first data. Raises ValueError if the model is built for another
        number.
        """
        width: Any = input_shape
        if isinstance(width, (tuple, list)):
            if len(width) != 2 or width[0] is not None:
                raise ValueError(
                    "input_shape must be a number of columns or (None, columns); got "
                    f"{input_shape!r}"
                )
            width = width[1]
        width = checks.integer("input_shape", width)
        if self._inputs is not None and width != self._inputs:
            raise ValueError(f"the model is built for {self._inputs} inputs; got {width}")
        self._build(width)

    def _build(self, inputs: int, *, draw: bool = True) -> _core.Engine:
        """Makes the engine if there is none; `draw=False` leaves its parameters 0."""
        if self._engine is None:
            network.outputs(self._layers, inputs)  # raises unless the layers fit
            name = devices.resolve(self._device)
            backend = devices.backend(name)
            kind, seed = self._dtype_name, self.seed
            engine = network.make_engine(self._layers, inputs, backend, kind, seed, self._frozen)
            if draw:
                network.initialize(self._layers, engine, backend, self.seed)
            if self._compiled is not None:
                network.compile_engine(self._layers, engine, self._compiled)
            self._use(engine)
            self._backend, self._inputs, self._device = backend, inputs, name
            return engine
        return self._engine

    def _use(self, engine: _core.Engine | None) -> None:
        self._engine = engine
        plain = isinstance(engine, _core.Engine) and self._embedding is None
        plain = plain and self._masking is None
        self._quick = engine if plain else None

    def _batch(
        self, x: Any, y: Any, sample_weight: Any, class_weight: weights.ClassWeight = None
    ) -> tuple[_core.Engine, Any, Array, Array | None]:
        """The engine, and one batch with its losses' factors, checked; builds a model that has seen
        no data yet once nothing is left to refuse."""
        quick = self._quick
        if quick is None or not quick.accepts(x, y):
            compiled = self._compiled or self._require_compiled()
            x, y = self._check_rows(x, y, compiled)
        factors = self._weights(x, y, sample_weight, class_weight)
        return self._engine or self._build(x.shape[-1]), x, y, factors

    def _sync_optimizer(self, engine: _core.Engine, steps: int = 1) -> None:
        """Hands changed hyper-parameters to the engine; keeps its state.

        A learning rate that is a Python function is asked for the next `steps` ones every time.
        """
        optimizer = self._require_compiled().optimizer
        if not optimizer.by_steps:
            raise ValueError(f"{type(optimizer).__name__} makes no single steps: call model.fit")
        if optimizer.changed:
            network.check_layer_rates(self._layers, optimizer)
            network.apply_rules(self._layers, engine, optimizer, steps)
            engine.set_hyper(optimizer.hyper())
            optimizer.changed = optimizer.asks_python

    def _link(self, method: str) -> losses.Link:
        loss = self._require_compiled().loss
        if loss.traits.link is None:
            raise ValueError(
                f"{method} is about classes, but the loss is {loss.name!r}: use predict, or "
                "compile with "
                "'softmax_cross_entropy' or 'binary_cross_entropy_with_logits'"
            )
        return loss.traits.link

    def _require_compiled(self) -> Compiled:
        if self._compiled is None:
            raise RuntimeError(
                "the model is not compiled: call model.compile(optimizer=..., loss=...) first"
            )
        return self._compiled

    def _require_built(self) -> _core.Engine:
        if self._engine is None:
            raise RuntimeError(
                "the model has no parameters yet: call model.build(number_of_inputs), or fit"
            )
        return self._engine

    def _take_over(self, other: Chain) -> None:
        """Goes on as `other`, a model of the same layers and settings, stands."""
        if other is self:
            return
        self._use(other._engine)
        self._frozen = other._frozen
        self._backend, self._inputs, self._device = other._backend, other._inputs, other._device
        self._compiled = other._require_compiled()
        self.seed, self._epochs = other.seed, other._epochs

    def _snapshot(self) -> dict[str, Array]:
        """Copies of all that training changes and prediction depends on, by name."""
        engine = self._require_built()
        return {"parameters": engine.parameters.copy(), "state": engine.state.copy()}

    def _require_snapshot(self, snapshot: Mapping[str, Array]) -> None:
        """Raises ValueError unless `_restore` can take this."""
        for name, mine in self._snapshot().items():
            if getattr(snapshot.get(name), "shape", None) != mine.shape:
                raise ValueError(f"{name!r} of the best epoch is not of shape {mine.shape}")

    def _restore(self, snapshot: Mapping[str, Array]) -> None:
        """Takes back what `_snapshot` gave; the optimizer's state stays."""
        engine = self._require_built()
        engine.parameters[...] = snapshot["parameters"]
        engine.state[...] = snapshot["state"]

    def __repr__(self) -> str:
        return f"Sequential([{', '.join(map(repr, self._layers))}], seed={self.seed})"
