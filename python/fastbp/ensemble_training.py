"""Ensemble.fit: each member's own fit, several at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core, holdout, progress
from . import callbacks as hook_objects
from .arrays import Array, is_on_device
from .batches import is_batches
from .callbacks import Callback, CSVLogger, ModelCheckpoint, TensorBoard
from .embedding import Embedding
from .errors import MemberError, describe
from .history import History
from .lazy import LazyRows
from .pool import Futures, InTurn, Pool, began, failure
from .resume import capture
from .sequences import regular_shape, with_lengths
from .structure import Masking, Reshape
from .training import Ready, ready
from .weights import samples

if TYPE_CHECKING:
    from .ensemble import Ensemble
    from .model import Sequential

Several = Iterable[Callback] | Callback | None
Callbacks = Several | Callable[[int], Several]

WRITERS = (CSVLogger, ModelCheckpoint, TensorBoard)
BOOTSTRAP = 0x6261677367616221  # beside the seed in the key: no other stream of the seed is met


def drawn_rows(seed: int, n: int) -> Array:
    """n numbers of rows from 0 to n - 1, each drawn for itself."""
    words = np.random.Philox(key=np.array([seed, BOOTSTRAP], np.uint64)).random_raw(n)
    rows: Array = (words % np.uint64(n)).astype(np.int64)
    return rows


class EnsembleFit:
    """One call of Ensemble.fit: `choose` what each member gets, `prepare`, `train`."""

    def __init__(
        self, ensemble: Ensemble, X: Any, y: Any, lengths: Any, resume: bool, verbose: str | int
    ) -> None:
        self.ensemble, self.members, self.resume = ensemble, ensemble.members, resume
        self.verbose = progress.check_verbose(verbose)
        places = range(len(self.members))
        self.places = [
            p for p in places if not resume or p in ensemble._waiting | ensemble._stopped
        ]
        if not self.places:
            raise ValueError("resume=True, but the last fit has come to its end: leave it out")
        x = with_lengths(X, lengths)
        if is_batches(x, y):
            raise ValueError("an ensemble is trained on rows: give X and y, not batches")
        self.data = _Data(x, y)
        self.n = len(self.data.of(self.members[0])[1])
        for place in self.places:
            self.data.of(self.members[place])

    def choose(
        self, rows: Sequence[Any] | None, bootstrap: bool, sample_weight: Any, callbacks: Callbacks
    ) -> None:
        """Rows, weights and callbacks of each member; see Ensemble.fit."""
        if rows is not None and bootstrap:
            raise ValueError("give rows or bootstrap=True, not both")
        if bootstrap:
            self.rows: list[Array | None] = [drawn_rows(m.seed, self.n) for m in self.members]
        else:
            self.rows = _checked_rows(rows, len(self.members), self.n)
        shared: dict[int, Array] = {}
        self.weights = {place: self._weights(sample_weight, place, shared) for place in self.places}
        self.callbacks = {place: _callbacks(callbacks, place) for place in self.places}

    def _weights(self, value: Any, place: int, shared: dict[int, Array]) -> Array | None:
        """Of sample_weight what is a member's; `shared` is what members with the same rows have."""
        if value is None:
            return None
        members, n = len(self.members), self.n
        x, _ = self.data.of(self.members[place])
        runs = self.members[place]._runs(x)
        steps = (1,) if runs is None else runs.shape[1:]
        shape = regular_shape(value)
        if shape in ((members, n), (members, n, *steps)) and shape != (n, *steps):
            return samples(value[place], n, f"sample_weight[{place}]", runs)
        if id(x) not in shared:
            shared[id(x)] = samples(value, n, runs=runs)
        return shared[id(x)]

    def prepare(self, **settings: Any) -> None:
        """Checks everything; settings are arguments of Sequential.fit."""
        self.settings = settings
        own = any(rows is not None for rows in self.rows)
        if own and settings["validation_split"]:
            raise ValueError(
                "validation_split of rows that each member has of its own would hold out what is "
                "trained on as well: give validation_data"
            )
        self.jobs: dict[int, Callable[[], Any]] = {}
        for place in self.places:
            checked = self._ready(place)
            # Rows of its own are a copy: made again when the member is trained, not kept by all.
            self.jobs[place] = (
                checked.train if self.rows[place] is None else partial(self._fit, place)
            )

    def _ready(self, place: int) -> Ready:
        member, rows, weights = self.members[place], self.rows[place], self.weights[place]
        x, y = self.data.of(member)
        if rows is not None:
            x, y = member._host("X", x)[rows], member._host("y", y)[rows]
            weights = None if weights is None else weights[rows]
        goes_on = self.resume and place in self.ensemble._stopped
        return ready(
            member,
            x,
            y,
            sample_weight=weights,
            callbacks=self.callbacks[place],
            resume=True if goes_on else None,
            verbose=0,
            gradient_norms=False,
            steps_per_epoch=None,
            **self.settings,
        )

    def _fit(self, place: int) -> History:
        return self._ready(place).train()

    def train(self) -> list[History]:
        """Trains the members; where each stands is noted whatever happens."""
        if not self.resume:
            self.ensemble._waiting = frozenset(self.places)
            self.ensemble._stopped = frozenset()
        self._runs_before = {place: self.members[place]._run for place in self.places}
        display = _Display(self.members, progress.make(self.verbose, len(self.jobs), "member"))
        beside = [place for place in self.places if self.members[place].device == "cpu"]
        threads = min(_core.get_num_threads(), len(beside))
        if threads == 1:
            beside = []
        after = [place for place in self.places if place not in beside]
        try:
            if beside:
                self._work(Pool(threads), beside, display)
            if after:
                self._work(InTurn(), after, display)
        finally:
            display.close()
        return [member.history for member in self.members if member.history is not None]

    def _work(self, workers: Pool | InTurn, places: list[int], display: _Display) -> None:
        def note(futures: Futures) -> None:
            for place, future in zip(places, futures, strict=True):
                self._note(place, future)

        jobs = [self.jobs[place] for place in places]
        workers.run(jobs, lambda number: display.show(places[number]), note)
        for place, future in zip(places, workers.futures, strict=True):
            error = failure(future)
            if isinstance(error, Exception):
                raise self._error(place, error) from error
        for future in workers.futures:
            error = failure(future)
            if error is not None:
                raise error

    def _note(self, place: int, future: Future[Any]) -> None:
        """Keeps in the ensemble how far the member has come."""
        ensemble, member, here = self.ensemble, self.members[place], frozenset({place})
        if not began(future) or member._run is self._runs_before[place]:
            return  # it may have been interrupted while it was checked
        ensemble._waiting -= here
        ensemble._stopped -= here
        ended = future.done() and failure(future) is None
        if not ended and capture(member) is not None:
            ensemble._stopped |= here

    def _error(self, place: int, error: Exception) -> MemberError:
        stopped, waiting = self.ensemble._stopped, self.ensemble._waiting - {place}
        done = set(range(len(self.members))) - stopped - waiting - {place}
        return MemberError(
            f"member {place} (seed {self.members[place].seed}) failed with "
            f"{type(error).__name__}: {error}. Done: {_listed(done)}; stopped between two steps: "
            f"{_listed(stopped)}; not begun: {_listed(waiting)}. fit(resume=True) goes on",
            place,
        )


class _Data:
    """X and y in the form that members take them, made once for all that take the same."""

    def __init__(self, x: Any, y: Any) -> None:
        self._given = x, y
        self._made: dict[Any, tuple[Any, Array]] = {}

    def of(self, member: Sequential) -> tuple[Any, Array]:
        """Checked rows for a member. X stays as it is where only fit may convert it."""
        first = member.layers[0] if member.layers else None
        reads = isinstance(first, (Embedding, Masking, Reshape))
        shaped = repr(first) if reads else type(first).__name__
        outputs = member.outputs, member._gives_sequences(), member._reads_sequences
        key = member.dtype, repr(member.loss), member.inputs, shaped, *outputs
        if key not in self._made:
            x, y = self._given
            ready_x, ready_y = holdout.pair(member, x, y)
            if isinstance(ready_x, LazyRows):
                ready_x = x.tocsr() if hasattr(x, "tocsr") else x
            elif is_on_device(x):
                ready_x = x
            self._made[key] = ready_x, ready_y
        return self._made[key]


class _Display:
    """What fit shows: how many members are done, and what the last one came to."""

    def __init__(self, members: Sequence[Sequential], display: progress.Progress) -> None:
        self.members, self.display, self.done = members, display, 0

    def show(self, place: int) -> None:
        """Member number `place` is done."""
        self.done += 1
        history = self.members[place].history
        series: Mapping[str, list[float]] = {} if history is None else history.history
        last = {name: values[-1] for name, values in series.items() if values}
        self.display.update(self.done, progress.shown(last))

    def close(self) -> None:
        self.display.close()


def _checked_rows(rows: Any, members: int, n: int) -> list[Array | None]:
    """Row numbers for each member; None for all rows."""
    if rows is None:
        return [None] * members
    each = list(rows)
    if len(each) != members:
        raise ValueError(f"rows must be a list with one entry for each of {members} members; "
                         f"got {len(each)}")  # fmt: skip
    found: list[Array | None] = []
    for place, given in enumerate(each):
        if given is None:
            found.append(None)
            continue
        array = np.asarray(given)
        if array.dtype == np.bool_ and array.shape == (n,):
            array = np.flatnonzero(array)
        if array.ndim != 1 or array.dtype.kind not in "iu" or not len(array):
            raise ValueError(
                f"rows[{place}] must be a mask of shape ({n},) or numbers of rows, at least one; "
                f"got {describe(given)}"
            )
        if array.min() < 0 or array.max() >= n:
            raise ValueError(f"rows[{place}] must lie between 0 and {n - 1}, as X has {n} rows; "
                             f"got {array.min()} to {array.max()}")  # fmt: skip
        found.append(array.astype(np.int64))
    return found


def _callbacks(given: Callbacks, place: int) -> list[Callback]:
    """Callbacks for one member alone."""
    if callable(given) and not isinstance(given, Callback):
        return hook_objects.get(given(place))
    return [_copied(callback) for callback in hook_objects.get(given)]


def _copied(callback: Callback) -> Callback:
    if isinstance(callback, WRITERS):
        raise ValueError(
            f"all members would write the files of one {type(callback).__name__}: give callbacks a "
            "function of the member's number, with names of their own"
        )
    watched = getattr(callback, "model", None)  # of an earlier fit
    try:
        return copy.deepcopy(callback, {id(watched): watched})
    except Exception as error:
        raise TypeError(
            f"{type(callback).__name__} cannot be copied for each member ({error}): give callbacks "
            "a function of the member's number"
        ) from error


def _listed(places: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(places))) or "none"
