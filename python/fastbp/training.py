"""fit: checks, then the loop around the engine's epochs."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _core, carried, checks, holdout, progress
from .arrays import Array
from .batches import Augment, Augmenter, IteratorSource, is_batches, rows_source
from .callbacks.base import Callback
from .callbacks.base import get as callback_list
from .callbacks.hooks import Hooks
from .evaluation import all_metrics, evaluate, gradient_norms, measures_of, outputs_of_all
from .history import History
from .lazy import EVALUATION_BATCH, LazyRows
from .resume import prepare, require_callbacks, require_same_run, restore
from .runs import Place, Run, Settings, log_names
from .sources import ArraySource
from .weights import ClassWeight

if TYPE_CHECKING:
    from .model import Sequential

# Seconds that one call of the engine aims at where nobody watches single batches: long beside the
# cost of a call (about 5 us), short beside what a bar may stand still.
SLICE = 0.05
MAX_EPOCHS = 2**32  # the epoch is a 32-bit word of the generator's counter


class Job(NamedTuple):
    """What one call of fit trains on, checked."""

    source: ArraySource | IteratorSource
    validation: holdout.Rows | None
    epochs: int
    gradient_norms: bool


class Ready(NamedTuple):
    """A call of fit whose arguments are checked; nothing has changed yet."""

    model: Sequential
    begun: Sequential  # the model, or the one of the file that a run goes on with
    kind: type[Fit]
    job: Job
    run: Run
    hooks: Hooks
    inputs: int
    verbose: str | int
    state: dict[str, Any] | None  # of the run to go on with

    def train(self) -> History:
        """Does what fit does; see Sequential.fit."""
        return self.model._turns.training(self._train)

    def _train(self) -> History:
        model, job, run, state = self.model, self.job, self.run, self.state
        with model._turns.pieces:
            model._take_over(self.begun)
            engine = model._engine or model._build(self.inputs)
            if state is None:
                run.first_epoch, run.first_step = model.epochs_trained, engine.steps
            model.history, model._run = run.history, run
            if run.states is not None:
                model._carried = run.states
            model.stop_training = state is not None and bool(state["stop_training"])
        working = self.kind.working_engine(model)
        display = progress.make(self.verbose, job.epochs)
        try:
            _hold(working, job.source, job.validation)
            self.kind(model, working, job, run, self.hooks, display).run_to_end(state)
        finally:
            display.close()
            run.interrupts.remove()
            if hasattr(working, "release"):
                working.release()
        return run.history


def ready(
    model: Sequential,
    x: Any,
    y: Any,
    *,
    epochs: int,
    batch_size: int,
    validation_split: float,
    validation_data: tuple[Any, ...] | None,
    stratify: bool,
    sample_weight: Any,
    class_weight: ClassWeight,
    shuffle: bool,
    verbose: str | int,
    callbacks: Iterable[Callback] | Callback | None,
    gradient_norms: bool,
    resume: str | os.PathLike[str] | bool | None,
    augment: Augment | None,
    steps_per_epoch: int | None,
    tol: float | None,
    patience: int | None,
) -> Ready:
    """The checks of Sequential.fit; see there for the arguments."""
    model._turns.require_idle("fit")
    compiled = model._require_compiled()
    verbose = progress.check_verbose(verbose)
    hooks = Hooks([*callback_list(callbacks), *_convergence(tol, patience)])
    epochs = checks.integer("epochs", epochs, 0, MAX_EPOCHS - model.epochs_trained)
    batch_size = checks.batch_size(batch_size)
    shuffle = checks.boolean("shuffle", shuffle)
    wants_norms = checks.boolean("gradient_norms", gradient_norms)
    by_steps = compiled.optimizer.by_steps
    if not by_steps and resume not in (None, False):
        raise ValueError(f"{type(compiled.optimizer).__name__} cannot resume: it keeps no state")
    kind = Fit if by_steps else _whole_batch_fit(model)
    begun, state = prepare(model, resume) if resume not in (None, False) else (model, None)
    changes = None if augment is None else Augmenter(augment, begun.seed, begun._features)
    source: ArraySource | IteratorSource
    if is_batches(x, y):
        if validation_split or stratify:
            raise ValueError("validation_split needs rows; with batches give validation_data")
        carried.require_rows(begun)
        check = _batch_check(begun, by_steps, sample_weight, class_weight)
        source = IteratorSource(x, steps_per_epoch, check, changes)
        inputs, rows, size = source.first.x.shape[-1], None, None
        validation = holdout.validation(begun, validation_data, inputs)
    else:
        if steps_per_epoch is not None:
            raise ValueError("steps_per_epoch is about batches of an iterator; X has rows")
        given = holdout.Given(x, y, sample_weight, class_weight)
        data, validation = holdout.split(begun, given, validation_split, validation_data, stratify)
        if not by_steps:
            data, batch_size, shuffle = _whole_batch(data, changes), len(data.x), False
        x = carried.begin_run(begun, data.x, batch_size, shuffle, changes is not None)
        source = rows_source(data._replace(x=x), batch_size, shuffle, begun.seed, changes)
        inputs, rows, size = x.shape[-1], len(x), batch_size
    hooks.check(log_names(compiled.metrics, validation is not None, ["learning_rate"]))

    mean = not compiled.loss.traits.sums
    measures = measures_of(begun, inputs)
    settings = Settings(rows, size, source.steps, shuffle, measures.engine, mean)
    history = History(
        {"epochs": epochs, "batch_size": size, "steps": source.steps, "samples": rows}
    )
    run = Run(settings, measures, history, list(hooks.callbacks), source.fingerprint)
    run.outputs = None if rows is None else outputs_of_all(begun, measures, inputs, x)
    run.states = None if rows is None else getattr(x, "states", None)
    if state is not None:
        require_same_run(run, state)
        require_callbacks(begun, run, state)
        restore(run, state)
    job = Job(source, validation, epochs, wants_norms)
    return Ready(model, begun, kind, job, run, hooks, inputs, verbose, state)


def _hold(engine: Any, source: Any, validation: holdout.Rows | None) -> None:
    """Copies the rows to a device with memory of its own, once for the whole run."""
    if not hasattr(engine, "hold"):
        return
    data = source.data if source.native else None
    for rows in (data, validation):
        if rows is not None and not isinstance(rows.x, LazyRows):
            engine.hold(rows.x, rows.y, rows.weights)


def _convergence(tol: float | None, patience: int | None) -> list[Callback]:
    """The callback that ends fit when the loss stands still, if that is asked for."""
    if tol is None:
        if patience is not None:
            raise ValueError("patience goes with tol: give both, or EarlyStopping(patience=...)")
        return []
    from .callbacks.monitored import Convergence

    return [Convergence(tol) if patience is None else Convergence(tol, patience)]


def _batch_check(
    model: Sequential, by_steps: bool, sample_weight: Any, class_weight: ClassWeight
) -> Callable[..., holdout.Rows]:
    """What checks each batch of an iterator; raises ValueError for what does not go with one."""
    if not by_steps:
        raise ValueError("this optimizer needs all rows at once; X gives batches")
    if sample_weight is not None:
        raise ValueError(
            "sample_weight belongs to rows; X gives batches: let it give (x, y, sample_weight)"
        )
    if isinstance(class_weight, str):
        raise ValueError(
            f"class_weight={class_weight!r} needs all rows; X gives batches: give a dict"
        )

    def check(x: Any, y: Any, weights: Any = None) -> holdout.Rows:
        compiled = model._require_compiled()
        x, y = model._check_rows(x, y, compiled, ("a batch's x", "its y"))
        return holdout.Rows(x, y, model._weights(x, y, weights, class_weight))

    return check


def _whole_batch(data: holdout.Rows, augment: Augmenter | None) -> holdout.Rows:
    """The rows as one array."""
    if augment is not None:
        raise ValueError("augment changes batches, but this optimizer takes all rows at once")
    return data.part(slice(None))


def _whole_batch_fit(model: Sequential) -> type[Fit]:
    from .lbfgs import WholeBatchFit, minimizer, require_same_loss

    minimizer()  # or there is no SciPy
    require_same_loss(model.layers)
    return WholeBatchFit


class _Pace:
    """How many steps, or epochs, a call of the engine should take: SLICE seconds' worth."""

    def __init__(self, seconds: float | None = None) -> None:
        """With what one is likely to take, where that is known."""
        self.size = max(1, int(SLICE / max(seconds, 1e-9))) if seconds is not None else 1

    def observe(self, done: int, seconds: float) -> None:
        """So many took so long."""
        self.size = max(1, min(int(SLICE * done / max(seconds, 1e-9)), 8 * self.size))


class Fit:
    """One call of fit in progress."""

    def __init__(
        self,
        model: Sequential,
        engine: _core.Engine,
        job: Job,
        run: Run,
        hooks: Hooks,
        display: progress.Progress,
    ) -> None:
        self.model, self.engine, self.job = model, engine, job
        self.run, self.hooks, self.display = run, hooks, display
        known, rows = model._seconds_per_row, run.settings.samples
        self._epoch_pace = _Pace(None if known is None or rows is None else known * rows)
        self._step_pace = _Pace()
        self._stages = {
            "epoch_begin": self._epoch_begin,
            "batch_begin": self._batch_begin,
            "batch_end": self._batch_end,
            "validate": self._validate,
            "epoch_end": self._epoch_end,
        }
        # Whether nobody wants anything between two epochs.
        watched = hooks.callbacks or job.validation or job.gradient_norms
        self._plain = not watched and run.outputs is None and job.source.native

    @staticmethod
    def working_engine(model: Sequential) -> _core.Engine:
        """The engine that takes the steps: the model's."""
        return model._require_built()

    def run_to_end(self, state: dict[str, Any] | None) -> None:
        """All epochs, unless a callback stops before; History.stop_reason says why it ended.

        `state` is what a run that goes on was stopped with.
        """
        history = self.run.history
        self.run.running = True
        self.run.interrupts.install()
        try:
            self._train_begin(state)
            self._work()
            if history.stop_reason is None:
                history.stop_reason = "stop_training" if self.model.stop_training else "epochs"
            self.hooks.call("on_train_end", self._place(), dict(self.run.logs))
        except KeyboardInterrupt:
            history.stop_reason = "interrupted"
            raise
        except BaseException as error:
            if history.stop_reason is None:
                history.stop_reason = type(error).__name__
            raise
        finally:
            self.run.running = False

    def _work(self) -> None:
        while not self._ended():
            self.run.interrupts.deliver()
            if self._whole_epochs():
                with self.model._turns.pieces:
                    self._epochs()
            elif self.run.stage == "batch":
                with self.model._turns.pieces:
                    self._batch()
            else:
                self._stages[self.run.stage]()

    def _train_begin(self, state: dict[str, Any] | None) -> None:
        for callback in self.hooks.callbacks:
            callback.set_model(self.model)
            callback.set_params(self.run.history.params)
        optimizer = self.model.optimizer
        hyper = optimizer.config()
        begin = Place()  # not to be interrupted before the callbacks have their state
        begin.failed = self.run.failed  # type: ignore[method-assign]
        self.hooks.call("on_train_begin", begin, {})
        if state is not None:
            for name, value in hyper.items():  # on_train_begin has had its effect in the first run
                if getattr(optimizer, name) != value:
                    setattr(optimizer, name, value)
            for callback, (_, kept) in zip(self.hooks.callbacks, state["callbacks"], strict=True):
                callback.load_state(kept)

    def _place(self) -> Place:
        """For hooks that a resumed run does not go on behind."""
        place = Place(self.run.interrupts)
        place.failed = self.run.failed  # type: ignore[method-assign]
        return place

    def _ended(self) -> bool:
        """Between two steps: is the run complete, or stopped where it may be?"""
        if self.run.stage not in ("epoch_begin", "batch_begin"):
            return False
        return self.run.epoch >= self.job.epochs or self.model.stop_training

    def _whole_epochs(self) -> bool:
        """Whether nobody wants to see anything within the next epoch, nor between it and others."""
        if not self._plain or self.run.stage != "epoch_begin":
            return False
        return not self.display.live or self._step_pace.size >= self.run.settings.steps

    def _epochs(self) -> None:
        """Whole epochs in one call, where nobody watches single ones."""
        run = self.run
        epochs = min(self._epoch_pace.size, self.job.epochs - run.epoch)
        self.model._sync_optimizer(self.engine, epochs * run.settings.steps)
        steps = self.engine.steps
        completed: list[Array] = []
        start = time.perf_counter()
        try:
            assert isinstance(self.job.source, ArraySource)
            self.job.source.train_epochs(self.engine, run, epochs, completed)
        finally:
            for values in run.measures.named(np.array(completed)) if completed else ():
                steps += run.settings.steps
                self._record(values, steps)
                self.display.update(run.epoch + 1, progress.shown(run.logs))
                run.epoch += 1
            self.model._epochs = run.first_epoch + run.epochs_trained
        seconds = time.perf_counter() - start
        self._epoch_pace.observe(epochs, seconds)
        self.model._seconds_per_row = seconds / (epochs * self.job.source.rows)

    def _epoch_begin(self) -> None:
        self.hooks.call("on_epoch_begin", self.run, self.run.epoch, {})
        self.run.stage = "batch_begin"

    def _batch_begin(self) -> None:
        self.hooks.call("on_train_batch_begin", self.run, self.run.batch, {})
        self.run.stage = "batch"

    def _batch(self) -> None:
        """One call of the engine: as many steps of the epoch as nobody wants to see apart."""
        run = self.run
        steps = run.settings.steps - run.batch
        due = self.hooks.steps_to_next(run.steps_done)
        if due is not None:
            steps = min(steps, due)
        if self.display.live:
            steps = min(steps, self._step_pace.size)
        self.model._sync_optimizer(self.engine, steps)
        before, start = run.batch, time.perf_counter()
        try:
            self.job.source.train(self.engine, run, steps)
        finally:
            self.model._epochs = run.first_epoch + run.epochs_trained
            if run.batch > before:
                run.stage = "batch_end"
        self._step_pace.observe(steps, time.perf_counter() - start)

    def _batch_end(self) -> None:
        run = self.run
        complete = run.batch == run.settings.steps
        if self.hooks.has("on_train_batch_end"):
            self.hooks.call("on_train_batch_end", run, run.batch - 1, run.means())
        if self.display.live and not complete:
            share = run.batch / run.settings.steps
            self.display.advance(run.epoch, share, progress.shown(run.means()))
        run.stage = "validate" if complete else "batch_begin"

    def _validate(self) -> None:
        """What is measured when the steps of an epoch are done; then the epoch is recorded."""
        run, job = self.run, self.job
        logs = run.means()
        if run.outputs is not None and isinstance(job.source, ArraySource):
            targets, lengths = job.source.targets(run), job.source.lengths(run)
            logs = all_metrics(self.model, run.measures, logs, targets, run.outputs, lengths)
        if job.validation is not None:
            data, size = job.validation, EVALUATION_BATCH
            place = self._place()
            measured = evaluate(self.model, self.engine, data, size, self.hooks, place)
            logs.update({f"val_{name}": value for name, value in measured.items()})
        norms: dict[str, float] = {}
        if job.gradient_norms:
            batch = job.source.last_batch(run)
            norms = gradient_norms(self.model, self.engine, batch)
        with self.model._turns.pieces:
            self._record(logs, self.engine.steps, norms)
            run.stage = "epoch_end"

    def _epoch_end(self) -> None:
        run = self.run
        if self.hooks.callbacks:
            self.hooks.call("on_epoch_end", run, run.epoch, run.logs)
        with self.model._turns.pieces:
            if self.hooks.callbacks:
                run.history.amend(run.logs)
            self.display.update(run.epoch + 1, progress.shown(run.logs))
            run.next_epoch()

    def _record(
        self, logs: dict[str, float], steps: int, norms: dict[str, float] | None = None
    ) -> None:
        """Keeps what an epoch came to, which ended with the engine's step number `steps`."""
        run, optimizer = self.run, self.model.optimizer
        updates = steps // optimizer.gradient_accumulation_steps
        logs["learning_rate"] = optimizer.rate(max(updates - 1, 0))
        logs.update(norms or {})
        if not math.isfinite(logs["loss"]) and not run.history.diverged():
            warnings.warn(
                f"the loss is {logs['loss']} in epoch {run.epoch + 1}: training has diverged; "
                "lower the learning rate or scale the data",
                RuntimeWarning,
                stacklevel=9,  # whoever called fit
            )
        run.history.append(run.epoch, logs)
        run.logs = logs
