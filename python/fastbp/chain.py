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
from .embedding import Embedding, check_entries, one_a_step
from .errors import describe
from .layers import Layer
from .lazy import LazyRows, is_lazy
from .loss_scale import LossScale
from .metrics import get as get_metrics
from .network import Compiled
from .sequences import Sequences, lengths_of, padded_as, require_no_sequences, running
from .structure import Flatten, Masking, Reshape, owning, require_order
from .turns import Turns

if TYPE_CHECKING:
    from .history import History
    from .resume import Saved
    from .runs import Run


class Chain:
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

    def _check_rows(
        self,
        x: Any,
        y: Any,
        compiled: Compiled,
        names: tuple[str, str] = ("X", "y"),
        width: int | None = None,
    ) -> tuple[Any, Any]:
        x = self._features(x, names[0], width=width)
        rows = x.shape[0]
        if rows == 0:
            raise ValueError(f"{names[0]} has no rows; got shape {x.shape}")
        steps = x.shape[1] if self._gives_sequences() else None
        if arrays.is_on_device(x.values if isinstance(x, Sequences) else x):
            from . import device_rows

            ends = x.lengths_there if isinstance(x, Sequences) and steps is not None else None
            kind = self.outputs, compiled.loss, self._dtype, devices.cuda_number(self._device)
            return x, device_rows.targets(y, rows, *kind, names, steps, ends)
        y = self._host(names[1], y)
        if isinstance(x, Sequences) and steps is not None:
            if isinstance(y, (list, tuple)):
                y = padded_as(names[1], y, x.running())
            if getattr(y, "shape", ())[:2] == (rows, steps):
                y = x.cleared(y)
        return x, arrays.targets(y, rows, self.outputs, compiled.loss, self._dtype, names, steps)

    def _features(
        self, x: Any, name: str = "X", *, finite: bool = True, width: int | None = None
    ) -> Any:
        """Rows, or sequences where the layers read them, in the engine's dtype."""
        kind = self._inputs or width, self._dtype, name
        if self._stays_there(x):
            return self._features_there(x, name, finite, kind[0])
        x = self._host(name, x)
        if self._embedding is not None and self._reads_sequences and kind[0] in (None, 1):
            x = one_a_step(name, x)
        first = self._layers[0]
        if isinstance(first, Reshape) and not isinstance(x, Sequences):
            x = first.rows(x, name, self._reads_sequences)
        if self._masking is not None and not isinstance(x, Sequences):
            x = self._masking.sequences(x, name)
        if not self._reads_sequences:
            require_no_sequences(x, name)
            ready = arrays.features(x, *kind, finite=finite, flatten=self._flattens)
        elif isinstance(x, Sequences):
            values = arrays.features(x.values, *kind, finite=False, sequences=True)
            if finite and arrays.first_non_finite(values) >= 0:  # behind the ends it does not count
                values = arrays.features(x.cleared(), *kind, sequences=True)
            ready = values
        else:
            ready = arrays.features(x, *kind, finite=finite, sequences=True)
        if self._embedding is not None:
            ends = x.cleared(ready) if isinstance(x, Sequences) else ready
            check_entries(ends, self._embedding, name)
        return x.like(ready) if isinstance(x, Sequences) else ready

    def _stays_there(self, x: Any) -> bool:
        """Whether rows lie on a GPU and are read there by a model that is on one too."""
        if not devices.is_cuda(self._device):
            return False
        values = x.values if isinstance(x, Sequences) else x
        one_each = self._embedding is not None and self._reads_sequences
        reshapes = isinstance(self._layers[0], Reshape) or one_each or self._masking is not None
        return arrays.is_on_device(values) and (not reshapes or isinstance(x, Sequences))

    def _features_there(self, x: Any, name: str, finite: bool, width: int | None) -> Any:
        """As _features, of rows on the model's GPU."""
        from . import device_rows

        number, lengths = devices.cuda_number(self._device), None
        if isinstance(x, Sequences):
            if not self._reads_sequences:
                require_no_sequences(x, name)
            lengths = device_rows.sent(x.lengths, number)
        values = device_rows.features(
            x.values if isinstance(x, Sequences) else x,
            width,
            self._dtype,
            number,
            name,
            finite=finite,
            flatten=self._flattens,
            sequences=self._reads_sequences,
            lengths=lengths,
            entries=self._embedding,
        )
        return x.like(values, there=lengths) if isinstance(x, Sequences) else values

    def _host(self, name: str, value: Any) -> Any:
        """Of an array on a GPU, where the model is on one too, a copy on the host."""
        if not (arrays.is_on_device(value) and devices.is_cuda(self._device)):
            return value
        from . import device_rows

        return device_rows.to_host(name, value)

    def _gives_sequences(self) -> bool:
        """Whether outputs have an axis of steps."""
        return self._reads_sequences and network.gives_sequences(self._layers)

    def _counted(self, x: Any) -> int:
        """Number of outputs for x over which a loss is a mean."""
        if not self._gives_sequences():
            return len(x)
        return int(x.lengths.sum()) if isinstance(x, Sequences) else len(x) * int(x.shape[1])

    def _is_lazy(self, x: Any) -> bool:
        """Whether x is better not converted as a whole. Sequences and numbers of entries are."""
        whole = self._reads_sequences or self._embedding is not None
        return not whole and is_lazy(x, self._dtype, native=self._device == "cpu")

    def _lazy(
        self, x: Any, width: int | None = None, name: str = "X", *, finite: bool = True
    ) -> LazyRows:
        """Those rows, checked."""
        native = self._device == "cpu"
        return LazyRows(x, self._inputs or width, self._dtype, name, native=native, finite=finite)

    def _in_rows(self, x: Any) -> Any:
        """Of a network that begins with Flatten, an array of integers as rows."""
        integers = isinstance(x, np.ndarray) and x.dtype.kind in "biu"
        if self._flattens and integers and x.ndim > 2 and len(x):
            return x.reshape(len(x), -1)
        return x

    def _new_outputs(self, x: Any) -> Array:
        """An array for the network's outputs for x."""
        return np.empty(self._outputs_shape(x), self._dtype)

    def _outputs_shape(self, x: Any) -> tuple[int, ...]:
        steps = x.shape[1:2] if self._gives_sequences() else ()
        return (x.shape[0], *steps, self.outputs)

    def _room_for_outputs(self, rows: Any, given: Any) -> tuple[Any, Any]:
        """An array of the caller's kind for the outputs for checked rows, and what the engine
        writes to."""
        values: Any = rows.values if isinstance(rows, Sequences) else rows
        if not arrays.is_on_device(values):
            made = self._new_outputs(rows)
            return made, made
        from . import device_rows

        like = given.values if isinstance(given, Sequences) else given
        return device_rows.room_like(like, self._outputs_shape(rows), self._dtype, values.device)

    def _weights(
        self, x: Any, y: Array, sample_weight: Any, class_weight: weights.ClassWeight = None
    ) -> Array | None:
        """The factors of the losses of checked rows x with targets y; None where all are alike."""
        if sample_weight is None and class_weight is None:
            return None
        loss = self._require_compiled().loss
        runs = self._runs(x)
        outputs = self._outputs or network.outputs(self._layers, x.shape[-1])
        if arrays.is_on_device(y):
            from . import device_rows

            rows: Any = y
            made: Any = device_rows.factors(
                sample_weight, class_weight, rows, loss, self._dtype, runs, outputs
            )
            return made  # type: ignore[no-any-return]
        sample_weight = self._host("sample_weight", sample_weight)
        return weights.rows(
            sample_weight, class_weight, y, loss, self._dtype, runs, outputs=outputs
        )

    def _samples(self, sample_weight: Any, x: Any, y: Any, name: str = "sample_weight") -> Any:
        """sample_weight as float64, checked, one for each loss; where the targets y are."""
        runs = self._runs(x)
        if arrays.is_on_device(y) and runs is None:
            from . import device_rows

            return device_rows.sample_weights(sample_weight, len(y), y.device, name)
        return weights.samples(self._host(name, sample_weight), len(y), name, runs)

    def _runs(self, x: Any) -> Array | None:
        """Of outputs at every step, which steps of the rows x count, (n, steps)."""
        return running(x.shape[:2], lengths_of(x)) if self._gives_sequences() else None

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
