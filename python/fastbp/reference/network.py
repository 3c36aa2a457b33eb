"""The network engine in NumPy: the methods of the native engine, one step traced in plain sight.

Parameters and optimizer states live in the engine's dtype. A step reads them, computes everything
(forward, loss, backward, update) in float64, and rounds once when it writes them back. For float32
it is therefore the precise twin of the native engine; for float64 it is its equal. With
bfloat16, float16 and tf32 the engine's dtype is float32, and both operands of each of the three
matrix products are rounded to them; with float16 the loss is scaled too (float16.py). Sums run in
NumPy's order, so the bits differ from the native engine's.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from ..turns import OneAtATime, in_turn
from .arrays import F64, Array, as_float64, rounded
from .bfloat16 import round_to_bfloat16
from .builder import Builder
from .float16 import new_scale, next_scale, round_to_float16
from .form import Form
from .interrupts import interrupts_between_steps
from .losses import LOSSES, Loss
from .metrics import width
from .ops import quiet
from .optimizers import OPTIMIZERS, Optimizer
from .random import permutation
from .rules import Rules
from .sequences import Rows, Samples, by_rows
from .stages import Pass, Stage
from .tf32 import round_to_tf32
from .totals import Total

Entry = TypeVar("Entry")

# What a matrix product makes of its operands.
_OPERANDS = {
    "bfloat16": round_to_bfloat16,
    "float16": round_to_float16,
    "tf32": round_to_tf32,
}
_PREDICT_ROWS = 4096  # rows at a time in predict, to bound the float64 intermediates


def _find(entries: dict[str, Entry], name: str, what: str) -> Entry:
    """The entry of that name; ValueError lists the choices."""
    if name not in entries:
        raise ValueError(f"unknown {what} {name!r}; choose one of: {', '.join(entries)}")
    return entries[name]


class Engine(OneAtATime):
    """A chain of layers that learns; for its numerics see the module.

    layers: tuples of a kind and its arguments, inputs first: ("dense", units, use_bias),
    ("activation", name, param), ("dropout", rate, per_sequence),
    ("layer_norm", epsilon, center, scale), ("batch_norm", epsilon, center, scale, momentum),
    ("normalize",), ("softmax",), ("embedding", entries, units) in front of all others,
    ("add", span): the layer's input and what went into the layer `span` before it, ("scan", cell,
    units, use_bias, sequence, reverse, ways, truncate, rate) behind a dense layer of the cell's
    gates (stages.Scan). `seed` decides what dropout leaves out.

    With `sequences`, x is (n, steps, inputs), or a tuple of that, int64 lengths (n,) or None, and
    perhaps states (n, carried_width), which are read before the first step and overwritten behind
    the last. Where the last layer puts out all steps, outputs and targets are (n, steps, O) and
    labels (n, steps); loss and metrics are means over the steps within the lengths.
    """

    def __init__(
        self,
        inputs: int,
        layers: Sequence[tuple[Any, ...]],
        dtype: str = "float32",
        seed: int = 0,
        sequences: bool = False,
    ):
        super().__init__()
        if dtype not in ("float32", "float64", *_OPERANDS):
            raise ValueError(
                "dtype: expected 'float32', 'float64', 'bfloat16', 'float16' or 'tf32', got "
                f"{dtype!r}"
            )
        if inputs < 1:
            raise ValueError(f"inputs: expected at least 1, got {inputs}")
        if not layers:
            raise ValueError("layers: expected at least one layer, got none")
        self.dtype, self.inputs = "float32" if dtype in _OPERANDS else dtype, inputs
        self._operand = _OPERANDS.get(dtype, as_float64)
        self.loss_scale = new_scale() if dtype == "float16" else None
        self._seed = seed
        builder = Builder(inputs, sequences)
        for entry in layers:
            builder.add(entry)
        self._stages, self.outputs = builder.stages, builder.width
        self._blocks = [stage for stage in self._stages if stage.size]
        self._accumulated: Array | None = None
        self._average: Array | None = None
        self.set_trainable([True] * len(self._stages))
        self._parameters = np.zeros(builder.parameter_count, self.dtype)
        self._state = np.zeros(builder.state_count, self.dtype)
        self.carried_width = carried = builder.carried_width  # values of the states of a sequence
        self._form = Form(self.dtype, inputs, self.outputs, sequences, builder.sequence, carried)
        self._gradients = np.zeros_like(self._parameters)
        self._states: list[Array] = []
        self._rules = Rules({}, self._parameters.size)
        self._loss: Loss | None = None
        self._optimizer: Optimizer | None = None
        self.steps = 0

    @property
    def parameter_shapes(self) -> list[tuple[int, int, int, bool]]:
        """(offset, rows, cols, has_bias) of each layer with parameters.

        Such a layer's block in the flat parameters is a matrix (rows, cols) and behind it, if
        has_bias, a row of cols: kernel and bias of a dense layer.
        """
        return [(s.offset, s.rows, s.cols, s.has_bias) for s in self._blocks]

    @property
    def parameters(self) -> Array:
        """All parameters, flat, live and writable; the same memory each time."""
        return self._parameters

    @property
    def stages(self) -> Sequence[Stage]:
        """The layers, one for each tuple."""
        return self._stages

    @property
    def gradients_(self) -> Array:
        """What gradients() filled, laid out as parameters."""
        return self._gradients

    @property
    def optimizer_state(self) -> list[Array]:
        """The optimizer's slots, laid out as parameters, live and writable.

        Behind them, where the rules want them, the sum of gradients and the parameters' average.
        """
        more = (self._accumulated, self._average)
        return [*self._states, *(array for array in more if array is not None)]

    @property
    def state(self) -> Array:
        """What steps change besides parameters, flat, live and writable."""
        return self._state

    @property
    def state_shapes(self) -> list[tuple[int, int, int]]:
        """(offset, rows, cols) of each layer with state: where its (rows, cols) lie in `state`."""
        return [(s.state_offset, s.state_rows, s.outputs) for s in self._stages if s.state_rows]

    def set_trainable(self, layers: Sequence[bool]) -> None:
        """Says of each layer whether its parameters and its state are trained."""
        if len(layers) != len(self._stages):
            raise ValueError(f"layers: expected {len(self._stages)} values, got {len(layers)}")
        given = zip(self._stages, layers, strict=True)
        self._frozen = frozenset(stage for stage, trained in given if not trained)
        # Indices of the elements that are trained; the padding between blocks stays 0.
        trained = [s for s in self._blocks if s not in self._frozen]
        self._used = np.concatenate(
            [np.arange(s.offset, s.offset + s.size) for s in trained] or [np.arange(0)]
        )
        if self._accumulated is not None:
            self._accumulated[...] = self._trained(self._accumulated)

    def compile(
        self, loss: str | Loss, loss_param: float, optimizer: str, hyper: dict[str, float]
    ) -> None:
        """Chooses loss and optimizer; resets the optimizer's state and the step count.

        A loss that is not one of LOSSES takes targets, and has metrics, as mse.
        """
        loss_entry, name = (loss, "mse") if isinstance(loss, Loss) else (None, loss)
        loss_entry = loss_entry or _find(LOSSES, name, "loss")
        rule = _find(OPTIMIZERS, optimizer, "optimizer")
        self._hyper = rule.complete(hyper, optimizer)
        self._loss, self._loss_name, self._loss_param = loss_entry, name, float(loss_param)
        self._optimizer, self._optimizer_name = rule, optimizer
        self._states = [np.zeros_like(self._parameters) for _ in rule.slots]
        if self.loss_scale is not None:
            self.loss_scale[...] = new_scale()
        self.set_rules({})
        self.steps = 0

    def set_hyper(self, hyper: dict[str, float]) -> None:
        """Changes the hyper-parameters named; states and step count stay."""
        optimizer, _ = self._compiled()
        self._hyper = optimizer.complete(self._hyper | hyper, self._optimizer_name)

    def set_rules(self, rules: dict[str, Any]) -> None:
        """Chooses what else happens to gradients (rules.py); compile() leaves nothing.

        State that was not needed before starts at 0.
        """
        self._compiled()
        self._rules = Rules(rules, self._parameters.size)
        if self._rules.accumulation == 1:
            self._accumulated = None
        elif self._accumulated is None:
            self._accumulated = np.zeros_like(self._parameters)
        if self._rules.momentum is None:
            self._average = None
        elif self._average is None:
            self._average = np.zeros_like(self._parameters)

    @quiet
    def train(
        self,
        x: Rows,
        y: Array,
        batch_size: int,
        epochs: int,
        first_epoch: int,
        shuffle: bool,
        seed: int,
        metrics: Sequence[str],
        position: Array | None = None,
        record: F64 | None = None,
        steps: int = -1,
        outputs: Array | None = None,
        weights: Array | None = None,
    ) -> tuple[F64, F64]:
        """Trains for some epochs; returns each one's loss (epochs,) and metrics (epochs, M).

        Rows go in the order permutation(n, seed, epoch), or as they are; the last batch may be
        smaller. Losses and metrics are those of each batch before its update, weighted by its rows.
        Ctrl-C raises KeyboardInterrupt between two steps.

        A run may stop after `steps` steps (-1: none too many) and be taken up again by another
        call: position int64 (2,) holds the epochs completed and the rows done of the next one,
        record (epochs, 1 + M) their losses and metrics, and in the next one's row the sums so far.
        Both are right after every step. outputs (n, O) gets the outputs of the epoch in its order.
        weights (n,), or (n, t) of outputs at every step, are factors of their losses, and of
        nothing else.
        """
        self._compiled()
        samples = self._form.check_data(
            x, y, self._loss_name, batch_size, metrics, weights, batch_size
        )
        states, samples = samples.states, samples.with_states(None)
        if states is not None and len(samples) % batch_size:
            raise ValueError(
                f"states: expected whole batches of {batch_size}, got {len(samples)} sequences"
            )
        if epochs < 0:
            raise ValueError(f"epochs: expected at least 0, got {epochs}")
        record = np.zeros((epochs, self._width(metrics))) if record is None else record
        where = np.zeros(2, np.int64) if position is None else position
        total = self._total(metrics)
        with interrupts_between_steps() as deliver_interrupt:
            while where[0] < epochs and steps != 0:
                epoch, at = int(where[0]), int(where[1])
                order = np.arange(len(samples))
                if shuffle:
                    order = permutation(len(samples), seed, first_epoch + epoch)
                while at < len(samples) and steps != 0:
                    rows = order[at : at + batch_size]
                    if states is not None and at == 0:
                        states[...] = 0
                    batch = samples[rows].with_states(states)
                    loss, output = self._step(batch, y[rows], _rows_of(weights, rows))
                    total.add(loss, output, y[rows], record[epoch], batch)
                    if outputs is not None:
                        rounded(output, self.dtype, outputs[at : at + len(rows)])
                    at, steps = at + len(rows), steps - 1
                    if at == len(samples):
                        record[epoch] = total.means(record[epoch], at)
                    where[:] = (epoch + 1, 0) if at == len(samples) else (epoch, at)
                    deliver_interrupt()
        return record[:, 0], record[:, 1:]

    @quiet
    def train_batch(
        self,
        x: Rows,
        y: Array,
        metrics: Sequence[str],
        sums: F64,
        outputs: Array | None = None,
        weights: Array | None = None,
    ) -> None:
        """One step as part of an epoch: adds to sums (1 + M,) what train() keeps of a batch."""
        self._compiled()
        samples = self._form.check_data(x, y, self._loss_name, 1, metrics, weights)
        with interrupts_between_steps():
            loss, output = self._step(samples, y, weights)
            self._total(metrics).add(loss, output, y, sums, samples)
            if outputs is not None:
                rounded(output, self.dtype, outputs)

    @quiet
    def step(self, x: Rows, y: Array, weights: Array | None = None) -> float:
        """One step on one batch; returns the loss before the update."""
        self._compiled()
        samples = self._form.check_data(x, y, self._loss_name, weights=weights)
        with interrupts_between_steps():
            return self._step(samples, y, weights)[0]

    @quiet
    @in_turn
    def gradients(self, x: Rows, y: Array, weights: Array | None = None) -> float:
        """Fills gradients_ for one batch, updates nothing; returns the loss."""
        loss, self._gradients[...] = self.flat_gradient(x, y, weights)
        return loss

    @quiet
    @in_turn
    def flat_gradient(self, x: Rows, y: Array, weights: Array | None = None) -> tuple[float, Array]:
        """The loss of one batch and its gradient in a new array, laid out as parameters."""
        self._compiled()
        samples = self._form.check_data(x, y, self._loss_name, weights=weights)
        loss, _, gradient, *_ = self._backward(samples, y, weights)
        gradient += self._rules.penalty_gradient(as_float64(self._parameters))
        return loss, rounded(self._trained(gradient), self.dtype)

    @quiet
    @in_turn
    def trace(self, x: Rows, y: Array) -> tuple[float, Array, Pass]:
        """Loss and flat gradient of one batch as gradients() has them, and the pass, which holds
        every layer's input and output and the loss's gradient by them."""
        samples = self._form.check_data(x, y, self._loss_name)
        loss, _, gradient, _, run, _ = self._backward(samples, y, None)
        gradient += self._rules.penalty_gradient(as_float64(self._parameters))
        return loss, self._trained(gradient), run

    @quiet
    @in_turn
    def input_gradient(
        self, x: Rows, y: Array, weights: Array | None = None
    ) -> tuple[float, Array]:
        """The loss of one batch and its gradient with respect to x."""
        self._compiled()
        samples = self._form.check_data(x, y, self._loss_name, weights=weights)
        loss, _, _, dx, *_ = self._backward(samples, y, weights)
        return loss, rounded(dx, self.dtype)

    @quiet
    @in_turn
    def evaluate(
        self,
        x: Rows,
        y: Array,
        batch_size: int,
        metrics: Sequence[str],
        outputs: Array | None = None,
        weights: Array | None = None,
    ) -> tuple[float, list[float]]:
        """Loss and metrics over all rows, by batches; fills outputs (n, O) too if it is given."""
        self._compiled()
        samples = self._form.check_data(x, y, self._loss_name, batch_size, metrics, weights)
        total, sums, counted = self._total(metrics), np.zeros(self._width(metrics)), 0
        for start in range(0, len(samples), batch_size):
            rows = slice(start, start + batch_size)
            batch = samples[rows]
            output = self._output(batch)
            here = int(batch.counts(output).sum())
            loss, _ = self._loss_and_gradient(output, y[rows], batch, _rows_of(weights, rows))
            total.add(loss, output, y[rows], sums, batch, here)
            counted += here
            if outputs is not None:
                rounded(output, self.dtype, outputs[rows])
        loss, *values = total.means(sums, counted).tolist()
        return loss + self._penalty(), values

    @quiet
    @in_turn
    def predict(self, x: Rows, out: Array, training: bool = False) -> None:
        """Writes the network's output for the rows of x to out (n, outputs).

        With `training`, as the next step would see the rows as one batch.
        """
        samples = self._form.check_rows(x)
        self._form.check_array("out", out, len(samples), *self._form.output_shape(samples))
        if training:
            run = self._pass(samples, training=True)
            rounded(self._forward(samples, run)[-1], self.dtype, out)
            self._keep_states(samples, run)
            return
        for start in range(0, len(samples), _PREDICT_ROWS):
            rows = slice(start, start + _PREDICT_ROWS)
            rounded(self._output(samples[rows]), self.dtype, out[rows])

    def _pass(self, x: Samples, training: bool) -> Pass:
        flat = as_float64(self._parameters)
        state = as_float64(self._state)
        settings = self._frozen, self._operand, training, self._seed, self.steps + 1
        behind = np.zeros((len(x), self.carried_width))
        before = behind.copy() if x.states is None else as_float64(x.states)
        return Pass(flat, state, *settings, x.lengths, before, behind)

    def _keep_states(self, x: Samples, run: Pass) -> None:
        if x.states is not None:
            rounded(run.behind, self.dtype, x.states)

    def _forward(self, x: Samples, run: Pass) -> list[F64]:
        """The values of x and the output of every layer after it."""
        run.values.append(x.values())
        for stage in self._stages:
            run.values.append(stage.forward(run.values[-1], run))
        return run.values

    def _output(self, x: Samples) -> F64:
        """The network's output where nothing is trained."""
        run = self._pass(x, training=False)
        output = self._forward(x, run)[-1]
        self._keep_states(x, run)
        return output

    def _loss_and_gradient(
        self, output: F64, y: Array, x: Samples, weights: Array | None
    ) -> tuple[float, F64]:
        """The loss of one batch and its gradient with respect to the output."""
        rows, target = by_rows(output, y)
        _, loss = self._compiled()
        target = target if target.ndim == 1 else as_float64(target)
        factors = None if weights is None else as_float64(weights).reshape(-1)
        counts, d = x.counts(output), np.zeros_like(rows)
        value, d[counts] = loss.value_and_gradient(
            rows[counts],
            target[counts],
            self._loss_param,
            np.dtype(self.dtype),
            None if factors is None else factors[counts],
        )
        return value, d.reshape(output.shape)

    def _penalty(self) -> float:
        """What the rules add to the loss."""
        return self._rules.penalty(self._trained(as_float64(self._parameters)))

    def _trained(self, flat: Array) -> Array:
        """A flat array with 0 where parameters are frozen."""
        trained = np.zeros_like(flat)
        trained[self._used] = flat[self._used]
        return trained

    def _backward(
        self, x: Samples, y: Array, weights: Array | None
    ) -> tuple[float, F64, F64, F64, Pass, F64]:
        """Loss with penalty, output, flat gradient, input gradient, pass and state after a step.

        Backwards through the layers, d is the gradient with respect to the layer's output, then to
        its input. The parameter gradient is without the penalty's.
        """
        run = self._pass(x, training=True)
        values = self._forward(x, run)
        loss, d = self._loss_and_gradient(values[-1], y, x, weights)
        loss += self._penalty()
        scale = 1.0 if self.loss_scale is None else float(self.loss_scale[0])
        run.gradients[len(self._stages)] = d = d * scale
        gradient, state = np.zeros_like(run.parameters), run.state.copy()
        for place in reversed(range(len(self._stages))):
            stage, v = self._stages[place], values[place]
            run.through[place] = stage.backward(v, d, run, gradient)
            run.gradients[place] = d = run.through[place] + run.joined.get(place, 0.0)
            stage.update_state(v, run, state)
        return loss, values[-1], gradient / scale, d / scale, run, state

    @in_turn
    def _step(self, x: Samples, y: Array, weights: Array | None) -> tuple[float, F64]:
        """Forward, backward, update; everything is computed before anything is written."""
        loss, output, gradient, _, run, state = self._backward(x, y, weights)
        gradient, count = self._trained(gradient), self._rules.accumulation
        if self._accumulated is not None:
            if self.steps % count:
                gradient += as_float64(self._accumulated)
            rounded(gradient, self.dtype, self._accumulated)
        finite = self.loss_scale is None or bool(np.isfinite(gradient).all())
        if (self.steps + 1) % count == 0:
            if finite:
                self._update(gradient / count)
            if self.loss_scale is not None:
                next_scale(self.loss_scale, finite)
        if finite:
            rounded(state, self.dtype, self._state)
        self._keep_states(x, run)
        self.steps += 1
        return loss, output

    def _update(self, gradient: F64) -> None:
        """Penalties, limits, the optimizer's formula, the average of the parameters."""
        optimizer, _ = self._compiled()
        rules, used = self._rules, self._used
        t = rules.update_of(self.steps + 1)
        if self.loss_scale is not None:
            t -= int(self.loss_scale[2])
        flat = as_float64(self._parameters)
        gradient = rules.limit(self._trained(gradient + rules.penalty_gradient(flat)))
        # An array of rates, one for each parameter, goes through the formulas as a number does.
        rate: Any = rules.rate(t, self._hyper["learning_rate"]) * rules.rates[used]
        states = [as_float64(s[used]) for s in self._states]
        hyper = self._hyper | {"learning_rate": rate}
        flat[used], states = optimizer.update(flat[used], gradient[used], states, hyper, t)
        w = rules.limit_columns(flat, used)[used]
        for array, value in zip((self._parameters, *self._states), (w, *states), strict=True):
            array[used] = rounded(value, self.dtype)
        if self._average is not None:
            average = rules.average(as_float64(self._average), as_float64(self._parameters), t)
            rounded(average, self.dtype, self._average)

    def _total(self, metrics: Sequence[str]) -> Total:
        return Total(self._loss_name, self.dtype, self.outputs, metrics)

    def _width(self, metrics: Sequence[str]) -> int:
        """Of a record of the loss and these metrics."""
        return 1 + sum(width(name, self.outputs) for name in metrics)

    def _compiled(self) -> tuple[Optimizer, Loss]:
        if self._optimizer is None or self._loss is None:
            raise ValueError("the engine has no loss and optimizer yet: call compile() first")
        return self._optimizer, self._loss


def _rows_of(weights: Array | None, rows: Any) -> Array | None:
    """The weights of some rows, where there are any."""
    return None if weights is None else weights[rows]
