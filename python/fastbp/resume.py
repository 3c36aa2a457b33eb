"""Exact resume: the state of a run in a model file, and the way back.

`capture` says what model.save writes while a fit has not come to its end, `prepare` finds what
fit(resume=...) is to go on with, and `restore` puts a new run where the old one stood.
"""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import checks
from .arrays import Array
from .callbacks.base import Callback
from .errors import ModelFileError, describe
from .history import FINAL, History
from .runs import STAGES, Run

if TYPE_CHECKING:
    from .chain import Chain
    from .model import Sequential


class Saved(NamedTuple):
    """The state of a run as it stands in a file, and the optimizer's step that it belongs to."""

    state: dict[str, Any]
    steps: int


def capture(model: Chain) -> dict[str, Any] | None:
    """The state of the model's last run; None if it is complete or the model has moved on."""
    run = model._run
    engine = model._require_built()
    if isinstance(run, Saved):
        return run.state if run.steps == engine.steps else None
    if run is None or engine.steps != run.first_step + run.steps_done:
        return None
    history = run.history
    if not run.running and history.stop_reason in FINAL:
        return None
    names = list(history.history)
    shape = (len(names), len(history.epoch))
    return {
        **{name: getattr(run, name) for name in ("first_epoch", "first_step", "epoch", "batch")},
        **{name: getattr(run, name) for name in ("seen", "stage", "next_callback", "sums")},
        "logs": run.logs,
        "outputs": None if run.outputs is None else run.outputs[: run.seen],
        "states": None if run.states is None else run.states.copy(),
        "stopped": history.stop_reason if run.running and model.stop_training else None,
        "stop_training": run.running and model.stop_training,
        "settings": {**run.settings._asdict(), "fingerprint": run.fingerprint()},
        "names": names,
        "epochs": history.epoch,
        "values": np.array(list(history.history.values()), np.float64).reshape(shape),
        "callbacks": [[type(callback).__name__, callback.state()] for callback in run.callbacks],
    }


# What a state holds, and of which type; what is inside is checked where it is used.
_FIELDS: dict[str, Any] = {
    **dict.fromkeys(("first_epoch", "first_step", "epoch", "batch", "seen"), int),
    "next_callback": int,
    "stage": str,
    "sums": np.ndarray,
    "logs": dict,
    "outputs": (np.ndarray, type(None)),
    "states": (np.ndarray, type(None)),
    "stopped": (str, type(None)),
    "stop_training": bool,
    "settings": dict,
    "names": list,
    "epochs": list,
    "values": np.ndarray,
    "callbacks": list,
}


def checked(state: Any, source: str) -> dict[str, Any]:
    """The state that a file holds. Raises ModelFileError unless it has what `capture` writes."""
    whole = isinstance(state, dict) and all(
        isinstance(state.get(name), kind) for name, kind in _FIELDS.items()
    )
    whole = whole and all(map(_is_callback, state["callbacks"]))
    if not whole or state["values"].shape != (len(state["names"]), len(state["epochs"])):
        raise ModelFileError(f"{source} is not a model file: the state of its run is damaged")
    found: dict[str, Any] = state
    return found


def _is_callback(entry: Any) -> bool:
    """A class's name and what its state() gave."""
    match entry:
        case [str(), dict()]:
            return True
    return False


def prepare(model: Sequential, resume: Any) -> tuple[Sequential, dict[str, Any]]:
    """The model that holds the run to go on with, and the run's state.

    That is `model` itself for resume=True. Raises ValueError if there is no unfinished run, or the
    file is of another model; what files.load raises.
    """
    if resume is True:
        state = capture(model) if model._engine is not None else None
        if state is None:
            raise ValueError("resume=True, but this model has no unfinished run: leave it out")
        return model, state
    if not isinstance(resume, (str, os.PathLike)):
        raise TypeError(f"resume must be a path or True; got {describe(resume)}")
    from . import files

    loaded = files.load(resume, model.device)
    state = capture(loaded)
    if state is None:
        raise ValueError(
            f"{os.fspath(resume)!r} holds no run that was stopped: it is a model as it was at the "
            "end of its training. Use fastbp.load and fit"
        )
    _require_same_model(model, loaded, os.fspath(resume))
    return loaded, state


def _require_same_model(model: Sequential, loaded: Sequential, path: str) -> None:
    mine, theirs = model._require_compiled(), loaded._require_compiled()
    pairs = [
        ("layers", model.layers, loaded.layers),
        ("dtype", model.dtype, loaded.dtype),
        ("loss", mine.loss, theirs.loss),
        ("optimizer", mine.optimizer.kernel, theirs.optimizer.kernel),
        ("metrics", mine.metrics, theirs.metrics),
    ]
    for name, given, kept in pairs:
        if given != kept:
            raise ValueError(
                f"{path!r} is of another model: its {name} {describe(kept)}, but this model's "
                f"{name} {describe(given)}"
            )


def require_same_run(run: Run, state: dict[str, Any]) -> None:
    """Raises ValueError unless `run` goes through the same batches with the same callbacks."""
    given = {**run.settings._asdict(), "fingerprint": run.fingerprint()}
    for name, kept in state["settings"].items():
        if name in given and given[name] != kept:
            if name == "fingerprint":
                raise ValueError("resume: X and y are not the data of the run that was stopped")
            raise ValueError(
                f"resume: the run that was stopped had {name}={kept!r}; this call has "
                f"{given[name]!r}"
            )
    kinds = [type(callback).__name__ for callback in run.callbacks]
    if kinds != [kind for kind, _ in state["callbacks"]]:
        raise ValueError(
            f"resume: the run that was stopped had the callbacks "
            f"{[kind for kind, _ in state['callbacks']]}; this call has {kinds}"
        )


def require_callbacks(model: Chain, run: Run, state: dict[str, Any]) -> None:
    """Raises ValueError unless the callbacks of this package can take their states back.

    Those of the user may want on_train_begin first, and so are asked when the run begins.
    """
    for callback, (kind, kept) in zip(run.callbacks, state["callbacks"], strict=True):
        if type(callback).__module__.startswith(Callback.__module__.rpartition(".")[0]):
            trial = copy.copy(callback)
            trial.set_model(model)  # type: ignore[arg-type]
            try:
                trial.load_state(kept)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise ValueError(
                    f"resume: the state of the callback {kind} is damaged ({error!r}): resume "
                    "from another file, or load this one and fit anew"
                ) from error


def restore(run: Run, state: dict[str, Any]) -> None:
    """Puts `run` where the old one stood, with its history. ValueError for a damaged state."""
    for name, high in (("epoch", None), ("batch", run.settings.steps), ("seen", None)):
        setattr(run, name, checks.integer(name, state[name], 0, high))
    for name in ("first_epoch", "first_step", "next_callback"):
        setattr(run, name, checks.integer(name, state[name], 0))
    if state["stage"] not in STAGES or state["sums"].shape != run.sums.shape:
        raise ValueError("resume: the state of the run is damaged")
    _restore_states(run, state.get("states"))
    run.stage, run.logs = state["stage"], dict(state["logs"])
    run.sums[:] = state["sums"]
    if run.outputs is not None:
        kept, room = state.get("outputs"), run.outputs[: run.seen]
        if kept is None or kept.shape != room.shape:
            raise ValueError("resume: the state of the run is damaged")
        room[...] = kept
    _restore_history(run.history, state)


def _restore_states(run: Run, kept: Array | None) -> None:
    """The states that the next batch begins with, which a file of an older version lacks."""
    if run.states is None:
        return
    if kept is None and run.batch:
        raise ValueError(
            "resume: the file lacks the states of stateful layers, without which a run can go on "
            f"only between two epochs; this one stopped behind batch {run.batch}"
        )
    if kept is not None and (kept.shape, kept.dtype) != (run.states.shape, run.states.dtype):
        raise ValueError("resume: the state of the run is damaged")
    run.states[...] = 0 if kept is None else kept


def _restore_history(history: History, state: dict[str, Any]) -> None:
    history.epoch[:] = state["epochs"]
    history.history.update(zip(state["names"], state["values"].tolist(), strict=True))
    history.stop_reason = state["stopped"]
