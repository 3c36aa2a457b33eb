"""Callbacks: when hooks are called and with what, what the ready-made ones do, what they cost."""

import csv
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastbp as bp
from fastbp import sources

Logs = dict[str, float] | None


def data(rows: int = 50) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(rows, 4)).astype(np.float32)
    return x, (x @ rng.normal(size=(4, 3))).argmax(axis=1)


def make(device: str = "cpu", **settings: Any) -> bp.Sequential:
    model = bp.Sequential([bp.Dense(6, activation="relu"), bp.Dense(3)], seed=5)
    model.compile(
        **{"loss": "softmax_cross_entropy", "metrics": ["accuracy"], "device": device, **settings}
    )
    return model


def bits(model: bp.Sequential) -> list[bytes]:
    return [p.tobytes() for p in model.parameters().values()]


class Recorder(bp.Callback):
    """Notes every call of every hook."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

        def record(hook: str) -> Any:
            return lambda *arguments: self.calls.append((hook, *arguments))

        for hook in dir(bp.Callback):
            if hook.startswith("on_") and "_batch_" not in hook.replace("on_batch", ""):
                setattr(self, hook, record(hook))
        for hook in ("on_train_batch_begin", "on_train_batch_end"):
            setattr(self, hook, record(hook))

    def names(self) -> list[str]:
        return [call[0] for call in self.calls]


class Script(bp.Callback):
    """Puts given values into the logs, one for each epoch."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        assert logs is not None
        logs["scripted"] = self.values[epoch]


class Weights(bp.Callback):
    """Keeps the parameters as they are at the end of each epoch."""

    def __init__(self) -> None:
        self.kept: list[list[bytes]] = []

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.kept.append(bits(self.model))


def test_every_hook_is_called_in_keras_order() -> None:
    x, y = data(40)
    recorder = Recorder()
    make("reference").fit(x, y, epochs=2, batch_size=16, validation_split=0.2, callbacks=recorder)
    batch = ["on_train_batch_begin", "on_train_batch_end"]
    epoch = ["on_epoch_begin", *batch * 2, "on_test_begin", "on_test_end", "on_epoch_end"]
    assert recorder.names() == ["on_train_begin", *epoch * 2, "on_train_end"]
    assert [call[1] for call in recorder.calls if call[0] == batch[1]] == [0, 1, 0, 1]


def test_batch_logs_are_the_means_so_far(device: str) -> None:
    x, y = data()
    recorder, model, other = Recorder(), make(device), make(device)
    history = model.fit(x, y, batch_size=16, shuffle=False, callbacks=recorder)
    logs = [call[2] for call in recorder.calls if call[0] == "on_train_batch_end"]
    losses = [other.step(x[at : at + 16], y[at : at + 16]) for at in range(0, 50, 16)]
    sizes = [16, 16, 16, 2]
    for count in range(1, 5):
        mean = np.average(losses[:count], weights=sizes[:count])
        assert logs[count - 1]["loss"] == pytest.approx(mean, rel=1e-12)
    assert logs[-1]["loss"] == history.history["loss"][0]
    assert logs[-1]["accuracy"] == history.history["accuracy"][0]


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "half_sse"])
def test_watching_batches_changes_no_bit(device: str, loss: str) -> None:
    x, y = data()
    target = y if loss == "softmax_cross_entropy" else np.eye(3)[y]
    watched, alone = make(device, loss=loss), make(device, loss=loss)
    one = watched.fit(x, target, epochs=3, batch_size=16, callbacks=Recorder())
    two = alone.fit(x, target, epochs=3, batch_size=16)
    assert bits(watched) == bits(alone)
    assert one.history == two.history


@pytest.mark.parametrize("name", ["on_batch_end", "on_train_batch_end"])
def test_both_names_of_a_batch_hook_work(name: str) -> None:
    class Mine(bp.Callback):
        count = 0

    def hook(self: Mine, batch: int, logs: Logs = None) -> None:
        self.count += 1

    setattr(Mine, name, hook)
    x, y = data()
    mine = Mine()
    make("reference").fit(x, y, epochs=2, batch_size=16, callbacks=mine)
    assert mine.count == 8


def test_batches_cost_calls_only_where_they_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    train = sources.ArraySource._call
    monkeypatch.setattr(
        sources.ArraySource, "_call", lambda self, *a: (calls.append(1), train(self, *a))
    )

    def count(*callbacks: bp.Callback) -> int:
        calls.clear()
        make().fit(*data(), epochs=3, batch_size=5, callbacks=callbacks)
        return len(calls)

    class Every4(bp.Callback):
        batch_interval = 4

        def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
            pass

    assert count(bp.Callback()) == count(Weights()) == 3
    assert count(Recorder()) == 30
    assert count(Every4()) == 9  # behind steps 4 8 | 12 16 20 | 24 28, and at each epoch's end
    assert count() <= 3


def test_a_batch_hook_can_stop_the_run() -> None:
    class Stop(bp.Callback):
        def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
            if batch == 1 and self.model.epochs_trained == 2:
                self.stop("enough")

    x, y = data()
    model, other = make(), make()
    history = model.fit(x, y, epochs=9, batch_size=16, callbacks=Stop())
    assert history.epoch == [0, 1]
    assert (model.epochs_trained, history.stop_reason) == (2, "enough")
    other.fit(x, y, epochs=2, batch_size=16)
    order = bp.reference.random.permutation(50, 5, 2)
    for at in (0, 16):
        other.step(x[order[at : at + 16]], y[order[at : at + 16]])
    assert bits(model) == bits(other)


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_train_batch_begin", "on_epoch_begin"])
def test_an_error_says_where_and_leaves_a_step_boundary(hook: str) -> None:
    def fail(number: int, logs: Logs = None) -> None:
        if number == 2:
            raise KeyError("mine")

    x, y = data()
    model, other = make(), make()
    with pytest.raises(KeyError, match="mine") as caught:
        model.fit(x, y, epochs=4, batch_size=16, callbacks=bp.LambdaCallback(**{hook: fail}))
    assert model.history is not None
    assert model.history.stop_reason == f"KeyError in LambdaCallback.{hook}"
    steps = {"on_train_batch_end": 3, "on_train_batch_begin": 2, "on_epoch_begin": 8}[hook]
    if sys.version_info >= (3, 11):
        (note,) = caught.value.__notes__
        place = f"epoch {steps // 4 + 1}, {steps % 4} of 4 steps"
        assert f"LambdaCallback.{hook} in {place}" in note
    for epoch in range(3):
        order = bp.reference.random.permutation(50, 5, epoch)
        for at in range(0, 50, 16):
            if steps > 0:
                other.step(x[order[at : at + 16]], y[order[at : at + 16]])
            steps -= 1
    assert bits(model) == bits(other)


def test_test_hooks_in_evaluate() -> None:
    calls: list[Any] = []

    class Watch(bp.Callback):
        def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
            calls.append((batch, logs))

        def on_test_end(self, logs: Logs = None) -> None:
            calls.append(logs)

    x, y = data()
    model = make()
    scores = model.evaluate(x, y, batch_size=20, callbacks=Watch())
    plain = model.evaluate(x, y)
    assert [call[0] for call in calls[:3]] == [0, 1, 2]
    assert calls[3] == scores == pytest.approx(plain, rel=1e-12)


# What each of these scripts should do to EarlyStopping: settings, epochs run, best epoch.
STOPPING = [
    ((5, 4, 3, 3, 3, 3, 3), {"patience": 2}, 5, 2),
    ((5, 4, 3, 3, 3, 3, 3), {"patience": 0}, 4, 2),
    ((5, 4, 3, 2, 1, 0, 0), {"patience": 1}, 7, 5),
    ((5, 4.9, 4.8, 4.7, 3, 2, 1), {"patience": 2, "min_delta": 0.5}, 3, 0),
    ((1, 9, 9, 5, 6, 7, 7), {"patience": 2, "start_from_epoch": 3}, 6, 3),
    ((5, 6, 7, 7, 7, 7, 7), {"patience": 2, "mode": "max"}, 5, 2),
    ((5, 4, 3, 2, 1, 0, 0), {"patience": 3, "baseline": -1.0}, 3, 2),
    ((math.nan, 5, math.nan, math.nan, 1, 1, 1), {"patience": 2}, 4, 1),
    ((math.nan, 5, 4, 3, 2, 1, math.inf), {}, 1, -1),  # the last is the best of none
]


@pytest.mark.parametrize(("values", "settings", "epochs", "best"), STOPPING)
def test_early_stopping(values: Any, settings: dict[str, Any], epochs: int, best: int) -> None:
    x, y = data()
    weights = Weights()
    stopping = bp.EarlyStopping("scripted", **settings)
    model = make()
    history = model.fit(x, y, epochs=7, callbacks=[weights, Script(*values), stopping])
    assert len(history.epoch) == epochs
    assert stopping.best_epoch == best
    assert stopping.best == values[best]
    assert history.history["scripted"] == pytest.approx(values[:epochs], nan_ok=True)
    assert bits(model) == weights.kept[best]
    stopped = epochs < 7 or (settings.get("patience", 0) == 1 and epochs == 7 and values[6] == 0)
    assert (history.stop_reason == "early_stopping") == stopped
    again = make()
    kept = bp.EarlyStopping("scripted", restore_best_weights=False, **settings)
    again.fit(x, y, epochs=7, callbacks=[Script(*values), kept])
    assert bits(again) == weights.kept[epochs - 1]


def test_early_stopping_on_validation_accuracy_wants_it_large() -> None:
    x, y = data(200)
    stopping = bp.EarlyStopping("val_accuracy", patience=3)
    model = make(optimizer=bp.Adam(0.05))
    history = model.fit(x, y, epochs=60, validation_split=0.25, callbacks=stopping)
    assert stopping.best == max(history.history["val_accuracy"])
    assert model.evaluate(x[150:], y[150:])["accuracy"] == stopping.best
    assert history.stop_reason == "early_stopping"


def test_fit_ends_when_the_loss_stands_still(tmp_path: Path) -> None:
    """By scikit-learn's rule over the losses; a run that was stopped goes on with its count."""
    x, y = data()

    def epochs_until_converged(losses: list[float], tol: float, patience: int) -> int:
        wait, best = 0, float("inf")
        for epoch, loss in enumerate(losses):
            wait = wait + 1 if loss > best - tol else 0
            best = min(best, loss)
            if wait >= patience:
                return epoch + 1
        return len(losses)

    whole = make().fit(x, y, epochs=60).history["loss"]
    for tol, patience in ((0.02, 1), (0.01, 3), (0.005, 10), (0.0, 5)):
        history = make().fit(x, y, epochs=60, tol=tol, patience=patience)
        expected = epochs_until_converged(whole, tol, patience)
        assert history.history["loss"] == whole[:expected]
        assert history.stop_reason == ("converged" if expected < 60 else "epochs")
    assert epochs_until_converged(whole, 0.02, 1) < epochs_until_converged(whole, 0.01, 3) < 60

    class Stop(bp.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2 and not (tmp_path / "net").exists():
                self.model.save(tmp_path / "net")

    def fit(**more: Any) -> Any:
        return make().fit(x, y, epochs=60, tol=0.01, patience=3, callbacks=Stop(), **more)

    assert fit().history == fit(resume=tmp_path / "net").history
    for arguments, error in (
        ({"patience": 3}, ValueError),
        ({"tol": -1.0}, ValueError),
        ({"tol": "small"}, TypeError),
        ({"tol": 0.1, "patience": 0}, ValueError),
    ):
        model = make()
        with pytest.raises(error, match=r"tol|patience"):
            model.fit(x, y, **arguments)
        assert model.history is None


@pytest.mark.parametrize("kind", [bp.EarlyStopping, bp.ReduceLROnPlateau])
def test_a_name_that_the_logs_lack_is_refused_at_the_top(kind: Any) -> None:
    x, y = data()
    model = make()
    with pytest.raises(ValueError, match="validation_split or validation_data"):
        model.fit(x, y, callbacks=kind("val_loss"))
    with pytest.raises(ValueError, match="watches 'los', but the logs have 'accuracy', 'lear"):
        model.fit(x, y, callbacks=kind("los"))
    assert model.inputs is None
    assert model.history is None
    with pytest.raises(ValueError, match="watches 'los'"):  # somebody's own callback may add names
        model.fit(x, y, callbacks=[Script(1), kind("los")])


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"patience": -1}, ValueError),
        ({"mode": "larger"}, ValueError),
        ({"min_delta": -0.1}, ValueError),
        ({"monitor": 3}, TypeError),
        ({"restore_best_weights": 1}, TypeError),
    ],
)
def test_wrong_settings(wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(wrong))):
        bp.EarlyStopping(**wrong)


def test_reduce_on_plateau() -> None:
    x, y = data()
    values = (5, 4, 4, 4, 4, 4, 4, 4, 4, 4)
    plateau = bp.ReduceLROnPlateau("scripted", factor=0.5, patience=2, cooldown=2, min_lr=0.03)
    model = make(optimizer=bp.SGD(0.1))
    history = model.fit(x, y, epochs=10, callbacks=[Script(*values), plateau])
    rates = [0.1] * 4 + [0.05] * 3 + [0.03] * 3
    assert history.history["learning_rate"] == pytest.approx(rates)


def test_learning_rate_scheduler() -> None:
    x, y = data()
    model = make(optimizer=bp.SGD(0.5))
    scheduler = bp.LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch else rate)
    history = model.fit(x, y, epochs=4, callbacks=scheduler)
    assert history.history["learning_rate"] == [0.5, 0.25, 0.125, 0.0625]
    by_epoch = bp.LearningRateScheduler(lambda epoch: 1 / (epoch + 2))
    assert model.fit(x, y, epochs=2, callbacks=by_epoch).history["learning_rate"] == [1 / 2, 1 / 3]
    with pytest.raises(TypeError, match="argument"):
        model.fit(x, y, callbacks=bp.LearningRateScheduler(lambda: 1.0))
    with pytest.raises(ValueError, match="learning_rate"):
        model.fit(x, y, callbacks=bp.LearningRateScheduler(lambda epoch, rate: -1.0))
    with pytest.raises(TypeError, match="schedule must be a function"):
        bp.LearningRateScheduler(0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize("save_freq", ["epoch", 3])
def test_checkpoints_in_the_background(save_freq: str | int, tmp_path: Path) -> None:
    """Every file holds the model of its step, byte for byte, while that has trained on."""
    x, y = data()
    for name, behind in (("first", False), ("behind", True)):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "{epoch}-{batch}"
        saver = bp.ModelCheckpoint(path, save_freq=save_freq, background=behind)
        make().fit(x, y, epochs=3, batch_size=16, callbacks=saver)
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert len(files) >= 3
    assert files == sorted(path.name for path in (tmp_path / "behind").iterdir())
    for name in files[:-1]:
        wanted, found = (bp.load(tmp_path / kind / name) for kind in ("first", "behind"))
        for key, value in wanted.parameters().items():
            np.testing.assert_array_equal(found.parameters()[key], value)


def test_a_checkpoint_that_fails_in_the_background_is_heard_of(tmp_path: Path) -> None:
    x, y = data()
    saver = bp.ModelCheckpoint(tmp_path / "missing" / "net", background=True)
    with pytest.raises(FileNotFoundError):
        make().fit(x, y, epochs=1, callbacks=saver)
    with pytest.raises(FileNotFoundError):
        make().fit(x, y, epochs=3, callbacks=saver)


@pytest.mark.parametrize("kind", [bp.ModelCheckpoint, bp.CSVLogger])
def test_a_missing_folder_is_heard_of_before_the_first_step(kind: Any, tmp_path: Path) -> None:
    x, y = data()
    model, epochs = make(), []
    watcher = bp.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        model.fit(x, y, callbacks=[kind(tmp_path / "missing" / "file"), watcher])
    assert not epochs and model.epochs_trained == 0


def test_checkpoints(tmp_path: Path) -> None:
    x, y = data()
    weights = Weights()
    every = bp.ModelCheckpoint(tmp_path / "{epoch:02d}-{scripted:.0f}.safetensors")
    best = bp.ModelCheckpoint(tmp_path / "best", monitor="scripted", save_best_only=True)
    make().fit(x, y, epochs=4, callbacks=[weights, Script(3, 2, 4, 5), every, best])
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == [*(f"{e:02d}-{v}.safetensors" for e, v in enumerate((3, 2, 4, 5), 1)), "best"]
    assert bits(bp.load(tmp_path / "best")) == weights.kept[1]
    for name, kept in zip(names[:4], weights.kept, strict=True):
        assert bits(bp.load(tmp_path / name)) == kept
    with pytest.raises(ValueError, match="which the logs do not have"):
        make().fit(x, y, callbacks=bp.ModelCheckpoint(tmp_path / "{val_loss}"))
    for field in ("{epoch:z}", "{loss[0]}", "{loss.none}"):
        with pytest.raises(ValueError, match="cannot be filled in"):
            make().fit(x, y, callbacks=bp.ModelCheckpoint(tmp_path / field))
    for name in ("net-{", "net-}", "net-{epoch"):
        with pytest.raises(ValueError, match="has braces that are no fields"):
            bp.ModelCheckpoint(name)
    make().fit(x, y, epochs=1, callbacks=bp.ModelCheckpoint(tmp_path / "{{}}"))
    assert (tmp_path / "{}").exists()


def test_checkpoints_by_steps(tmp_path: Path) -> None:
    x, y = data()
    path = tmp_path / "{epoch}-{batch}"
    make().fit(x, y, epochs=3, batch_size=16, callbacks=bp.ModelCheckpoint(path, save_freq=5))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["2-1", "3-2"]
    steps = [bp.load(tmp_path / name)._require_built().steps for name in ("2-1", "3-2")]
    assert steps == [5, 10]
    for wrong in ({"save_freq": "batch"}, {"save_freq": 3, "save_best_only": True}):
        with pytest.raises(ValueError, match="save_freq"):
            bp.ModelCheckpoint(path, **wrong)


def test_csv_logger(tmp_path: Path) -> None:
    x, y = data()
    file = tmp_path / "log.csv"
    model = make()
    histories = [
        model.fit(x, y, epochs=2, validation_split=0.2, callbacks=bp.CSVLogger(file, append=append))
        for append in (False, True)
    ]
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["epoch"] for row in rows] == ["0", "1", "0", "1"]
    for name in histories[0].history:
        values = [value for history in histories for value in history.history[name]]
        assert [float(row[name]) for row in rows] == values
    model.fit(x, y, callbacks=bp.CSVLogger(file, separator=";"))
    assert file.read_text().splitlines()[0] == "epoch;loss;accuracy;learning_rate"
    file.write_text("epoch,loss\n0,1.5")  # the last line left open
    model.fit(x, y, callbacks=bp.CSVLogger(file, append=True))
    assert file.read_text().splitlines()[:2] == ["epoch,loss", "0,1.5"]
    assert len(file.read_text().splitlines()) == 3
    file.write_bytes(b"\xff\xfe\x00")
    steps = model._require_built().steps
    with pytest.raises(ValueError, match="is no text"):
        model.fit(x, y, callbacks=bp.CSVLogger(file, append=True))
    with pytest.raises(IsADirectoryError):
        model.fit(x, y, callbacks=bp.CSVLogger(tmp_path))
    assert model._require_built().steps == steps
    for separator in ('"', "\n", "\r", "", ", "):
        with pytest.raises(ValueError, match="separator must be one character"):
            bp.CSVLogger(file, separator=separator)


@pytest.mark.parametrize("value", [np.float32(0.5), np.array(0.5), True, 2])
def test_numbers_in_the_logs_become_floats(value: Any, tmp_path: Path) -> None:
    x, y = data()
    adds = bp.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(own=value))
    history = make().fit(x, y, epochs=2, callbacks=[adds, bp.CSVLogger(tmp_path / "log.csv")])
    assert history.history["own"] == [float(value)] * 2
    assert all(type(own) is float for own in history.history["own"])


@pytest.mark.parametrize(
    "logs", [{"own": "a word"}, {"own": None}, {"own": np.ones(3)}, {"own": 1j}, {3: 1.0}]
)
def test_what_is_no_number_in_the_logs_is_refused(logs: Any, tmp_path: Path) -> None:
    x, y = data()
    model, seen = make(), []
    adds = bp.LambdaCallback(on_epoch_end=lambda epoch, found: found.update(logs))
    behind = bp.LambdaCallback(on_epoch_end=lambda epoch, found: seen.append(epoch))
    with pytest.raises(TypeError, match="must be a number under a name"):
        model.fit(x, y, epochs=2, callbacks=[adds, behind])
    assert model.history.stop_reason == "TypeError in LambdaCallback.on_epoch_end"
    assert not seen and model.epochs_trained == 1


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    x, y = data()
    board = bp.TensorBoard(tmp_path, update_freq=2)
    history = make().fit(x, y, epochs=3, batch_size=16, validation_split=0.2, callbacks=board)
    for part, name in (("train", "loss"), ("validation", "val_loss")):
        (events,) = (tmp_path / part).iterdir()
        found = scalars(events)
        assert found["loss"] == pytest.approx(dict(enumerate(history.history[name])), rel=1e-6)
        assert ("batch_loss" in found) == (part == "train")


def scalars(events: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard would read: {tag: {step: value}}. A record is its length, 4 bytes of a sum,
    an event, 4 bytes of a sum."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, dict[int, float]] = {}
    content, at = events.read_bytes(), 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 8], "little")
        event = Event.FromString(content[at + 12 : at + 12 + size])
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
        at += size + 16
    return found


def test_tensorboard_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match="pip install tensorboardX"):
        bp.TensorBoard()


def test_tensorboard_misses_its_folder_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=None))
    (tmp_path / "file").write_text("no folder")
    x, y = data()
    model = make()
    model.build(x.shape[1])
    before = model.parameters()["0.kernel"].copy()
    for place in ("file", "file/logs"):
        with pytest.raises(OSError, match=str(tmp_path / "file")):
            model.fit(x, y, callbacks=bp.TensorBoard(tmp_path / place))
    np.testing.assert_array_equal(model.parameters()["0.kernel"], before)


def test_terminate_on_nan() -> None:
    x, _ = data()
    model = make("reference", loss="mse", optimizer=bp.SGD(1e30), metrics=None)
    with pytest.warns(RuntimeWarning, match="diverged"):
        history = model.fit(x, np.ones((50, 3)), epochs=9, callbacks=bp.TerminateOnNaN())
    assert history.stop_reason == "not_finite"
    assert len(history.epoch) < 9


def test_lambda_callback_knows_the_hooks() -> None:
    with pytest.raises(TypeError, match="has no hook 'on_epoch'"):
        bp.LambdaCallback(on_epoch=print)
    with pytest.raises(TypeError, match="on_epoch_end must be a function"):
        bp.LambdaCallback(on_epoch_end=3)
    with pytest.raises(TypeError, match="with parentheses"):
        make().fit(*data(), callbacks=[bp.EarlyStopping])  # type: ignore[list-item]


def test_gradient_norms_are_those_of_the_last_batch(device: str) -> None:
    x, y = data()
    model = make(device)
    history = model.fit(x, y, epochs=2, batch_size=16, gradient_norms=True)
    rows = bp.reference.random.permutation(50, 5, 1)[48:]
    _, gradients = model.gradients(x[rows], y[rows])
    for layer in (0, 1):
        parts = [g for name, g in gradients.items() if name.startswith(f"{layer}.")]
        expected = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in parts))
        assert history.history[f"gradient_norm_{layer}"][1] == pytest.approx(expected, rel=1e-9)
    other = make(device)
    other.fit(x, y, epochs=2, batch_size=16)
    assert bits(model) == bits(other)


def test_stratified_split_keeps_the_shares() -> None:
    x, _ = data(100)
    y = np.array([0] * 70 + [1] * 24 + [2] * 6)
    model, given = make(), make()
    one = model.fit(x, y, epochs=2, validation_split=0.25, stratify=True)
    held = np.r_[53:70, 88:94, 98:100]  # 17.5, 6 and 1.5 rows: the last of each class
    kept = np.setdiff1d(np.arange(100), held)
    two = given.fit(x[kept], y[kept], epochs=2, validation_data=(x[held], y[held]))
    assert one.history == two.history
    assert bits(model) == bits(given)
    hot = make()
    hot.fit(x, np.eye(3)[y], epochs=2, validation_split=0.25, stratify=True)
    assert hot.history is not None
    assert hot.history.params["samples"] == 75
    with pytest.raises(ValueError, match="which is 0"):
        model.fit(x, y, stratify=True)
    with pytest.raises(ValueError, match="one class for each row"):
        make(loss="mse").fit(x, np.eye(3)[y], validation_split=0.25, stratify=True)


def test_history_as_plain_data(tmp_path: Path) -> None:
    x, y = data()
    model = make()
    history = model.fit(x, y, epochs=3, callbacks=Script(1.0, 2.0, 3.0))
    table = history.to_dict()
    assert table["epoch"] == [0, 1, 2]
    assert {name: values for name, values in table.items() if name != "epoch"} == history.history
    history.to_csv(tmp_path / "history.csv")
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["scripted"]) for row in rows] == [1, 2, 3]
    assert [float(row["loss"]) for row in rows] == history.history["loss"]
    assert history.stop_reason == "epochs"


def test_history_fills_gaps() -> None:
    history = bp.History({})
    history.append(0, {"loss": 1.0})
    history.append(1, {"loss": 2.0, "late": 3.0})
    history.append(2, {"loss": 4.0})
    assert history.history["loss"] == [1, 2, 4]
    np.testing.assert_equal(history.history["late"], [np.nan, 3, np.nan])
