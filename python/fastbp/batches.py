"""Sources whose batches are made in Python: gathered, augmented, or taken from an iterator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core, arrays, checks
from .arrays import Array
from .errors import describe
from .holdout import Rows
from .lazy import for_engine
from .sequences import Sequences
from .sources import ArraySource

if TYPE_CHECKING:
    from .runs import Run

Augment = Callable[[Array, "np.random.Generator"], Any]  # which takes 10 ms to import


class Augmenter:
    """A function of the user that changes the inputs of each batch of training.

    Its random numbers follow from the seed, the epoch and the batch alone, so that a resumed run
    draws the same.
    """

    def __init__(self, function: Augment, seed: int, check: Callable[[Any, str], Any]) -> None:
        """`check`: what of rows, and what they are called, makes the model's, or raises."""
        if not callable(function):
            raise TypeError(f"augment must be a function of (x, rng); got {describe(function)}")
        self._function, self._seed, self._check = function, seed, check

    def __call__(self, x: Any, run: Run) -> Any:
        epoch = run.first_epoch + run.epoch
        bits = np.random.Philox(key=self._seed, counter=[0, 0, run.batch, epoch])
        values = x.values if isinstance(x, Sequences) else x
        made = self._function(values.copy(), np.random.Generator(bits))
        name = "what augment returned"
        if isinstance(x, Sequences):
            made = arrays.as_numbers(name, made)
            if made.shape != x.shape:
                raise ValueError(f"augment returned shape {made.shape} for sequences of {x.shape}")
            made = x.like(made)
        ready = self._check(made, name)
        if len(ready) != len(x):
            raise ValueError(f"augment returned {len(ready)} rows for {len(x)}")
        return ready


class GatherSource(ArraySource):
    """Rows that are gathered in Python for each step, and augmented if asked."""

    native = False

    def __init__(
        self,
        data: Rows,
        batch_size: int,
        shuffle: bool,
        seed: int,
        augment: Augmenter | None,
    ) -> None:
        super().__init__(data, batch_size, shuffle, seed)
        self._augment = augment
        self._kept: tuple[int, Array] | None = None  # an epoch and its order

    def train(self, engine: _core.Engine, run: Run, steps: int) -> None:
        for _ in range(min(steps, self.steps - run.batch)):
            run.interrupts.deliver()
            rows = self._order(run)[run.batch * self.batch_size :][: self.batch_size]
            take_step(engine, run, augmented(self.data.part(rows), run, self._augment))

    def _order(self, run: Run) -> Array:
        epoch = run.first_epoch + run.epoch
        if self._kept is None or self._kept[0] != epoch:
            self._kept = epoch, super()._order(run)
        return self._kept[1]


def rows_source(
    data: Rows, batch_size: int, shuffle: bool, seed: int, augment: Augmenter | None
) -> ArraySource:
    """The source of rows: with `augment`, or where the engine cannot read them, made in Python."""
    if augment is None and for_engine(data.x) is not None:
        return ArraySource(data, batch_size, shuffle, seed)
    return GatherSource(data, batch_size, shuffle, seed, augment)


def augmented(batch: Rows, run: Run, augment: Augmenter | None) -> Rows:
    """The batch of the run's next step as it is trained on."""
    if augment is None:
        return batch
    here = batch.at_hand()  # the function is one on arrays of the host
    return here._replace(x=augment(here.x, run))


def take_step(engine: _core.Engine, run: Run, batch: Rows) -> None:
    """One step on one batch, as a part of the run's epoch."""
    x, y, weights = batch
    end = run.seen + len(x)
    outputs = None if run.outputs is None else run.outputs[run.seen : end]
    engine.train_batch(x, y, run.settings.names, run.sums, outputs=outputs, weights=weights)
    run.batch, run.seen = run.batch + 1, end
    if run.batch == run.settings.steps:
        run.complete()


class IteratorSource:
    """Batches (x, y) or (x, y, sample_weight) of an iterator, `steps` to an epoch.

    With `steps` given the batches are taken on and on, beginning again where an iterable ends;
    otherwise an iterable that knows its length is gone through once an epoch. A resumed run draws
    the batches that were used, and drops them.
    """

    native = False
    rows = None

    def __init__(
        self,
        batches: Any,
        steps: int | None,
        check: Callable[..., Rows],
        augment: Augmenter | None,
    ) -> None:
        self._batches, self._check, self._augment = batches, check, augment
        if steps is None and not hasattr(batches, "__len__"):
            raise ValueError(
                f"X is a {type(batches).__name__}, which does not say how many batches it has: "
                "give steps_per_epoch"
            )
        if steps is None and len(batches) == 0:
            raise ValueError("X has no batches, and no rows")
        self._each_epoch = steps is None
        self.steps = checks.integer("steps_per_epoch", len(batches) if steps is None else steps)
        self._iterator: Iterator[Any] = iter(batches)
        self._drawn = 0
        self._used = False
        self.first = self._waiting = self._next()  # tells the number of columns

    def _next(self) -> Rows:
        try:
            batch = next(self._iterator)
        except StopIteration:
            if self._each_epoch and self._drawn:
                raise ValueError(
                    f"X says that it has {self.steps} batches, but ended after {self._drawn}"
                ) from None
            self._iterator = iter(self._batches)
            batch = next(self._iterator, None)
            if batch is None:
                raise ValueError(
                    f"X ended after {self._drawn} batches: a generator cannot begin again. Give a "
                    "list, an object with __iter__, or smaller steps_per_epoch and epochs"
                ) from None
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise TypeError(
                "X must give pairs (x, y) or triples (x, y, sample_weight); got "
                f"{describe(batch)}. Rows are fitted with y: fit(X, y)"
            )
        self._drawn += 1
        return self._check(*batch)

    def train(self, engine: _core.Engine, run: Run, steps: int) -> None:
        """The next steps of the present epoch, at most to its end."""
        for _ in range(min(steps, self.steps - run.batch)):
            run.interrupts.deliver()
            self.last = augmented(self._batch_of(run), run, self._augment)
            take_step(engine, run, self.last)

    def _batch_of(self, run: Run) -> Rows:
        """The batch of the run's next step; those before it are drawn and dropped."""
        wanted = run.batch if self._each_epoch else run.steps_done
        if self._each_epoch and wanted == 0 and self._used:
            self._iterator, self._drawn = iter(self._batches), 0
        self._used = True
        while self._drawn <= wanted:
            self._waiting = self._next()
        return self._waiting

    def last_batch(self, run: Run) -> Rows:
        """The batch of the last step."""
        return self.last

    def fingerprint(self) -> int:
        """Nothing is known of batches that have not been drawn."""
        return 0


def is_batches(x: Any, y: Any) -> bool:
    """Whether X gives batches rather than rows: one after the other, or by their numbers."""
    if y is not None or hasattr(x, "shape"):
        return False
    return hasattr(x, "__iter__") or (hasattr(x, "__getitem__") and hasattr(x, "__len__"))
