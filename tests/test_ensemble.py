"""Ensemble: members trained side by side have the bits of each trained alone, whatever happens."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import fastbp as bp
import machine
from fastbp import ensemble_training, pool

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 6))
Y = (X[:, 0] + X[:, 1] ** 2 > 0.8).astype(np.int64) + (X[:, 2] > 1)
DTYPES = ("float32", "float64")


@pytest.fixture(params=[1, 2, 5], autouse=True)
def threads(request: pytest.FixtureRequest) -> Any:
    before = bp.get_num_threads()
    bp.set_num_threads(request.param)
    yield request.param
    bp.set_num_threads(before)


def network(seed: int = 0, dropout: float = 0.2, units: int = 8) -> bp.Sequential:
    return bp.Sequential([bp.Dense(units, "tanh"), bp.Dropout(dropout), bp.Dense(3)], seed=seed)


def compiled(model: Any, optimizer: Any = "adam", **settings: Any) -> Any:
    settings = {"metrics": ["accuracy"], **settings}
    model.compile(optimizer, "softmax_cross_entropy", **settings)
    return model


def bits(model: bp.Sequential) -> bytes:
    return b"".join(array.tobytes() for array in model.parameters().values())


def require_same(member: bp.Sequential, alone: bp.Sequential) -> None:
    assert bits(member) == bits(alone)
    assert member.history is not None and alone.history is not None
    assert member.history.history == alone.history.history


@pytest.mark.parametrize("dtype", DTYPES)
def test_members_are_what_they_would_be_alone(dtype: str) -> None:
    rates = [1e-3, 1e-2, 3e-2]
    ensemble = compiled(bp.Ensemble(network(), 3, seed=7), [bp.Adam(r) for r in rates], dtype=dtype)
    histories = ensemble.fit(X, Y, epochs=4, batch_size=16, validation_split=0.25)
    assert histories == ensemble.histories
    for place, rate in enumerate(rates):
        alone = compiled(network(7 + place), bp.Adam(rate), dtype=dtype)
        alone.fit(X, Y, epochs=4, batch_size=16, validation_split=0.25)
        require_same(ensemble[place], alone)


def test_a_function_makes_members_of_any_shape() -> None:
    settings = [{"units": 4}, {"units": 9, "dropout": 0.5}, {"seed": 40}]
    ensemble = compiled(bp.Ensemble(network, seed=3, settings=settings))
    ensemble.fit(X, Y, epochs=2)
    for place, each in enumerate(settings):
        alone = compiled(network(**{"seed": 3 + place, **each}))
        alone.fit(X, Y, epochs=2)
        require_same(ensemble[place], alone)


@pytest.mark.parametrize("kind", ["masks", "numbers", "bootstrap"])
def test_each_member_is_trained_on_its_rows(kind: str) -> None:
    ensemble = compiled(bp.Ensemble(network(), 3, seed=1))
    weights = RNG.random((3, len(X)))
    if kind == "bootstrap":
        given: dict[str, Any] = {"bootstrap": True}
        rows = ensemble.bootstrap_rows(len(X))
        assert not np.array_equal(rows[0], rows[1])
        assert all(0.5 < len(np.unique(r)) / len(X) < 0.75 for r in rows)  # 1 - 1/e = 0.63
    else:
        masks = RNG.random((3, len(X))) < 0.5
        rows = [np.flatnonzero(mask) for mask in masks]
        given = {"rows": masks if kind == "masks" else rows}
    ensemble.fit(X, Y, epochs=3, sample_weight=weights, validation_data=(X, Y), **given)
    for place, member in enumerate(ensemble):
        alone, chosen = compiled(network(1 + place)), rows[place]
        alone.fit(
            X[chosen], Y[chosen], epochs=3, sample_weight=weights[place][chosen],
            validation_data=(X, Y),
        )  # fmt: skip
        require_same(member, alone)


def test_early_stopping_is_each_members_own() -> None:
    stopping = bp.EarlyStopping("val_loss", patience=1)
    ensemble = compiled(bp.Ensemble(network(), 4, seed=0), bp.SGD(0.8))
    ensemble.fit(X, Y, epochs=30, validation_split=0.3, callbacks=[stopping])
    lengths = [len(history.epoch) for history in ensemble.histories]
    assert len(set(lengths)) > 1 and min(lengths) < 30
    for place, member in enumerate(ensemble):
        alone = compiled(network(place), bp.SGD(0.8))
        alone.fit(X, Y, epochs=30, validation_split=0.3, callbacks=bp.EarlyStopping(patience=1))
        require_same(member, alone)
    assert stopping.best_epoch == -1  # members had copies


def test_callbacks_may_be_made_for_each_member(tmp_path: Path) -> None:
    ensemble = compiled(bp.Ensemble(network(), 2, seed=0))
    with pytest.raises(ValueError, match="function of the member's number"):
        ensemble.fit(X, Y, callbacks=bp.CSVLogger(tmp_path / "log.csv"))
    assert ensemble.histories == [None, None]
    ensemble.fit(X, Y, epochs=2, callbacks=lambda i: bp.CSVLogger(tmp_path / f"{i}.csv"))
    assert [(tmp_path / f"{i}.csv").read_text().count("\n") for i in range(2)] == [3, 3]


class Reporter(bp.Callback):
    """Notes how many threads its member has, in how many threads of Python, and keeps its own until
    there are as many as are expected: on a busy machine one thread may be through with all members
    before the next has begun."""

    seen: ClassVar[list[tuple[int, int]]] = []

    def __init__(self, expected: int) -> None:
        super().__init__()
        self.expected = expected

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen.append((bp.get_num_threads(), threading.get_ident()))
        patience = time.monotonic() + 60
        while len(self.threads()) < self.expected and time.monotonic() < patience:
            time.sleep(0.002)

    @classmethod
    def threads(cls) -> set[int]:
        return {thread for _, thread in cls.seen}


def test_there_are_never_more_threads_than_allowed(threads: int) -> None:
    Reporter.seen.clear()
    ensemble = compiled(bp.Ensemble(network(), 6, seed=0))
    ensemble.fit(X, Y, epochs=3, callbacks=Reporter(min(threads, 6)))
    assert len(Reporter.threads()) == min(threads, 6)
    if threads > 1:
        assert Reporter.seen[0][0] == 1
        assert {count for count, _ in Reporter.seen} <= {1, threads}
    assert bp.get_num_threads() == threads


def test_an_ensemble_inside_of_another_adds_no_threads() -> None:
    inner: list[bool] = []

    def train(epoch: int, logs: Any) -> None:
        small = compiled(bp.Ensemble(network(), 2, seed=0))
        small.fit(X[:20], Y[:20])
        inner.append(bits(small[0]) == expected)

    alone = compiled(network(0))
    alone.fit(X[:20], Y[:20])
    expected = bits(alone)
    outer = compiled(bp.Ensemble(network(), 3, seed=0))
    outer.fit(X, Y, callbacks=bp.LambdaCallback(on_epoch_end=train))
    assert inner == [True] * 3


class Failing(bp.Callback):
    """Fails once, in one member's second epoch. Those behind it wait until all have been told."""

    armed = True
    told: ClassVar[threading.Event] = threading.Event()

    def __init__(self, place: int) -> None:
        self.place = place

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.place == 1 and epoch == 1 and Failing.armed:
            Failing.armed = False
            raise OSError("the disk is full")
        if self.place > 1:
            self.told.wait(60)


def test_a_failing_member_is_named_and_the_others_can_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def close(side_by_side: pool.Pool, close: Any = pool.Pool.close) -> None:
        side_by_side._terms.stop()
        Failing.told.set()
        close(side_by_side)

    monkeypatch.setattr(pool.Pool, "close", close)
    Failing.armed = True
    Failing.told.clear()
    ensemble = compiled(bp.Ensemble(network(), 12, seed=0))
    with pytest.raises(
        bp.MemberError, match=r"member 1 \(seed 1\) failed with OSError: .*full"
    ) as e:
        ensemble.fit(X, Y, epochs=4, callbacks=Failing)
    assert e.value.member == 1 and isinstance(e.value.__cause__, OSError)
    assert ensemble.histories[11] is None
    Failing.told.set()
    ensemble.fit(X, Y, epochs=4, callbacks=Failing, resume=True)
    for place, member in enumerate(ensemble):
        alone = compiled(network(place))
        alone.fit(X, Y, epochs=4)
        require_same(member, alone)
    with pytest.raises(ValueError, match="come to its end"):
        ensemble.fit(X, Y, epochs=4, resume=True)


class Interrupting(bp.Callback):
    """Sends Ctrl-C to the process, once, from wherever it runs."""

    armed = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 2 and Interrupting.armed:
            Interrupting.armed = False
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.001)


@pytest.mark.parametrize("saved", [False, True])
def test_ctrl_c_stops_all_between_two_steps(saved: bool, tmp_path: Path) -> None:
    Interrupting.armed = True
    ensemble = compiled(bp.Ensemble(network(), 12, seed=0))
    with pytest.raises(KeyboardInterrupt):
        ensemble.fit(X, Y, epochs=100_000, callbacks=Interrupting())
    reasons = [None if h is None else h.stop_reason for h in ensemble.histories]
    assert "interrupted" in reasons and "epochs" not in reasons and None in reasons
    if saved:
        for member in ensemble:
            member.build(6)
        ensemble.save(tmp_path / "run")
        ensemble = bp.Ensemble.load(tmp_path / "run")
    ensemble.fit(X, Y, epochs=5, callbacks=Interrupting(), resume=True)
    for place, member in enumerate(ensemble):
        alone = compiled(network(place))
        alone.fit(X, Y, epochs=max(5, len(member.history.epoch)))
        require_same(member, alone)


def test_ctrl_c_reaches_a_call_of_the_engine_that_nobody_watches() -> None:
    ensemble = compiled(bp.Ensemble(network(units=256), 3, seed=0))
    first = ensemble[0]
    with (
        pytest.raises(KeyboardInterrupt),
        machine.ctrl_c_when(lambda: first.epochs_trained > 0, 0.05) as sent,
    ):
        ensemble.fit(X, Y, epochs=10**6)
    assert time.perf_counter() - sent[0] < 20
    assert ensemble.histories[0].stop_reason == "interrupted"
    assert len(ensemble.histories[0].epoch) > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": -1}, "epochs"),
        ({"sample_weight": -np.ones((3, 200))}, r"sample_weight\[0\] must be"),
        ({"rows": [[0, 1], [0, 200], [0]]}, r"rows\[1\] must lie between 0 and 199"),
        ({"rows": [[0]]}, "one entry for each of 3 members"),
        ({"rows": [[0], [], [1]]}, r"rows\[1\] must be a mask"),
        ({"bootstrap": True, "validation_split": 0.2}, "give validation_data"),
        ({"bootstrap": True, "rows": [[0]] * 3}, "not both"),
        ({"resume": True}, "come to its end"),
        ({"rows": [[0], [1], [2]], "sample_weight": np.arange(200.0)}, "must not be all 0"),
    ],
)
def test_wrong_arguments_change_nothing(settings: dict[str, Any], message: str) -> None:
    ensemble = compiled(bp.Ensemble(network(), 3, seed=0))
    with pytest.raises(ValueError, match=message):
        ensemble.fit(X, Y, **settings)
    assert ensemble.histories == [None] * 3
    assert all(member.inputs is None for member in ensemble)


def test_wrong_ensembles_are_refused() -> None:
    built = network()
    built.build(6)
    for make, message in (
        (lambda: bp.Ensemble(built, 3), "is built"),
        (lambda: bp.Ensemble(network()), "how many members"),
        (lambda: bp.Ensemble(network, 2, settings=[{}]), "lists 1 members, but n is 2"),
        (lambda: bp.Ensemble(lambda seed: built, 2), "appears twice"),
        (lambda: bp.Ensemble([]), "at least one"),
        (lambda: bp.Ensemble([network()], 2), "yet to be made"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match=r"write Ensemble\(Sequential\(\[...\]\), n\)"):
        bp.Ensemble([bp.Dense(3)], 2)  # type: ignore[list-item]
    with pytest.raises(TypeError, match="must be a Sequential"):
        bp.Ensemble(lambda seed: seed, 2)  # type: ignore[arg-type,return-value]
    for function, settings in ((lambda i: network(), None), (network, [{"widht": 3}] * 2)):
        with pytest.raises(
            TypeError, match=r"called with seed=\.\.\. and with its settings, by name"
        ):
            bp.Ensemble(function, 2, settings=settings)
    ensemble = bp.Ensemble(network(), 3, seed=0)
    with pytest.raises(ValueError, match="lists 2 optimizers for 3"):
        ensemble.compile(["adam", "sgd"], "mse")
    with pytest.raises(ValueError, match="unknown optimizer"):
        ensemble.compile(["adam", "sgd", "eve"], "mse")
    with pytest.raises(RuntimeError, match="not compiled"):
        ensemble[0].evaluate(X, Y)


def test_outputs_are_those_of_the_mean_probabilities() -> None:
    ensemble = compiled(bp.Ensemble(network(), 4, seed=0), bp.Adam(0.1), dtype="float64")
    ensemble.fit(X, Y, epochs=5)
    own = np.stack([member.predict_proba(X) for member in ensemble])
    mean, spread = ensemble.predict_proba(X, return_std=True)
    np.testing.assert_allclose(mean, own.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(spread, own.std(axis=0), rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(ensemble.predict(X), np.log(mean), rtol=0, atol=1e-12)
    assert np.array_equal(ensemble.predict_class(X), mean.argmax(axis=1))
    scores = ensemble.evaluate(X, Y)
    assert scores["loss"] == pytest.approx(-np.log(mean[np.arange(len(Y)), Y]).mean(), rel=1e-12)
    assert scores["accuracy"] == np.mean(mean.argmax(axis=1) == Y)
    weights = RNG.random(len(Y))
    weighted = ensemble.evaluate(X, Y, sample_weight=weights)["loss"]
    losses = -np.log(mean[np.arange(len(Y)), Y])
    assert weighted == pytest.approx(np.average(losses, weights=weights), rel=1e-12)
    assert ensemble.predict_members(X).shape == (4, len(X), 3)


def test_outputs_of_yes_or_no_and_of_quantities() -> None:
    target = (Y > 0).astype(np.float64)
    yes = bp.Ensemble(
        lambda seed: bp.Sequential([bp.Dense(4, "relu"), bp.Dense(1)], seed), 3, seed=0
    )
    yes.compile("adam", "binary_cross_entropy_with_logits", ["accuracy", "auc"], dtype="float64")
    yes.fit(X, target, epochs=3)
    mean = yes.predict_proba(X)
    np.testing.assert_allclose(yes.predict(X), np.log(mean / (1 - mean)), rtol=1e-10, atol=1e-12)
    assert yes.evaluate(X, target)["accuracy"] == np.mean((mean[:, 0] > 0.5) == target)
    yes.compile("adam", "mse", ["r2"])
    yes.fit(X, target, epochs=2)
    own = yes.predict_members(X)
    mean, spread = yes.predict(X, return_std=True)
    np.testing.assert_allclose(mean, own.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(spread, own.std(axis=0, dtype=np.float64), rtol=1e-6)
    assert yes.evaluate(X, target)["loss"] == pytest.approx(np.mean((mean[:, 0] - target) ** 2))


def test_sure_members_do_not_make_infinite_logits() -> None:
    sure = bp.Ensemble([bp.Sequential([bp.Dense(2)], seed=i) for i in range(2)])
    sure.compile("sgd", "softmax_cross_entropy")
    for member in sure:
        member.build(1)
        member.set_parameters({"0.kernel": [[900.0, -900.0]]})
    np.testing.assert_allclose(sure.predict([[1.0]]) @ [1, -1], [1800.0])


def test_sequences_with_outputs_at_every_step() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(24, 5, 2))
    y = (x.cumsum(axis=1)[..., 0] > 0).astype(np.float64)[..., None]
    lengths = rng.integers(1, 6, 24)

    def build(seed: int) -> bp.Sequential:
        return bp.Sequential([bp.GRU(4, return_sequences=True), bp.Dense(1)], seed)

    ensemble: Any = bp.Ensemble(build, 2, seed=0)
    alone = build(1)
    for model in (ensemble, alone):
        model.compile("adam", "binary_cross_entropy_with_logits", ["accuracy"])
        model.fit(x, y, epochs=3, lengths=lengths)
    require_same(ensemble[1], alone)
    single = bp.Ensemble([alone])
    mine = single.evaluate(x, y, lengths=lengths)
    assert mine == pytest.approx(alone.evaluate(x, y, lengths=lengths), rel=1e-6)
    ensemble.fit(x, y, lengths=lengths, bootstrap=True)
    assert np.isfinite(ensemble.evaluate(x, y, lengths=lengths)["loss"])


def test_every_kind_of_x_gives_the_bits_of_one_network(tmp_path: Path) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    mapped = np.memmap(tmp_path / "x", np.float64, "w+", shape=X.shape)
    mapped[:] = X
    rows = RNG.integers(0, len(X), (2, 150))
    for given in (sparse.csr_matrix(X), mapped, X.tolist(), np.asfortranarray(X)):
        ensemble = compiled(bp.Ensemble(network(), 2, seed=0))
        ensemble.fit(given, Y, epochs=2, rows=rows)
        for place, member in enumerate(ensemble):
            alone = compiled(network(place))
            alone.fit(X[rows[place]], Y[rows[place]], epochs=2)
            assert bits(member) == bits(alone)
    with pytest.raises(ValueError, match="not batches"):
        compiled(bp.Ensemble(network(), 2)).fit([(X, Y)], None)


def test_the_reference_runs_the_same_ensemble() -> None:
    ensemble = compiled(bp.Ensemble(network(), 2, seed=0), device="reference", dtype="float64")
    ensemble.fit(X[:40], Y[:40], epochs=2, bootstrap=True)
    here = compiled(bp.Ensemble(network(), 2, seed=0), dtype="float64")
    here.fit(X[:40], Y[:40], epochs=2, bootstrap=True)
    np.testing.assert_allclose(ensemble.predict(X), here.predict(X), rtol=1e-10, atol=1e-12)
    assert ensemble.evaluate(X, Y) == pytest.approx(here.evaluate(X, Y))


def test_folders_keep_the_ensemble(tmp_path: Path) -> None:
    folder = tmp_path / "nets"
    ensemble = compiled(bp.Ensemble(network(), 3, seed=0))
    with pytest.raises(RuntimeError, match="no parameters yet"):
        ensemble.save(folder)
    assert not folder.exists()
    ensemble.fit(X, Y, epochs=2)
    rate, ensemble[1].optimizer.learning_rate = 0.001, lambda step: 0.1
    with pytest.raises(ValueError, match="cannot be saved"):
        ensemble.save(folder / "inside")
    assert not folder.exists()
    ensemble[1].optimizer.learning_rate = rate
    ensemble.save(folder)
    first = sorted(path.name for path in folder.iterdir())
    ensemble.fit(X, Y, epochs=1)
    ensemble.save(folder)
    assert len(list(folder.iterdir())) == 4 and sorted(p.name for p in folder.iterdir()) != first
    loaded = bp.Ensemble.load(folder)
    assert np.array_equal(loaded.predict(X), ensemble.predict(X))
    for model in (ensemble, loaded):
        model.fit(X, Y, epochs=2)
    assert [bits(a) for a in loaded] == [bits(b) for b in ensemble]
    listed = json.loads((folder / "ensemble.json").read_text())
    assert bits(bp.load(folder / listed["members"][2])) != bits(ensemble[2])  # trained on since
    changes: list[dict[str, Any]] = [{"members": ["../x"]}, {"format": 2}, {"waiting": [3]}]
    damaged = [json.dumps({**listed, **change}) for change in changes]
    for wrong in ("[]", "{}", '{"format": 1}', *damaged):
        (folder / "ensemble.json").write_text(wrong)
        with pytest.raises(bp.ModelFileError, match="does not list an ensemble"):
            bp.Ensemble.load(folder)


# Python has joined the pool's threads when it forks, but the system may still be ending them, in
# whose hands the locks of AddressSanitizer's allocator then stay for the child.
@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="not with ASan")
def test_a_forked_child_trains_an_ensemble_of_its_own() -> None:
    expected = compiled(bp.Ensemble(network(), 3, seed=0))
    expected.fit(X, Y)

    def train() -> None:
        mine = compiled(bp.Ensemble(network(), 3, seed=0))
        mine.fit(X, Y)
        assert [bits(a) for a in mine] == [bits(b) for b in expected]

    machine.in_child(train)


def test_ctrl_c_while_it_is_noted_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes effect when all is noted: nothing that is done is trained again."""
    expected = compiled(bp.Ensemble(network(), 3, seed=0))
    expected.fit(X, Y)
    ensemble, noted = (
        compiled(bp.Ensemble(network(), 3, seed=0)),
        ensemble_training.EnsembleFit._note,
    )

    def note(self: Any, place: int, future: Any) -> None:
        if place == 0:
            signal.raise_signal(signal.SIGINT)
        noted(self, place, future)

    monkeypatch.setattr(ensemble_training.EnsembleFit, "_note", note)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        ensemble.fit(X, Y)
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(ValueError, match="has come to its end"):
        ensemble.fit(X, Y, resume=True)
    assert [bits(a) for a in ensemble] == [bits(b) for b in expected]


def test_a_member_that_is_interrupted_before_it_begins_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = compiled(bp.Ensemble(network(), 3, seed=0))
    expected.fit(X, Y, bootstrap=True)
    ensemble, ready = compiled(bp.Ensemble(network(), 3, seed=0)), ensemble_training.ready

    seen: list[bp.Sequential] = []

    def interrupted(model: bp.Sequential, *arguments: Any, **named: Any) -> Any:
        seen.append(model)
        if seen.count(ensemble[1]) == 2:  # the first time everything is checked
            raise KeyboardInterrupt
        return ready(model, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(ensemble_training, "ready", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ensemble.fit(X, Y, bootstrap=True)
    ensemble.fit(X, Y, bootstrap=True, resume=True)
    assert [bits(a) for a in ensemble] == [bits(b) for b in expected]


@pytest.mark.parametrize("allowed", [0, 1])
def test_members_are_trained_by_as_few_threads_as_there_are(
    allowed: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system has no more, or the main thread has ended; by none but the caller's too."""
    expected = compiled(bp.Ensemble(network(), 3, seed=0))
    expected.fit(X, Y)
    start, begun = threading.Thread.start, []

    def few(thread: threading.Thread) -> None:
        if len(begun) == allowed:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", few)
    ensemble = compiled(bp.Ensemble(network(), 3, seed=0))
    ensemble.fit(X, Y)
    assert len(begun) == (allowed if threads > 1 else 0)
    assert [bits(a) for a in ensemble] == [bits(b) for b in expected]


def test_progress_counts_members(capsys: pytest.CaptureFixture[str]) -> None:
    compiled(bp.Ensemble(network(), 4, seed=0)).fit(X, Y, verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"Member [{i}/4]" for i in (1, 2, 3, 4)]
