"""fit: what it trains on, in which order, what it returns and shows, how it stops.

The promise under test: however an amount of training is cut up (one call or many, with callbacks or
without, with save and load between), the parameters come out with the same bits.
"""

import io
import sys
import time
from typing import Any

import numpy as np
import pytest

import fastbp as bp
import machine
from fastbp import progress


def make(device: str, *, metrics: list[str] | None = None, **settings: Any) -> bp.Sequential:
    model = bp.Sequential([bp.Dense(6, activation="relu"), bp.Dense(3)], seed=5)
    settings = {"loss": "softmax_cross_entropy", "device": device, **settings}
    model.compile(metrics=metrics, **settings)
    return model


def data(rows: int = 50) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(rows, 4)).astype(np.float32)
    return x, (x @ rng.normal(size=(4, 3))).argmax(axis=1)


def bits(model: bp.Sequential) -> list[bytes]:
    return [p.tobytes() for p in model.parameters().values()]


class Recorder(bp.Callback):
    """Notes every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.calls.append(("train begin", dict(self.params)))

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self.calls.append(("train end", logs))

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.calls.append(("begin", epoch))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        self.calls.append(("end", epoch, logs))


def test_learns(device: str) -> None:
    x, y = data(200)
    model = make(device, metrics=["accuracy"], optimizer=bp.Adam(0.02))
    history = model.fit(x, y, epochs=60)
    assert history.history["loss"][-1] < 0.3 * history.history["loss"][0]
    assert model.evaluate(x, y)["accuracy"] > 0.95


def test_a_step_on_all_rows_is_an_epoch(device: str) -> None:
    x, y = data()
    one, two = make(device), make(device)
    history = one.fit(x, y, epochs=3, batch_size=50, shuffle=False)
    losses = [two.step(x, y.astype(np.int64)) for _ in range(3)]
    assert bits(one) == bits(two)
    np.testing.assert_allclose(history.history["loss"], losses, rtol=1e-12)


def test_batches_are_consecutive_rows_without_shuffling(device: str) -> None:
    x, y = data(50)
    one, two = make(device), make(device)
    one.fit(x, y, batch_size=16, shuffle=False)
    for start in range(0, 50, 16):  # the last batch has 2 rows
        two.step(x[start : start + 16], y[start : start + 16])
    assert bits(one) == bits(two)


@pytest.mark.parametrize("size", [51, 2**63, 2**70])
def test_a_batch_of_more_rows_than_there_are_is_all_of_them(device: str, size: int) -> None:
    x, y = data(50)
    one, two = make(device), make(device)
    one.fit(x, y, epochs=2, batch_size=size)
    two.fit(x, y, epochs=2, batch_size=50)
    assert bits(one) == bits(two)
    assert one.evaluate(x, y, batch_size=size) == two.evaluate(x, y, batch_size=50)


def test_shuffled_batches_follow_the_documented_permutation(device: str) -> None:
    x, y = data(50)
    one, two = make(device), make(device)
    one.fit(x, y, epochs=2, batch_size=16)
    for epoch in range(2):
        order = bp.reference.random.permutation(50, 5, epoch)
        for start in range(0, 50, 16):
            rows = order[start : start + 16]
            two.step(x[rows], y[rows])
    assert bits(one) == bits(two)


@pytest.mark.parametrize("cut", ["calls", "callback", "validation", "files"])
def test_training_in_pieces_has_the_same_bits(device: str, cut: str, tmp_path: Any) -> None:
    x, y = data()
    whole, model = make(device), make(device)
    whole.fit(x, y, epochs=6)
    if cut == "calls":
        for epochs in (1, 3, 2):
            model.fit(x, y, epochs=epochs)
    elif cut == "callback":
        model.fit(x, y, epochs=6, callbacks=[bp.Callback()])
    elif cut == "validation":
        model.fit(x, y, epochs=6, validation_data=(x[:9], y[:9]))
    else:
        for _ in range(3):
            model.fit(x, y, epochs=2)
            model.save(tmp_path / "model.safetensors")
            model = bp.load(tmp_path / "model.safetensors", device=device)
    assert bits(model) == bits(whole)
    assert model.epochs_trained == whole.epochs_trained == 6


def test_many_short_epochs_are_all_recorded(device: str) -> None:
    """Enough epochs that the engine is called for many at once."""
    x, y = data(8)
    model, single = make(device), make(device)
    history = model.fit(x, y, epochs=300, batch_size=8)
    assert history.epoch == list(range(300))
    watched = single.fit(x, y, epochs=300, batch_size=8, callbacks=bp.Callback())
    assert history.history == watched.history
    assert bits(model) == bits(single)


def test_validation_split_takes_the_end_before_shuffling(device: str) -> None:
    x, y = data(50)
    split, given = make(device, metrics=["accuracy"]), make(device, metrics=["accuracy"])
    one = split.fit(x, y, epochs=3, validation_split=0.2)
    two = given.fit(x[:40], y[:40], epochs=3, validation_data=(x[40:], y[40:]))
    assert one.history == two.history
    measured = ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert list(one.history) == [*measured, "learning_rate"]
    assert all(len(values) == 3 for values in one.history.values())
    last = split.evaluate(x[40:], y[40:])
    assert last["loss"] == one.history["val_loss"][-1]
    assert last["accuracy"] == one.history["val_accuracy"][-1]
    assert one.params == {"epochs": 3, "batch_size": 32, "steps": 2, "samples": 40}


@pytest.mark.parametrize(("rows", "split", "kept"), [(10, 0.9, 1), (10, 0.1, 9), (7, 0.5, 3)])
def test_validation_split_counts(rows: int, split: float, kept: int) -> None:
    x, y = data(rows)
    assert make("reference").fit(x, y, validation_split=split).params["samples"] == kept


def test_epoch_loss_is_the_mean_over_rows(device: str) -> None:
    """With learning rate 0 every batch sees the same parameters: an epoch is an evaluation.

    float32 network, sums of 50 terms in float64 of values with relative error 1e-6.
    """
    x, y = data(50)
    model = make(device, optimizer=bp.SGD(0.0), metrics=["accuracy", "mse", "mae"])
    logs = model.fit(x, y, batch_size=7).history
    values = model.evaluate(x, y, batch_size=11)
    assert set(logs) == {*values, "learning_rate"}
    for name, value in values.items():
        assert logs[name][0] == pytest.approx(value, rel=1e-6)


def test_half_sse_adds_up_over_the_batches(device: str) -> None:
    x, _ = data(50)
    model = make(device, loss="half_sse", optimizer=bp.SGD(0.0), dtype="float64")
    y = np.ones((50, 3))
    expected = ((model.predict(x) - y) ** 2).sum() / 2
    assert model.fit(x, y, batch_size=7).history["loss"][0] == pytest.approx(expected, rel=1e-12)


def test_no_epochs_change_nothing(device: str) -> None:
    x, y = data()
    model = make(device)
    model.build(4)
    before = bits(model)
    history = model.fit(x, y, epochs=0)
    assert history.epoch == []
    assert history.history == {}
    assert bits(model) == before


def test_callbacks_are_called_in_keras_order() -> None:
    x, y = data()
    recorder = Recorder()
    model = make("reference", metrics=["accuracy"])
    history = model.fit(x, y, epochs=2, validation_split=0.5, callbacks=[recorder])
    assert recorder.model is model
    kinds = [call[0] for call in recorder.calls]
    assert kinds == ["train begin", "begin", "end", "begin", "end", "train end"]
    assert recorder.calls[0][1] == history.params
    for epoch in (0, 1):
        assert recorder.calls[1 + 2 * epoch][1] == epoch
        _, number, logs = recorder.calls[2 + 2 * epoch]
        assert number == epoch
        assert logs == {name: values[epoch] for name, values in history.history.items()}


def test_a_callback_can_stop_and_change_the_learning_rate() -> None:
    class Stop(bp.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            self.model.optimizer.learning_rate *= 0.5
            self.model.stop_training = epoch == 2

    x, y = data()
    model = make("reference", optimizer=bp.SGD(0.8))
    history = model.fit(x, y, epochs=10, callbacks=Stop())
    assert history.epoch == [0, 1, 2]
    assert model.optimizer.learning_rate == pytest.approx(0.1)
    assert model.epochs_trained == 3
    assert len(model.fit(x, y, epochs=2).epoch) == 2  # the flag is taken back


def test_an_error_in_a_callback_leaves_the_epochs_done() -> None:
    class Fail(bp.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            if epoch == 1:
                raise KeyError("mine")

    x, y = data()
    model, other = make("reference"), make("reference")
    with pytest.raises(KeyError, match="mine"):
        model.fit(x, y, epochs=5, callbacks=[Fail()])
    other.fit(x, y, epochs=2)
    assert bits(model) == bits(other)
    assert model.history is not None
    assert model.history.epoch == [0, 1]


@pytest.mark.parametrize("watched", [False, True])
def test_interrupt_leaves_a_usable_model(device: str, watched: bool) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2000, 64)).astype(np.float32), np.arange(2000) % 3
    model = bp.Sequential([bp.Dense(128, activation="tanh"), bp.Dense(3)], seed=0)
    model.compile(loss="softmax_cross_entropy", device=device)
    model.build(64)
    callback = bp.Callback() if watched else None
    with (
        pytest.raises(KeyboardInterrupt),
        machine.ctrl_c_when(lambda: model.epochs_trained > 0, 0.05) as sent,
    ):
        model.fit(x, y, epochs=10**6, callbacks=callback)
    assert time.perf_counter() - sent[0] < 20  # how soon it is: test_runtime.py
    assert model.history is not None
    epochs = model.epochs_trained
    assert len(model.history.epoch) == len(model.history.history.get("loss", [])) <= epochs
    model.fit(x, y)
    assert model.epochs_trained == epochs + 1
    assert np.isfinite(model.predict(x)).all()


def test_divergence_is_announced_once() -> None:
    x, _ = data()
    model = make("reference", loss="mse", optimizer=bp.SGD(1e30))
    with pytest.warns(RuntimeWarning, match="diverged") as warned:
        model.fit(x, np.ones((50, 3)), epochs=5)
    assert len(warned) == 1 and warned[0].filename == __file__


@pytest.mark.parametrize(
    ("loss", "activation", "said"),
    [
        ("binary_cross_entropy", None, "takes probabilities"),
        ("binary_cross_entropy_with_logits", "sigmoid", "takes logits"),
        ("softmax_cross_entropy", "sigmoid", "takes logits"),
        ("softmax_cross_entropy", "softmax", "takes logits, but the network ends in a softmax"),
    ],
)
def test_unlikely_ends_are_announced(loss: str, activation: str | None, said: str) -> None:
    softmax = activation == "softmax"
    last = [bp.Dense(2), bp.Softmax()] if softmax else [bp.Dense(2, activation=activation)]
    model = bp.Sequential(last)
    with pytest.warns(UserWarning, match=said):
        model.compile(loss=loss)


def test_nothing_is_shown_where_nobody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    x, y = data()
    make("reference").fit(x, y, epochs=3)
    make("reference").fit(x, y, epochs=3, verbose=0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("verbose", "shown"),
    [(2, range(1, 26)), (10, (10, 20, 25)), (1, range(3, 28, 3)), (True, None)],
)
def test_lines(capsys: pytest.CaptureFixture[str], verbose: int, shown: Any) -> None:
    x, y = data()
    history = make("reference", metrics=["accuracy"]).fit(x, y, epochs=25, verbose=verbose)
    lines = capsys.readouterr().out.splitlines()
    if shown is None:
        assert len(lines) == 9
        return
    numbers = [min(number, 25) for number in shown]
    assert [line.split(",")[0] for line in lines] == [f"Epoch [{n}/25]" for n in numbers]
    last = {name: values[-1] for name, values in history.history.items()}
    assert lines[-1] == f"Epoch [25/25], Loss: {last['loss']:.4f}, accuracy: {last['accuracy']:.4f}"


def test_plain_bar_rewrites_one_line() -> None:
    stream = io.StringIO()
    bar = progress.PlainBar(3, stream)
    bar.INTERVAL = 0
    for done in (1, 2, 3):
        bar.update(done, {"loss": 1 / done})
    bar.close()
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "epoch 3/3 [========================]" in text
    assert "loss 0.3333" in text


@pytest.mark.parametrize("missing", [(), ("rich",), ("rich", "tqdm")])
def test_a_bar_works_with_what_is_installed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], missing: tuple[str, ...]
) -> None:
    for name in list(sys.modules):
        if name.split(".")[0] in missing:
            monkeypatch.setitem(sys.modules, name, None)
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
        for part in ("console", "progress"):
            monkeypatch.setitem(sys.modules, f"{name}.{part}", None)
    bar = progress.bar(4)
    for done in range(1, 5):
        bar.update(done, {"loss": 0.5})
    bar.close()
    assert "loss 0.5000" in capfd.readouterr().err


def test_verbose_one_draws_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(progress, "bar", progress.PlainBar)
    x, y = data()
    for verbose in (1, "auto"):
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        make("reference").fit(x, y, epochs=2, verbose=verbose)
        assert "epoch 2/2" in stream.getvalue()


def test_history_repr_and_plot(tmp_path: Any) -> None:
    x, y = data()
    history = make("reference", metrics=["accuracy"]).fit(x, y, epochs=2, validation_split=0.5)
    assert repr(history).startswith("History(2 epochs: loss=")
    pytest.importorskip("matplotlib")
    figure = history.plot(tmp_path / "history.png")
    assert (tmp_path / "history.png").stat().st_size > 1000
    loss, *_ = figure.axes
    assert loss.lines[0].get_marker() == "."  # so that one epoch is seen, too
    assert all(tick == int(tick) for tick in loss.get_xticks())
