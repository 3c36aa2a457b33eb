"""fit: the loop around the engine's epochs."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _core, checks, progress
from . import callbacks as hooks
from .arrays import Array
from .callbacks import Callback
from .history import History

if TYPE_CHECKING:
    from .model import Sequential

# Seconds that one call of the engine aims at where nobody watches single epochs: long beside the
# cost of a call (about 5 us), short beside what Ctrl-C may lose of the history or a bar may stand
# still.
SLICE = 0.05
MAX_EPOCHS = 2**32  # the epoch is a 32-bit word of the generator's counter


class Job(NamedTuple):
    """What one call of fit trains on, checked."""

    x: Array
    y: Array
    validation: tuple[Array, Array] | None
    epochs: int
    batch_size: int
    shuffle: bool

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return -(-len(self.x) // self.batch_size)


def fit(
    model: Sequential,
    x: Any,
    y: Any,
    *,
    epochs: int,
    batch_size: int,
    validation_split: float,
    validation_data: tuple[Any, Any] | None,
    shuffle: bool,
    verbose: str | int,
    callbacks: Iterable[Callback] | Callback | None,
) -> History:
    """Sequential.fit; see there."""
    model._require_compiled()
    verbose = progress.check_verbose(verbose)
    watchers = hooks.get(callbacks)
    epochs = checks.integer("epochs", epochs, 0, MAX_EPOCHS - model.epochs_trained)
    batch_size = checks.integer("batch_size", batch_size)
    shuffle = checks.boolean("shuffle", shuffle)
    parts = _data(model, x, y, validation_split, validation_data)
    job = Job(*parts, epochs, batch_size, shuffle)
    engine = model._engine or model._build(job.x.shape[1])
    history = History(
        {"epochs": epochs, "batch_size": batch_size, "steps": job.steps, "samples": len(job.x)}
    )
    model.history, model.stop_training = history, False
    display = progress.make(verbose, epochs)
    try:
        _run(model, engine, job, history, watchers, display)
    finally:
        display.close()
    return history


def _data(
    model: Sequential, x: Any, y: Any, split: float, validation_data: Any
) -> tuple[Array, Array, tuple[Array, Array] | None]:
    """Training and validation rows; a split comes off the end, before any shuffling."""
    compiled = model._require_compiled()
    split = checks.real("validation_split", split, 0, 1, open_high=True)
    if validation_data is not None:
        if split:
            raise ValueError("give validation_split or validation_data, not both")
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
            raise TypeError("validation_data must be a pair (X, y)")
    x, y = model._check_rows(x, y, compiled)
    if validation_data is not None:
        names = ("validation_data[0]", "validation_data[1]")
        xv, yv = validation_data
        return x, y, model._check_rows(xv, yv, compiled, names, width=x.shape[1])
    if not split:
        return x, y, None
    kept = math.floor(len(x) * (1 - split) + 1e-9)  # 10 * (1 - 0.9) is a little below 1
    if not 0 < kept < len(x):
        raise ValueError(
            f"validation_split={split:g} of {len(x)} rows leaves {kept} to train and "
            f"{len(x) - kept} to validate; both need at least one"
        )
    return x[:kept], y[:kept], (x[kept:], y[kept:])


def _run(
    model: Sequential,
    engine: _core.Engine,
    job: Job,
    history: History,
    watchers: list[Callback],
    display: progress.Progress,
) -> None:
    for watcher in watchers:
        watcher.set_model(model)
        watcher.set_params(history.params)
        watcher.on_train_begin()
    each_epoch = bool(watchers) or job.validation is not None
    logs: dict[str, float] = {}
    done, size = 0, 1
    while done < job.epochs and not model.stop_training:
        for watcher in watchers:
            watcher.on_epoch_begin(done)
        start = time.perf_counter()
        records = _train(model, engine, job, min(size, job.epochs - done))
        for logs in records:
            if job.validation is not None:
                logs.update(_validate(model, engine, job.validation))
            _warn_once(history, logs, done)
            history.append(done, logs)
            done += 1
            display.update(done, logs)
        for watcher in watchers:
            watcher.on_epoch_end(done - 1, dict(logs))
        if not each_epoch:
            epoch = (time.perf_counter() - start) / len(records)
            size = max(1, min(int(SLICE / epoch), 8 * size))
    for watcher in watchers:
        watcher.on_train_end(dict(logs))


def _train(
    model: Sequential, engine: _core.Engine, job: Job, epochs: int
) -> list[dict[str, float]]:
    """The next epochs in one call of the engine; their logs. Counts them, also if interrupted."""
    names = model._require_compiled().metrics
    model._sync_optimizer(engine)
    before = engine.steps
    try:
        losses, values = engine.train(
            job.x, job.y, job.batch_size, epochs, model._epochs, job.shuffle, model.seed, names
        )
    finally:
        model._epochs += (engine.steps - before) // job.steps
    return [
        {"loss": loss, **dict(zip(names, row, strict=True))}
        for loss, row in zip(losses.tolist(), values.tolist(), strict=True)
    ]


def _validate(
    model: Sequential, engine: _core.Engine, data: tuple[Array, Array]
) -> dict[str, float]:
    from .model import EVALUATION_BATCH

    names = model._require_compiled().metrics
    loss, values = engine.evaluate(*data, EVALUATION_BATCH, names)
    return {
        "val_loss": loss,
        **{f"val_{name}": value for name, value in zip(names, values, strict=True)},
    }


def _warn_once(history: History, logs: dict[str, float], epoch: int) -> None:
    """Warns in the first epoch whose loss is not finite: what follows is lost."""
    if not math.isfinite(logs["loss"]) and all(map(math.isfinite, history.history.get("loss", []))):
        warnings.warn(
            f"the loss is {logs['loss']} in epoch {epoch + 1}: training has diverged; lower the "
            "learning rate or scale the data",
            RuntimeWarning,
            stacklevel=5,
        )
