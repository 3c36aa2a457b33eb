"""Sequential: a chain of layers that is compiled, trained, used and saved."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core, arrays, checks, devices, losses, network, optimizers
from .arrays import Array
from .errors import describe, unknown_name
from .layers import Dense, Layer
from .metrics import get as get_metrics
from .network import Compiled

if TYPE_CHECKING:
    from .callbacks import Callback
    from .history import History

# Rows at a time where nothing is trained: bounds the memory for activations.
EVALUATION_BATCH = 1024


class Sequential:
    """A chain of layers.

    Args:
        layers: the layers from input to output, at least one Dense among them.
        seed: an integer from 0 to 2^64 - 1: start and order of the rows follow from it, on every
            device. None draws one.

    The number of inputs is that of the first data seen, or of `build`. All data is (rows, columns);
    it may be anything that numpy.asarray makes numbers of, and is used without a copy where it is
    C-contiguous and of the model's dtype. Any error leaves the model as it was.

    Attributes:
        seed: the seed.
        metadata: text by name, of the user; saved with the model.
        history: the History of the last call of fit, or None.
        stop_training: set to True in a callback to end fit after the epoch.

    Raises TypeError if `layers` holds anything but layers, ValueError if a Dense object appears
    twice.
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
        self._engine: _core.Engine | None = None
        self._quick: _core.Engine | None = None  # the engine, if it is the compiled one
        self._backend: devices.Backend | None = None
        self._device = "auto"
        self._dtype_name = "float32"
        self._dtype = np.dtype(np.float32)  # of parameters and data
        self._compiled: Compiled | None = None
        self._epochs = 0
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
        """ "float32", "float64" or "bfloat16": what compile chose."""
        return self._dtype_name

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
        if isinstance(layer, Dense) and any(layer is other for other in self._layers):
            raise ValueError(
                f"the same object {layer!r} appears twice; layers share no weights here: "
                "make one object for each"
            )
        self._layers.append(layer)
        if isinstance(layer, Dense):
            self._outputs = layer.units

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
            metrics: names: "accuracy", "mse", "mae"; see fastbp.metrics.
            device: "auto" (FASTBP_DEVICE, else the processor), "cpu", "reference" (plain NumPy).
            dtype: "float32" or "float64", of parameters, data and arithmetic; or "bfloat16", which
                is float32 but for the matrix products: they round their operands to bfloat16 (8
                bits of precision) and sum in float32, at up to twice the speed on processors that
                offer it. Parameters that exist are converted, into new arrays.

        Raises ValueError for unknown names, DeviceNotAvailableError for a device, or bfloat16 on
        it, that this machine does not offer.
        """
        if loss is None:
            raise TypeError(
                "compile needs a loss: for example loss='mse' or loss='softmax_cross_entropy'"
            )
        chosen = Compiled(losses.get(loss), optimizers.get(optimizer).bound(), get_metrics(metrics))
        kind, name = arrays.dtype_name(dtype), devices.resolve(device)
        devices.require_dtype(name, kind)
        warning = losses.check_outputs(
            chosen.loss, self.outputs, network.last_activation(self._layers)
        )
        if warning:
            warnings.warn(warning, UserWarning, stacklevel=2)
        self._adopt(chosen, name, kind)

    def _adopt(self, chosen: Compiled | None, name: str, kind: str) -> None:
        """Takes over checked settings; parameters move to an engine that fits them."""
        engine, backend = self._engine, self._backend
        if engine is not None and (name, kind) != (self._device, self._dtype_name):
            assert self._inputs is not None
            backend = devices.backend(name)
            moved = network.make_engine(self._layers, self._inputs, backend, kind)
            moved.parameters[...] = engine.parameters
            engine = moved
        if engine is not None and chosen is not None:
            network.compile_engine(engine, chosen)
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
            network.outputs(self._layers)  # raises without a Dense
            name = devices.resolve(self._device)
            backend = devices.backend(name)
            engine = network.make_engine(self._layers, inputs, backend, self._dtype_name)
            if draw:
                network.initialize(self._layers, engine, backend, self.seed)
            if self._compiled is not None:
                network.compile_engine(engine, self._compiled)
            self._use(engine)
            self._backend, self._inputs, self._device = backend, inputs, name
            return engine
        return self._engine

    def _use(self, engine: _core.Engine | None) -> None:
        self._engine = engine
        self._quick = engine if isinstance(engine, _core.Engine) else None

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        validation_split: float = 0.0,
        validation_data: tuple[Any, Any] | None = None,
        shuffle: bool = True,
        verbose: str | int = "auto",
        callbacks: Iterable[Callback] | Callback | None = None,
    ) -> History:
        """Trains for some epochs and returns the History of this call.

        Args:
            X: (n, inputs) numbers, finite.
            y: (n, outputs), or (n,) for one output; for softmax_cross_entropy class numbers (n,) or
                rows (n, classes).
            epochs: how often to go through the rows.
            batch_size: rows per step; the last batch of an epoch may be smaller.
            validation_split: share of the rows, from the end and before any shuffling, that is not
                trained on but evaluated after every epoch ("val_loss" and so on).
            validation_data: (X, y) to evaluate after every epoch instead.
            shuffle: a new random order of the rows in every epoch. It follows from the seed and the
                number of epochs trained, so that two calls of fit, even with save and load between
                them, equal one call.
            verbose: 0 silent, 1 a bar, N >= 2 a line every N epochs (2: every epoch), "auto" a bar
                on a terminal.
            callbacks: Callback objects.

        Raises TypeError and ValueError for wrong arguments, before anything changes; RuntimeError
        if the model is not compiled. Ctrl-C raises KeyboardInterrupt with the model at the end of a
        step and `history` up to date.
        """
        from . import training

        return training.fit(
            self,
            X,
            y,
            epochs=epochs,
            batch_size=batch_size,
            validation_split=validation_split,
            validation_data=validation_data,
            shuffle=shuffle,
            verbose=verbose,
            callbacks=callbacks,
        )

    def step(self, x: Any, y: Any) -> float:
        """One training step on one batch; returns the loss before the update.

        x is (n, inputs), y as for fit. The quickest way in is C-contiguous arrays of the model's
        dtype, class numbers in int64. Raises as fit does.
        """
        quick, compiled = self._quick, self._compiled
        if quick is not None and compiled is not None and not compiled.optimizer.changed:
            loss = quick.quick_step(x, y)
            if loss is not None:
                return loss
        engine, x, y = self._batch(x, y)
        if self.optimizer.changed:
            self._sync_optimizer(engine)
        return engine.step(x, y)

    def gradients(self, x: Any, y: Any) -> tuple[float, dict[str, Array]]:
        """The loss of one batch and its gradient: (loss, {name: new array}). Updates nothing."""
        engine, x, y = self._batch(x, y)
        loss = engine.gradients(x, y)
        views = network.views(self._layers, engine, engine.gradients_)
        return loss, {name: view.copy() for name, view in views.items()}

    def input_gradient(self, x: Any, y: Any) -> tuple[float, Array]:
        """The loss of one batch and its gradient by x: (loss, array of the shape of x)."""
        engine, x, y = self._batch(x, y)
        return engine.input_gradient(x, y)

    def _batch(self, x: Any, y: Any) -> tuple[_core.Engine, Array, Array]:
        """The engine and one batch, checked; builds a model that has seen no data yet."""
        quick = self._quick
        if quick is not None and quick.accepts(x, y):
            return quick, x, y
        compiled = self._compiled or self._require_compiled()
        x, y = self._check_rows(x, y, compiled)
        return self._engine or self._build(x.shape[1]), x, y

    def _check_rows(
        self,
        x: Any,
        y: Any,
        compiled: Compiled,
        names: tuple[str, str] = ("X", "y"),
        width: int | None = None,
    ) -> tuple[Array, Array]:
        x = arrays.features(x, self._inputs or width, self._dtype, names[0])
        rows = x.shape[0]
        if rows == 0:
            raise ValueError(f"{names[0]} has no rows; got shape {x.shape}")
        return x, arrays.targets(y, rows, self.outputs, compiled.loss, self._dtype, names)

    def _sync_optimizer(self, engine: _core.Engine) -> None:
        """Hands changed hyper-parameters to the engine; keeps its state."""
        optimizer = self._require_compiled().optimizer
        if optimizer.changed:
            engine.set_hyper(optimizer.hyper())
            optimizer.changed = False

    def _require_compiled(self) -> Compiled:
        if self._compiled is None:
            raise RuntimeError(
                "the model is not compiled: call model.compile(optimizer=..., loss=...) first"
            )
        return self._compiled

    def evaluate(self, X: Any, y: Any, batch_size: int = EVALUATION_BATCH) -> dict[str, float]:
        """The loss and the metrics over all rows: {"loss": ..., "accuracy": ...}.

        batch_size rows are computed at a time. Data and errors as for fit.
        """
        size = checks.integer("batch_size", batch_size)
        engine, x, y = self._batch(X, y)
        names = self._require_compiled().metrics
        loss, values = engine.evaluate(x, y, size, names)
        return {"loss": loss, **dict(zip(names, values, strict=True))}

    def predict(self, X: Any) -> Array:
        """The last layer's output for every row: (n, outputs), of the dtype of the parameters.

        That is logits where the loss takes logits; see predict_proba. A row's result does not
        depend on the other rows. NaN and infinity are let through and stay in their rows. Raises
        TypeError and ValueError for wrong arrays.
        """
        if self._quick is not None:
            quick = self._quick.quick_predict(X)
            if quick is not None:
                return quick
        x = arrays.features(X, self._inputs, self._dtype, finite=False)
        engine = self._engine or self._build(x.shape[1])
        out = np.empty((x.shape[0], self.outputs), self._dtype)
        if len(out):
            engine.predict(x, out)
        return out

    def forward(self, X: Any, training: bool = False) -> Array:
        """The output for every row, as predict; no layer so far does otherwise in training."""
        checks.boolean("training", training)
        return self.predict(X)

    def predict_proba(self, X: Any) -> Array:
        """Probabilities (n, outputs): softmax or sigmoid of outputs that are logits.

        Raises ValueError where the loss is not about classes.
        """
        link = self._link("predict_proba")
        output = self.predict(X)
        assert self._backend is not None
        if link == "softmax":
            self._backend.ops.softmax(output, out=output)
        elif link == "sigmoid":
            self._backend.ops.sigmoid(output, out=output)
        return output

    def predict_class(self, X: Any) -> Array:
        """Classes as int64.

        For softmax_cross_entropy the number of the largest output, (n,); for the binary losses
        whether each probability is above 0.5, (n,) for one output and (n, outputs) for several.
        Raises ValueError where the loss is not about classes.
        """
        link = self._link("predict_class")
        output = self.predict(X)
        if link == "softmax":
            classes: Array = output.argmax(axis=1)
            return classes
        chosen = (output > (0 if link == "sigmoid" else 0.5)).astype(np.int64)
        return chosen[:, 0] if chosen.shape[1] == 1 else chosen

    def _link(self, method: str) -> losses.Link:
        loss = self._require_compiled().loss
        if loss.traits.link is None:
            raise ValueError(
                f"{method} is about classes, but the loss is {loss.name!r}: use predict, or "
                "compile with "
                "'softmax_cross_entropy' or 'binary_cross_entropy_with_logits'"
            )
        return loss.traits.link

    def parameters(self) -> dict[str, Array]:
        """Live views of the parameters by name: "0.kernel", "0.bias", by the layer's place.

        kernel is (inputs, units), bias (units,). Writing to a view changes the model. Compiling for
        another dtype or device makes new arrays. Raises RuntimeError before the model is built.
        """
        engine = self._require_built()
        return network.views(self._layers, engine, engine.parameters)

    def set_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Overwrites the named parameters, all or none; the others and the optimizer's state stay.

        Raises ValueError for unknown names, other shapes, NaN and infinity; TypeError for other
        kinds.
        """
        given: object = parameters
        if not isinstance(given, Mapping):
            raise TypeError(
                f"parameters must be a dict from name to array; got {describe(parameters)}"
            )
        views = self.parameters()
        ready = {}
        for name, value in parameters.items():
            if name not in views:
                raise unknown_name("parameter", name, views)
            ready[name] = arrays.parameter(name, value, views[name].shape, self._dtype)
        for name, array in ready.items():
            views[name][...] = array

    def _require_built(self) -> _core.Engine:
        if self._engine is None:
            raise RuntimeError(
                "the model has no parameters yet: call model.build(number_of_inputs), or fit"
            )
        return self._engine

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        """Writes the model to one file, from which `fastbp.load` makes it again, bit for bit.

        It holds layers, parameters, and if the model is compiled all that further training depends
        on: loss, metrics, optimizer with its state, step and epoch count, seed. The file has the
        safetensors layout. It appears under its name only when it is complete and on the disk; an
        error leaves a file that was there untouched.

        Args:
            path: the file to write.
            metadata: more text by name to keep beside `self.metadata`.

        Raises RuntimeError if the model is not built, OSError if the file cannot be written.
        """
        from . import files

        files.save(self, path, {**self.metadata, **(metadata or {})})

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """Prints a table of the layers, their outputs and their parameters."""
        *table, sums = network.summary(self._layers, self._inputs)
        for line in (*table, f"{sums}; {self.dtype} on {self._device}"):
            print_fn(line)

    def __repr__(self) -> str:
        return f"Sequential([{', '.join(map(repr, self._layers))}], seed={self.seed})"


def load(path: str | os.PathLike[str], device: str = "auto") -> Sequential:
    """The model that `Sequential.save` wrote.

    It predicts the same bits, and trains on as if it had never stopped. Nothing in the file is
    executed. Everything is checked before it is used.

    Raises ModelFileError (a ValueError) for a file that is damaged or no model of this version,
    OSError if it cannot be read, DeviceNotAvailableError for a device that this machine does not
    offer.
    """
    from . import files

    return files.load(path, device)
