"""Exact resume: a run stopped anywhere and taken up again equals the run that was not stopped.

Compared with == throughout: parameters, optimizer slots, step count, history, the callbacks' own
state and the files that they write.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp
from fastbp.errors import ModelFileError

EPOCHS, STEPS = 4, 3
Logs = dict[str, float] | None


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 4)).astype(np.float32)
    return x, (x @ rng.normal(size=(4, 3))).argmax(axis=1)


def make(device: str = "cpu", seed: int = 5, **settings: Any) -> bp.Sequential:
    layers = [bp.Dense(6, activation="relu"), bp.Dropout(0.2), bp.Dense(3)]
    model = bp.Sequential(layers, seed=seed)
    model.compile(
        **{
            "optimizer": bp.Adam(0.02),
            "loss": "softmax_cross_entropy",
            "metrics": ["accuracy"],
            "device": device,
            **settings,
        }
    )
    return model


class Counter(bp.Callback):
    """Counts what it sees, of every hook; its state is saved."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.seen.append(f"epoch {epoch}")

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        self.seen.append(f"begin {batch}")

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        assert logs is not None
        self.seen.append(f"end {batch} {logs['loss']!r}")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        assert logs is not None
        logs["counted"] = float(len(self.seen))
        self.seen.append(f"done {epoch} {logs!r}")

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.seen = list(state["seen"])


class At(bp.Callback):
    """Does something at the k-th call of one hook, counted over the run."""

    def __init__(self, hook: str, k: int, action: Any) -> None:
        self.calls, self.k, self.action = 0, k, action
        setattr(self, hook, self._call)

    def _call(self, number: int, logs: Logs = None) -> None:
        self.calls += 1
        if self.calls == self.k + 1:
            self.action(self)

    def state(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.calls = state["calls"]


def nothing(_: bp.Callback) -> None:
    """What the callback does in the run that is not stopped."""


def run(model: bp.Sequential, folder: Path, at: At, place: int = 1, **settings: Any) -> list[Any]:
    """fit with callbacks of every kind; `at` stands among them. Returns them."""
    callbacks: list[Any] = [
        bp.EarlyStopping("val_loss", patience=2),
        bp.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, min_delta=0.05),
        Counter(),
        bp.CSVLogger(folder / "log.csv"),
        bp.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
    ]
    callbacks.insert(place, at)
    x, y = data()
    settings = {"epochs": EPOCHS, "batch_size": 16, "validation_split": 0.2, **settings}
    model.fit(x, y, callbacks=callbacks, **settings)
    return callbacks


def outcome(model: bp.Sequential, callbacks: list[Any], folder: Path) -> list[Any]:
    """All that must be equal."""
    engine = model._require_built()
    assert model.history is not None
    states = [
        {k: v.tobytes() if isinstance(v, np.ndarray) else v for k, v in c.state().items()}
        for c in callbacks
    ]
    return [
        engine.parameters.tobytes(),
        [slot.tobytes() for slot in engine.optimizer_state],
        engine.steps,
        model.epochs_trained,
        model.optimizer.config(),
        model.history.to_dict(),
        model.history.stop_reason,
        states,
        (folder / "log.csv").read_bytes(),
    ]


def stop(callback: bp.Callback) -> None:
    callback.model.stop_training = True


@pytest.mark.parametrize("k", range(EPOCHS * STEPS))
def test_stopped_at_any_batch(device: str, k: int, tmp_path: Path) -> None:
    hook = "on_train_batch_end"
    whole, path = make(device), tmp_path / "stopped"
    (tmp_path / "other").mkdir()
    expected = outcome(whole, run(whole, tmp_path, At(hook, k, nothing)), tmp_path)
    model = make(device)
    run(model, tmp_path / "other", At(hook, k, stop))
    model.save(path)
    resumed = make(device, seed=99)
    callbacks = run(resumed, tmp_path / "other", At(hook, k, nothing), resume=path)
    assert outcome(resumed, callbacks, tmp_path / "other") == expected


HOOKS = [("on_train_batch_begin", 4), ("on_train_batch_end", 5), ("on_epoch_begin", 2)]


@pytest.mark.parametrize("place", [0, 2, 5])
@pytest.mark.parametrize(("hook", "k"), [*HOOKS, ("on_epoch_end", 1)])
def test_saved_inside_any_hook(hook: str, k: int, place: int, tmp_path: Path) -> None:
    """A file written in the middle of a hook: the callbacks behind have not had it, those before
    have. The run goes on and more is written to its files, as when it crashes later.
    """
    path = tmp_path / "checkpoint"
    whole = make()

    def save(callback: bp.Callback) -> None:
        callback.model.save(path)

    expected = outcome(whole, run(whole, tmp_path, At(hook, k, save), place), tmp_path)
    model = make()
    callbacks = run(model, tmp_path, At(hook, k, nothing), place, resume=path)
    assert outcome(model, callbacks, tmp_path) == expected


def test_checkpoints_resume_wherever_they_stand_in_the_list(tmp_path: Path) -> None:
    x, y = data()

    def callbacks(first: bool) -> list[bp.Callback]:
        saver = bp.ModelCheckpoint(tmp_path / "{epoch}")
        stopping = bp.EarlyStopping("loss", patience=1, min_delta=0.02)
        return [saver, stopping] if first else [stopping, saver]

    for first in (True, False):
        whole = make()
        history = whole.fit(x, y, epochs=30, callbacks=callbacks(first))
        for epoch in range(1, len(history.epoch) + 1):
            model = make()
            path = tmp_path / str(epoch)
            again = model.fit(x, y, epochs=30, callbacks=callbacks(first), resume=path)
            assert again.to_dict() == history.to_dict()
            assert again.stop_reason == history.stop_reason
            for name, value in model.parameters().items():
                assert (value == whole.parameters()[name]).all()


PROGRAM = """
import os, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import test_resume as t
action, path = sys.argv[1], Path(sys.argv[2])

def crash(callback):
    callback.model.save(path / "checkpoint")
    callback.model.step(*t.data())
    os._exit(7)

model = t.make()
if action == "crash":
    t.run(model, path, t.At("on_train_batch_end", 7, crash))
else:
    callbacks = t.run(model, path, t.At("on_train_batch_end", 7, t.nothing),
                      resume=path / "checkpoint")
    sys.stdout.write(repr(t.outcome(model, callbacks, path)))
"""


def test_crash_and_resume_in_a_new_process(tmp_path: Path) -> None:
    program = PROGRAM.format(tests=str(Path(__file__).parent))
    done = [
        subprocess.run(
            [sys.executable, "-c", program, action, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        for action in ("crash", "resume")
    ]
    assert [d.returncode for d in done] == [7, 0], done[1].stderr
    (tmp_path / "whole").mkdir()
    whole = make()
    callbacks = run(whole, tmp_path / "whole", At("on_train_batch_end", 7, nothing))
    assert done[1].stdout == repr(outcome(whole, callbacks, tmp_path / "whole"))


@pytest.mark.parametrize("watched", [False, True])
def test_ctrl_c_anywhere(watched: bool, tmp_path: Path) -> None:
    """Interrupted again and again, saved, taken up in another model, until it is done."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(600, 20)).astype(np.float32), np.arange(600) % 3
    epochs = 100 if watched else 5_000

    def fit(model: bp.Sequential, **settings: Any) -> Counter | None:
        counter = Counter() if watched else None
        model.fit(x, y, epochs=epochs, batch_size=7, callbacks=counter, **settings)
        return counter

    whole = make(metrics=None)
    started = time.perf_counter()
    expected = fit(whole)
    piece = max(0.05, (time.perf_counter() - started) / 4)  # s, at most

    def stopped_again_and_again() -> tuple[bp.Sequential, Counter | None, int]:
        """The model at the end, and how often it was interrupted. Its pieces become longer: on a
        busy machine one may end before it has begun to train."""
        settings: dict[str, Any] = {}
        interrupted, done, longer = 0, False, 1.0
        while True:
            model = make(metrics=None)
            delay = 0.02 + longer * piece * rng.random()
            timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
            try:
                timer.start()
                counter = fit(model, **settings)
                done = True
                timer.join()
            except KeyboardInterrupt:
                if done:  # it came after the end
                    return model, counter, interrupted
                interrupted, longer = interrupted + 1, 1.1 * longer
                if model.history is not None and model.history.stop_reason == "interrupted":
                    model.save(path)
                    settings = {"resume": path}

    path = tmp_path / "stopped"
    for _ in range(8):
        model, counter, interrupted = stopped_again_and_again()
        if interrupted >= 2:
            break
        piece /= 2  # the machine is quicker now than it was
    assert interrupted >= 2
    for name, value in model.parameters().items():
        assert (value == whole.parameters()[name]).all()
    assert model.history is not None and whole.history is not None
    assert model.history.to_dict() == whole.history.to_dict()
    if watched:
        assert counter is not None and expected is not None
        assert counter.seen == expected.seen


def test_resume_true_goes_on_in_the_same_model() -> None:
    x, y = data()
    whole, model = make(), make()
    whole.fit(x, y, epochs=5, batch_size=16)
    model.fit(x, y, epochs=5, batch_size=16, callbacks=At("on_train_batch_end", 6, stop))
    history = model.fit(
        x, y, epochs=5, batch_size=16, resume=True, callbacks=At("on_train_batch_end", 6, nothing)
    )
    assert whole.history is not None
    assert history.to_dict() == whole.history.to_dict()
    assert (
        model._require_built().parameters.tobytes() == whole._require_built().parameters.tobytes()
    )
    with pytest.raises(ValueError, match="no unfinished run"):
        model.fit(x, y, resume=True)


def test_a_finished_run_leaves_nothing_in_the_file(tmp_path: Path) -> None:
    x, y = data()
    model = make()
    model.fit(x, y, epochs=2)
    model.save(tmp_path / "done")
    assert b"run_tensors" not in (tmp_path / "done").read_bytes()
    with pytest.raises(ValueError, match="holds no run that was stopped"):
        make().fit(x, y, resume=tmp_path / "done")


def test_a_model_that_has_moved_on_has_no_run_to_resume() -> None:
    x, y = data()
    model = make()
    model.fit(x, y, epochs=5, callbacks=At("on_train_batch_end", 3, stop))
    model.step(x, y)
    with pytest.raises(ValueError, match="no unfinished run"):
        model.fit(x, y, epochs=5, resume=True)


def test_what_does_not_fit_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    x, y = data()
    path = tmp_path / "stopped"
    model = make()
    model.fit(x, y, epochs=4, batch_size=16, callbacks=At("on_train_batch_end", 5, stop))
    model.save(path)
    at = At("on_train_batch_end", 5, nothing)
    good: dict[str, Any] = {"epochs": 4, "batch_size": 16, "callbacks": at, "resume": path}
    wrong: list[tuple[bp.Sequential, dict[str, Any], str]] = [
        (make(), {"batch_size": 8}, "batch_size=16; this call has 8"),
        (make(), {"shuffle": False}, "shuffle=True; this call has False"),
        (make(), {"validation_split": 0.2}, "samples=50; this call has 40"),
        (make(), {"callbacks": []}, "callbacks"),
        (make(loss="mse"), {}, "of another model: its loss"),
        (make(optimizer="sgd"), {}, "of another model: its optimizer"),
        (make(dtype="float64"), {}, "of another model: its dtype"),
        (make(metrics=["mse"]), {}, "of another model: its metrics"),
        (make(), {"resume": tmp_path / "none"}, "No such file"),
        (make(), {"resume": 3}, "resume must be a path or True"),
    ]
    for other, settings, said in wrong:
        other.build(4)
        before = other._require_built().parameters.tobytes()
        with pytest.raises((ValueError, OSError, TypeError), match=said):
            target = y if other.loss.name != "mse" else np.eye(3)[y]
            other.fit(x, target, **{**good, **settings})
        assert other._require_built().parameters.tobytes() == before
        assert other.history is None
    with pytest.raises(ValueError, match="X and y are not the data"):
        make().fit(x + 1, y, **good)
    make().fit(x, y, **good)


def test_a_state_that_cannot_be_kept_says_so(tmp_path: Path) -> None:
    class Odd(bp.Callback):
        def state(self) -> dict[str, Any]:
            return {"model": object()}

        def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
            self.model.save(tmp_path / "odd")

    with pytest.raises(TypeError, match=r"run\['callbacks'\]\[0\]\[1\]\['model'\] is object"):
        make().fit(*data(), epochs=2, callbacks=Odd())
    assert list(tmp_path.iterdir()) == []


def test_damaged_states_are_refused(tmp_path: Path) -> None:
    """With a right checksum, as somebody could write it on purpose."""
    from fastbp import durable, files

    model = make(metrics=["auc"])
    model.fit(*data(), epochs=3, callbacks=At("on_train_batch_end", 0, stop))
    path = tmp_path / "stopped"
    model.save(path)
    content = path.read_bytes()
    changes = [
        (b'stage\\":\\"batch_begin', b'stage\\":\\"batch_bogus'),
        (b'{\\"tensor\\":0}', b'{\\"tensor\\":9}'),
        (b'\\"next_callback\\":0', b'\\"next_callbacc\\":0'),
        (b'\\"float64\\",[1]', b'\\"float64\\",[3]'),
        (b'\\"float64\\",[1]', b'\\"float16\\",[1]'),
        (b'\\"outputs\\":{', b'\\"outputz\\":{'),
        (b'\\"outputs\\":{\\"tensor\\":1', b'\\"outputs\\":{\\"tensor\\":0'),
    ]
    for old, new in changes:
        assert content.count(old) == 1, old
        start, end = files.DIGEST_AT, files.DIGEST_AT + files.DIGITS
        changed = content.replace(old, new)
        changed = changed[:start] + b"0" * files.DIGITS + changed[end:]
        digest = durable.digest([changed])
        path.write_bytes(files._with_digest(changed, digest))
        at = At("on_train_batch_end", 0, nothing)
        with pytest.raises((ModelFileError, ValueError)):
            make(metrics=["auc"]).fit(*data(), epochs=3, callbacks=at, resume=path)


@pytest.mark.parametrize(
    ("kind", "given", "key", "value"),
    [
        (bp.EarlyStopping, "loss", "wait", None),
        (bp.EarlyStopping, "loss", "best_epoch", "soon"),
        (bp.EarlyStopping, "loss", "best.parameters", np.zeros(3, np.float32)),
        (bp.EarlyStopping, "loss", "best.state", None),
        (bp.ReduceLROnPlateau, "loss", "cooling", None),
        (bp.CSVLogger, "log.csv", "end", []),
    ],
)
def test_damaged_states_of_callbacks_are_refused(
    kind: Any, given: str, key: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None: the key is missing. Nothing has changed behind the error."""
    monkeypatch.chdir(tmp_path)
    model, callback = make(), kind(given)
    model.fit(*data(), epochs=3, callbacks=[callback, At("on_train_batch_end", 3, stop)])
    kept = {name: v for name, v in callback.state().items() if name != key}
    with monkeypatch.context() as patch:
        patch.setattr(callback, "state", lambda: kept if value is None else {**kept, key: value})
        model.save("stopped")
    other = make(seed=6)
    other.build(4)
    before = other._require_built().parameters.tobytes()
    again = [kind(given), At("on_train_batch_end", 3, nothing)]
    with pytest.raises(ValueError, match=f"state of the callback {kind.__name__} is damaged"):
        other.fit(*data(), epochs=3, callbacks=again, resume="stopped")
    assert other._require_built().parameters.tobytes() == before
    assert other.history is None


def test_a_callback_that_hangs_is_left_at_the_second_ctrl_c() -> None:
    def hang(epoch: int, logs: Logs) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        reached.append(epoch)  # the first waits for the callback to return
        os.kill(os.getpid(), signal.SIGINT)
        reached.append(-1)

    reached: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    model = make()
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data(), epochs=3, callbacks=bp.LambdaCallback(on_epoch_end=hang))
    assert reached == [0]
    assert signal.getsignal(signal.SIGINT) is handler
    assert model.history is not None
    assert model.history.stop_reason == "interrupted"
