"""Sequential: a chain of layers that is compiled, trained, used and saved."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from . import arrays, carried, checks, devices, freezing, network
from .arrays import Array
from .carried import Stream
from .lazy import EVALUATION_BATCH, for_engine
from .sequences import Sequences, with_lengths
from .transferable import Transferable
from .weights import ClassWeight

if TYPE_CHECKING:
    from .batches import Augment
    from .callbacks import Callback
    from .explain import Explanation
    from .history import History
    from .profiling import Profile


class Sequential(Transferable):
    """A chain of layers.

    Args:
        layers: the layers from input to output, at least one Dense among them.
        seed: an integer from 0 to 2^64 - 1: start and order of the rows follow from it, on every
            device. None draws one.

    The number of inputs is that of the first data seen, or of `build`. All data is (rows, columns);
    it may be anything that numpy.asarray makes numbers of, and tensors of bfloat16, and is used
    without a copy where it is C-contiguous and of the model's dtype. Any error leaves the model as
    it was. copy.deepcopy and pickle make models of their own that go on as this one would, bit for
    bit.

    Attributes:
        seed: the seed.
        metadata: text by name, of the user; saved with the model.
        history: the History of the last call of fit, or None.
        stop_training: set to True in a callback to end fit after the epoch.

    Raises TypeError if `layers` holds anything but layers, ValueError if an object with parameters
    appears twice.
    """

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        validation_split: float = 0.0,
        validation_data: tuple[Any, ...] | None = None,
        stratify: bool = False,
        sample_weight: Any = None,
        class_weight: ClassWeight = None,
        shuffle: bool = True,
        verbose: str | int = "auto",
        callbacks: Iterable[Callback] | Callback | None = None,
        gradient_norms: bool = False,
        resume: str | os.PathLike[str] | bool | None = None,
        augment: Augment | None = None,
        steps_per_epoch: int | None = None,
        tol: float | None = None,
        patience: int | None = None,
        lengths: Any = None,
    ) -> History:
        """Trains for some epochs and returns the History of this call.

        Args:
            X: (n, inputs) numbers, finite: arrays, pandas or polars frames; SciPy's sparse
                matrices, and np.memmap of another dtype, whose rows are converted batch by batch.
                For a model on CUDA also arrays on its GPU, which stay there, as y and
                sample_weight do; they must not be changed before fit returns.
                Or, without y, batches (x, y): a list, another iterable with a length or an object
                with `__len__` and `__getitem__`, once an epoch; any iterator, with steps_per_epoch.
            y: (n, outputs), or (n,) for one output; for softmax_cross_entropy class numbers (n,) or
                rows (n, classes).
            epochs: how often to go through the rows.
            batch_size: rows per step; the last batch of an epoch may be smaller.
            validation_split: share of the rows, from the end and before any shuffling, that is not
                trained on but evaluated after every epoch ("val_loss" and so on).
            validation_data: (X, y), or (X, y, sample_weight), to evaluate after every epoch
                instead.
            stratify: with validation_split, hold out the same share of every class, the last of its
                rows.
            sample_weight: (n,) numbers, at least 0 and not all 0: weights of the rows in the loss,
                of which only the ratios count (fastbp.weights); rows that validation_split takes
                keep theirs. Of outputs at every step also (n, steps), or a list of arrays as X is:
                one for each step.
            class_weight: {class: factor} of the rows' weights, 1 for a class that is not named, or
                "balanced": all classes then have the same weight in sum. Of outputs at every step
                it is the step's class that counts. Not used in validation.
            shuffle: a new random order of the rows in every epoch. It follows from the seed and the
                number of epochs trained, so that two calls of fit, even with save and load between
                them, equal one call.
            verbose: 0 silent, 1 a bar, N >= 2 a line every N epochs (2: every epoch), "auto" a bar
                on a terminal.
            callbacks: Callback objects; see fastbp.callbacks.
            gradient_norms: record the length of each layer's gradient as "gradient_norm_0" and so
                on: of the parameters at the end of the epoch, on the epoch's last batch.
            resume: a file that `save` or ModelCheckpoint wrote while fit had not come to its end
                (in a callback, or after Ctrl-C), or True for this model's own run: goes on there,
                with the bits that the run would have had. Everything else must be as in the call
                that was stopped, but for more or fewer epochs (counted from its start).

            augment: a function (x, rng) -> x that changes the inputs of each batch of training: x
                (rows, inputs) is a copy, rng a numpy Generator that follows from seed, epoch and
                batch, so that a resumed run draws the same.
            steps_per_epoch: how many batches of an iterator make an epoch.
            tol: ends fit, with stop_reason "converged", when for `patience` epochs in a row (10
                unless given) the training loss was not below the smallest before by more than tol.
                For the loss of other rows there is EarlyStopping.
            lengths: (n,) integers from 1 to the steps of X, in any order: how many steps of each
                sequence count, for networks with recurrent layers, where X is (n, steps, features).
                X may also be Sequences, which pads a list of arrays. Of outputs at every step y
                (n, steps, outputs) counts as far as X does.

        Raises TypeError and ValueError for wrong arguments, before anything changes (of batches and
        memmaps the values are checked as they come, between two steps); RuntimeError if the model
        is not compiled, or is being trained by another fit (in another thread, or in the one whose
        callback calls). Ctrl-C raises KeyboardInterrupt with the model at the end of a
        step and `history` up to date; within a callback when it returns, or at the second Ctrl-C.
        """
        from . import training

        return training.ready(
            self,
            with_lengths(X, lengths),
            y,
            epochs=epochs,
            batch_size=batch_size,
            validation_split=validation_split,
            validation_data=validation_data,
            stratify=stratify,
            sample_weight=sample_weight,
            class_weight=class_weight,
            shuffle=shuffle,
            verbose=verbose,
            callbacks=callbacks,
            gradient_norms=gradient_norms,
            resume=resume,
            augment=augment,
            steps_per_epoch=steps_per_epoch,
            tol=tol,
            patience=patience,
        ).train()

    def step(
        self,
        x: Any,
        y: Any,
        sample_weight: Any = None,
        class_weight: ClassWeight = None,
        lengths: Any = None,
    ) -> float:
        """One training step on one batch; returns the loss before the update.

        x is (n, inputs), y, the weights and lengths as for fit, the mean being that of the batch.
        The quickest way in is C-contiguous arrays of the model's dtype, class numbers in int64.
        Raises as fit does.
        """
        quick, compiled = self._quick, self._compiled
        weighted = sample_weight is not None or class_weight is not None
        if (
            quick is not None
            and compiled is not None
            and not compiled.optimizer.changed
            and not weighted
            and lengths is None
        ):
            loss = quick.quick_step(x, y)
            if loss is not None:
                return loss
        engine, x, y, weights = self._batch(
            with_lengths(x, lengths), y, sample_weight, class_weight
        )
        if self.optimizer.changed:
            self._sync_optimizer(engine)
        with carried.states_of(self, x) as rows:
            return engine.step(rows, y, weights)

    def gradients(
        self,
        x: Any,
        y: Any,
        sample_weight: Any = None,
        class_weight: ClassWeight = None,
        lengths: Any = None,
    ) -> tuple[float, dict[str, Array]]:
        """The loss of one batch and its gradient: (loss, {name: new array}). Updates nothing.

        As the next step would compute them, penalties of regularizers and the states of stateful
        layers included, but before any clipping. Parameters of frozen layers have no gradient.
        """
        engine, x, y, weights = self._batch(
            with_lengths(x, lengths), y, sample_weight, class_weight
        )
        loss, flat = engine.flat_gradient(carried.before_step(self, x), y, weights)
        views = network.views(self._layers, engine, flat)
        return loss, {name: views[name] for name in freezing.trained(self, views)}

    def input_gradient(
        self, x: Any, y: Any, sample_weight: Any = None, lengths: Any = None
    ) -> tuple[float, Array]:
        """The loss of one batch and its gradient by x: (loss, array of the shape of x)."""
        x = with_lengths(x, lengths)
        weights: Any
        engine, rows, y, weights = self._batch(x, y, sample_weight)
        rows = carried.before_step(self, rows)
        like = x.values if isinstance(x, Sequences) else x
        if arrays.is_on_device(y):
            from . import device_rows

            return device_rows.input_gradient(engine, rows, y, weights, like)
        loss, dx = engine.input_gradient(rows, y, weights)
        return loss, dx.reshape(np.shape(like))  # Flatten and Reshape had rows of another

    def evaluate(
        self,
        X: Any,
        y: Any,
        batch_size: int = EVALUATION_BATCH,
        callbacks: Iterable[Callback] | Callback | None = None,
        sample_weight: Any = None,
        lengths: Any = None,
    ) -> dict[str, float]:
        """The loss and the metrics over all rows: {"loss": ..., "accuracy": ...}.

        batch_size rows are computed at a time. Of callbacks the on_test hooks are called. With
        sample_weight the loss is the weighted mean; metrics are of the rows as they are. Data and
        errors as for fit.
        """
        from . import evaluation, holdout
        from .callbacks.base import get as callback_list
        from .callbacks.hooks import Hooks
        from .runs import Place

        size = checks.batch_size(batch_size)
        watchers = callback_list(callbacks)
        X = self._in_rows(with_lengths(X, lengths))
        if self._is_lazy(X):
            x, y = holdout.pair(self, X, y)
            factors = self._weights(x, y, sample_weight)
            engine = self._engine or self._build(x.shape[1])
        else:
            engine, x, y, factors = self._batch(X, y, sample_weight)
        data = holdout.Rows(x, y, factors)
        for watcher in watchers:
            watcher.set_model(self)
        return evaluation.evaluate(self, engine, data, size, Hooks(watchers), Place())

    def averaged(self) -> Sequential:
        """A model of its own with the moving average of the parameters, for use and evaluation.

        Needs an optimizer with use_ema=True and at least one update. Training goes on in this one,
        with the parameters as they are. Raises ValueError without use_ema, RuntimeError before the
        first update.
        """
        from . import averages

        return averages.averaged(self)

    @overload
    def predict(
        self,
        X: Any,
        lengths: Any = None,
        *,
        initial_state: Any = None,
        return_state: Literal[False] = False,
    ) -> Array: ...
    @overload
    def predict(
        self, X: Any, lengths: Any = None, *, initial_state: Any = None, return_state: Literal[True]
    ) -> tuple[Array, dict[str, Array]]: ...
    def predict(
        self,
        X: Any,
        lengths: Any = None,
        *,
        initial_state: Any = None,
        return_state: bool = False,
    ) -> Array | tuple[Array, dict[str, Array]]:
        """The last layer's output for every row: (n, outputs), of the dtype of the parameters.

        That is logits where the loss takes logits; see predict_proba. A row's result does not
        depend on the other rows. NaN and infinity are let through and stay in their rows. Raises
        TypeError and ValueError for wrong arrays. The result is a NumPy array, of tensors of
        PyTorch and JAX on the host too (torch.from_numpy shares its memory); but a model on CUDA
        takes arrays that lie on its GPU (contiguous and of its dtype: without a copy), and returns
        one of the same kind.

        Of networks with recurrent layers X is (n, steps, features), or Sequences; where all layers
        put out every step the result is (n, steps, outputs).

        Args:
            lengths: as for fit.
            initial_state: the states before the first step: {"0.h": (n, units), "0.c": ...}, as
                return_state gives them; None for 0, or where layers are stateful for those that the
                last call left.
            return_state: True returns (result, states behind the last step of each sequence).
        """
        if self._quick is not None and lengths is None:
            quick = self._quick.quick_predict(X)
            if quick is not None:
                return quick
        X = with_lengths(X, lengths)
        if self._reads_sequences:
            outputs: Array = carried.predict(self, X, initial_state, return_state)
            return outputs
        if initial_state is not None or return_state:
            raise ValueError("states are those of recurrent layers; the network has none")
        if arrays.is_on_device(X) and devices.is_cuda(self._device):
            from . import device_rows

            number = devices.cuda_number(self._device)
            there: Array = device_rows.predict(self, X, number)
            return there
        X = self._in_rows(X)
        lazy = self._is_lazy(X)
        x: Any = self._lazy(X, finite=False) if lazy else self._features(X, finite=False)
        engine = self._engine or self._build(x.shape[-1])
        out = self._new_outputs(x)
        whole = for_engine(x)
        size = EVALUATION_BATCH if whole is None else max(len(out), 1)
        for first in range(0, len(out), size):
            rows = slice(first, first + size)
            engine.predict(x[rows] if whole is None else whole, out[rows])
        return out

    def reset_states(self) -> None:
        """Lets stateful recurrent layers begin with states of 0 again."""
        self._carried = None

    def stream(self, batch: int = 1) -> Stream:
        """Predicts step by step: what `stream.step(x)` is given follows on what it had before.

            stream = model.stream()
            for x in measurements:  # (features,)
                y = stream.step(x)  # (outputs,)

        `batch` sequences go side by side. The outputs have the bits of predict on whole sequences.
        Raises ValueError for networks without recurrent layers, or with one that needs later steps.
        """
        return Stream(self, checks.integer("batch", batch))

    def forward(self, X: Any, training: bool = False) -> Array:
        """The output for every row: that of predict, or with `training` that of a training step.

        The latter takes the rows as one batch, begins with the states that stateful layers hold
        and leaves out what Dropout leaves out in the next step; NaN and infinity are refused.
        Changes nothing.
        """
        if not checks.boolean("training", training):
            return self.predict(X)
        x = self._features(X)
        engine = self._engine or self._build(x.shape[-1])
        result, out = self._room_for_outputs(x, X)
        if len(out):
            engine.predict(carried.before_step(self, x), out, training=True)
        made: Array = result
        return made

    def predict_proba(self, X: Any, lengths: Any = None) -> Array:
        """Probabilities (n, outputs): softmax or sigmoid of outputs that are logits.

        Raises ValueError where the loss is not about classes, or of margins.
        """
        link = self._link("predict_proba")
        if link == "sign":
            raise ValueError(
                f"the outputs of loss {self.loss.name!r} are margins, not probabilities: use "
                "predict_class, or compile with 'binary_cross_entropy_with_logits'"
            )
        output: Array = self._host("the output", self.predict(X, lengths))
        assert self._backend is not None
        if link == "softmax":
            rows = output.reshape(-1, output.shape[-1])
            self._backend.ops.softmax(rows, out=rows)
        elif link == "sigmoid":
            self._backend.ops.sigmoid(output, out=output)
        return output

    def predict_class(self, X: Any, lengths: Any = None) -> Array:
        """Classes as int64.

        For softmax_cross_entropy the number of the largest output, (n,); for the binary and the
        hinge losses whether each probability is above 0.5 or margin above 0, (n,) for one output
        and (n, outputs) for several. Raises ValueError where the loss is not about classes.
        """
        self._link("predict_class")
        return self._classes_of(self._host("the output", self.predict(X, lengths)))

    def _classes_of(self, output: Array) -> Array:
        """Classes that outputs stand for."""
        link = self._link("predict_class")
        if link == "softmax":
            classes: Array = output.argmax(axis=-1)
            return classes
        chosen = (output > (0.5 if link == "identity" else 0)).astype(np.int64)
        return chosen[..., 0] if chosen.shape[-1] == 1 else chosen

    def summary(self, print_fn: Callable[[str], object] = print, batch_size: int = 32) -> None:
        """Prints the layers with outputs, parameters and arithmetic, and what a step takes.

        A flop is one multiplication or addition of a matrix product. Memory is that of a training
        step on batch_size rows without padding and the threads' buffers.
        """
        from . import summary

        size = checks.batch_size(batch_size)
        settings = self._compiled, self.dtype, self._device, size
        for line in summary.lines(self._layers, self._inputs, *settings):
            print_fn(line)

    def profile(self, X: Any, y: Any, batch_size: int = 32, seconds: float = 1.0) -> Profile:
        """Where the time of a training step goes; print what it returns.

        Trains a copy of the model on X and y, as fit takes them, for about that many seconds, and
        divides by the steps: for each layer its forward pass, the gradient of its input and that of
        its parameters, and what is of no layer. A batch of a small network goes through all layers
        in one call. The times are the first thread's, waiting included; measuring takes about
        25 ns a part. On CUDA they are the device's, between events in the graph that a step is
        replayed as; a narrow network that one kernel trains has one part, and twice the seconds
        are taken, since what lies between two steps is the time of steps that nobody watches less
        their parts'. The model is not changed. Raises ValueError for device="reference" and LBFGS,
        RuntimeError if the model is not compiled and built.
        """
        from .profiling import profile

        return profile(self, X, y, batch_size, seconds)

    def explain(self, x: Any, y: Any) -> Explanation:
        """One training step as a hand calculation; print what it returns.

        x is a row (inputs,), y its target: a number, a class number or a row (outputs,). Or a small
        batch (n, inputs), which shows what BatchNorm does; or of networks with recurrent layers one
        sequence (steps, features), in front of an Embedding (steps,), with one target or one for
        each step. All layers are laid out, functions of your own too; of long rows, batches and
        sequences the beginning and the end. The step is the next that `step` would take, with what
        Dropout leaves out in it. The model is not changed, but built if it is not. The arithmetic
        is float64 in NumPy. Raises ValueError for several sequences and wrong arrays.
        """
        from .explain import explain

        return explain(self, x, y)


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
