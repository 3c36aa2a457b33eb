"""Ensemble: several networks that are compiled, trained side by side and used as one.

Every member is a Sequential of its own, with the bits that it would have had alone: training is
each one's own fit, as many at once as the processor has threads for (ensemble_training.py and
pool.py).
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from . import blending, checks
from .arrays import Array
from .errors import describe
from .layers import Layer
from .lazy import EVALUATION_BATCH
from .losses import Loss
from .model import Sequential
from .optimizers import Optimizer
from .weights import ClassWeight

if TYPE_CHECKING:
    from .batches import Augment
    from .ensemble_training import Callbacks
    from .history import History


class Ensemble:
    """Networks trained side by side, whose predictions are averaged.

    Args:
        model: an untrained Sequential, of which every member has the layers and, if it is compiled,
            the settings; or a function (seed=..., **settings) that returns a new Sequential; or the
            members themselves.
        n: how many members; may be left out where `settings` or the members say it.
        seed: member i has the seed `seed + i`. None draws one.
        settings: for each member what its function is called with, such as
            [{"dropout": 0.1}, {"dropout": 0.3}]; "seed" in it takes the place of the one above.

    Attributes:
        members: the networks, Sequential objects. ensemble[i] is one, len(ensemble) their number.

    Raises TypeError and ValueError for wrong arguments.
    """

    def __init__(
        self,
        model: Sequential | Callable[..., Sequential] | Iterable[Sequential],
        n: int | None = None,
        *,
        seed: int | None = None,
        settings: Iterable[Mapping[str, Any]] | None = None,
    ) -> None:
        if isinstance(model, Sequential) or callable(model):
            build = _copies_of(model) if isinstance(model, Sequential) else model
            members = [_made(build, each) for each in _arguments(n, seed, settings)]
        else:
            members = list(model)
            if members and isinstance(members[0], Layer):
                raise TypeError(
                    "members are models, not layers: write Ensemble(Sequential([...]), n)"
                )
            if n not in (None, len(members)) or seed is not None or settings is not None:
                raise ValueError("n, seed and settings are for members yet to be made")
        for number, member in enumerate(members):
            if not isinstance(member, Sequential):
                raise TypeError(f"member {number} must be a Sequential; got {describe(member)}")
        if not members:
            raise ValueError("an ensemble needs at least one member; got none")
        if len(set(map(id, members))) != len(members):
            raise ValueError("the same model appears twice: the function must make a new one")
        self.members: tuple[Sequential, ...] = tuple(members)
        # Numbers of the members that the last fit has not begun, or has left between two steps.
        self._waiting: frozenset[int] = frozenset()
        self._stopped: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, number: int) -> Sequential:
        return self.members[number]

    def __iter__(self) -> Iterator[Sequential]:
        return iter(self.members)

    @property
    def histories(self) -> list[History | None]:
        """For each member the History of its last fit, or None."""
        return [member.history for member in self.members]

    def compile(
        self,
        optimizer: str | Optimizer | Sequence[str | Optimizer] = "adam",
        loss: str | Loss | None = None,
        metrics: Iterable[str] | None = None,
        device: str = "auto",
        dtype: str = "float32",
    ) -> None:
        """Compiles every member; see Sequential.compile.

        `optimizer` may be a list with one for each member. Raises what Sequential.compile raises,
        before any member has changed.
        """
        each: list[Any]
        each = list(optimizer) if isinstance(optimizer, (list, tuple)) else [optimizer] * len(self)
        if len(each) != len(self):
            raise ValueError(
                f"optimizer lists {len(each)} optimizers for {len(self)} members; give one for "
                "all, or one for each"
            )
        names = metrics if metrics is None or isinstance(metrics, str) else list(metrics)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come below
            for member, chosen in zip(self.members, each, strict=True):
                trial = Sequential(member.layers, member.seed)
                trial.compile(chosen, loss, names, device, dtype)
        for member, chosen in zip(self.members, each, strict=True):
            member.compile(chosen, loss, names, device, dtype)
        self._waiting = self._stopped = frozenset()

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        validation_split: float = 0.0,
        validation_data: tuple[Any, ...] | None = None,
        stratify: bool = False,
        sample_weight: Any = None,
        class_weight: ClassWeight = None,
        rows: Sequence[Any] | None = None,
        bootstrap: bool = False,
        shuffle: bool = True,
        verbose: str | int = "auto",
        callbacks: Callbacks = None,
        augment: Augment | None = None,
        tol: float | None = None,
        patience: int | None = None,
        lengths: Any = None,
        resume: bool = False,
    ) -> list[History]:
        """Trains all members and returns their histories.

        Each gets the bits that its own `fit` with the same arguments would have given it, whatever
        the number of threads and of members. Arguments are those of Sequential.fit, and:

        Args:
            X, y: rows for all members; no batches.
            sample_weight: as for Sequential.fit, for all; or (members, n), or of outputs at every
                step (members, n, steps).
            rows: for each member which rows of X and y it is trained on: a mask (n,) or their
                numbers, of which some may appear more than once.
            bootstrap: each member is trained on n rows drawn from the n with replacement, by its
                seed: `bootstrap_rows(n)`.
            callbacks: every member gets copies of its own, with their states; or a function of the
                member's number that returns its callbacks, which those that write files need.
            verbose: 0 silent, 1 a bar of the members that are done, N >= 2 a line every N of them.
            resume: True goes on where Ctrl-C or an error ended the last fit: members that were done
                stay, those stopped go on, the others begin. The rest must be as in that call.

        Raises what Sequential.fit raises, before anything changes. An exception of one member ends
        the others between two steps and raises MemberError, which names it; Ctrl-C raises
        KeyboardInterrupt in the same way.
        """
        from .ensemble_training import EnsembleFit

        fit = EnsembleFit(self, X, y, lengths, checks.boolean("resume", resume), verbose)
        fit.choose(rows, checks.boolean("bootstrap", bootstrap), sample_weight, callbacks)
        fit.prepare(
            epochs=epochs,
            batch_size=batch_size,
            validation_split=validation_split,
            validation_data=validation_data,
            stratify=stratify,
            class_weight=class_weight,
            shuffle=shuffle,
            augment=augment,
            tol=tol,
            patience=patience,
        )
        return fit.train()

    def bootstrap_rows(self, n: int) -> list[Array]:
        """The numbers of the rows, (n,) for each member, that fit(bootstrap=True) draws from n.

        They follow from the member's seed. What is not among them is out of the member's bag.
        """
        from .ensemble_training import drawn_rows

        n = checks.integer("n", n)
        return [drawn_rows(member.seed, n) for member in self.members]

    @overload
    def predict(
        self, X: Any, lengths: Any = None, *, return_std: Literal[False] = False
    ) -> Array: ...
    @overload
    def predict(
        self, X: Any, lengths: Any = None, *, return_std: Literal[True]
    ) -> tuple[Array, Array]: ...
    def predict(
        self, X: Any, lengths: Any = None, *, return_std: bool = False
    ) -> Array | tuple[Array, Array]:
        """The mean of the members' outputs for every row, as Sequential.predict shapes it.

        Where the outputs are logits it is the logits of the mean probabilities, so that it means to
        a loss, to predict_proba and to predict_class what one network's output means.

        Args:
            return_std: True returns (mean, standard deviation of the members' own outputs).
        """
        own = self.predict_members(X, lengths)
        mean = blending.outputs(own, self.members)
        return (mean, blending.spread(own)) if return_std else mean

    def predict_members(self, X: Any, lengths: Any = None) -> Array:
        """Every member's own outputs: (members, n, outputs). Raises ValueError if shapes differ."""
        return blending.stacked([m._host("X", m.predict(X, lengths)) for m in self.members])

    @overload
    def predict_proba(
        self, X: Any, lengths: Any = None, *, return_std: Literal[False] = False
    ) -> Array: ...
    @overload
    def predict_proba(
        self, X: Any, lengths: Any = None, *, return_std: Literal[True]
    ) -> tuple[Array, Array]: ...
    def predict_proba(
        self, X: Any, lengths: Any = None, *, return_std: bool = False
    ) -> Array | tuple[Array, Array]:
        """The mean of the members' probabilities, (n, outputs), and with return_std their spread.

        Raises ValueError as Sequential.predict_proba.
        """
        own = blending.stacked([m._host("X", m.predict_proba(X, lengths)) for m in self.members])
        mean = blending.mean(own)
        return (mean, blending.spread(own)) if return_std else mean

    def predict_class(self, X: Any, lengths: Any = None) -> Array:
        """Classes by the mean probabilities, or margins; see Sequential.predict_class."""
        return blending.classes(self.predict(X, lengths), self.members)

    def evaluate(
        self,
        X: Any,
        y: Any,
        batch_size: int = EVALUATION_BATCH,
        sample_weight: Any = None,
        lengths: Any = None,
    ) -> dict[str, float]:
        """Loss and metrics of the ensemble's own prediction; arguments as Sequential.evaluate.

        The loss has no penalties. For those of each member: [m.evaluate(X, y) for m in ensemble].
        """
        size = checks.batch_size(batch_size)
        return blending.evaluate(self, X, y, size, sample_weight, lengths)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes every member as a model file, and a list of them, into a folder.

        Each file is what Sequential.save writes and fastbp.load reads. The folder is made if it is
        not there; what an earlier save left in it is replaced as a whole. Raises RuntimeError if a
        member is not built, OSError if a file cannot be written.
        """
        from . import ensemble_files

        ensemble_files.save(self, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "auto") -> Ensemble:
        """The ensemble that `save` wrote; members predict and train on as fastbp.load's do.

        Raises what fastbp.load raises.
        """
        from . import ensemble_files

        return ensemble_files.load(folder, device)

    def __repr__(self) -> str:
        return f"Ensemble of {len(self)}: {self.members[0]!r}, ..."


def _arguments(
    n: int | None, seed: int | None, settings: Iterable[Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """What the function is called with, for each member."""
    if settings is None:
        if n is None:
            raise ValueError("how many members? Give n, or settings with one dict for each")
        each: list[Mapping[str, Any]] = [{}] * checks.integer("n", n)
    else:
        each = list(settings)
        for item in each:
            if not isinstance(item, Mapping):
                raise TypeError(f"settings must be a list of dicts; got {describe(item)} in it")
        if n not in (None, len(each)):
            raise ValueError(f"settings lists {len(each)} members, but n is {n}")
    first = int.from_bytes(os.urandom(4), "little") if seed is None else seed
    first = checks.integer("seed", first, 0, 2**64 - 1 - len(each))
    return [{"seed": first + place, **item} for place, item in enumerate(each)]


def _made(build: Callable[..., Sequential], arguments: dict[str, Any]) -> Sequential:
    """What the function returns; TypeError in words where it does not take the arguments."""
    try:
        inspect.signature(build).bind(**arguments)
    except TypeError as error:
        raise TypeError(
            "the function that makes a member is called with seed=... and with its settings, by "
            f"name ({', '.join(arguments)} here): {error}"
        ) from None
    except ValueError:  # written in C: it has no signature to ask
        pass
    return build(**arguments)


def _copies_of(model: Sequential) -> Callable[..., Sequential]:
    """A function that makes models like an untrained one."""
    if model._engine is not None:
        raise ValueError(
            "the model is built: an ensemble makes members with parameters of their own. Give an "
            "untrained model, or a function (seed) that returns a new one"
        )

    def build(*, seed: int) -> Sequential:
        member = Sequential(model.layers, seed)
        member.metadata = dict(model.metadata)
        member._frozen = model._frozen
        if model._compiled is not None:
            loss, optimizer, metrics = model._compiled
            member.compile(optimizer, loss, metrics, model.device, model.dtype)
        return member

    return build
