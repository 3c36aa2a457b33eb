"""A model that one thread trains while another saves, copies or uses it."""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

import fastbp as bp
import machine
from sweeps import Array

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(500, 64)).astype(np.float32), RNG.integers(0, 3, 500)


def make(device: str = "cpu") -> bp.Sequential:
    layers = [bp.Dense(256, activation="relu"), bp.Dense(256, activation="relu"), bp.Dense(3)]
    model = bp.Sequential(layers, seed=1)
    model.compile("adam", "softmax_cross_entropy", device=device)
    model.build(64)
    return model


def epochs_of(seconds: float) -> int:
    """As many as that takes, a few at least: sanitizers make a step a hundred times as long."""
    model = make()
    model.fit(X, Y, verbose=0)
    start = time.perf_counter()
    model.fit(X, Y, epochs=3, verbose=0)
    return max(6, int(seconds / (time.perf_counter() - start) * 3))


def saved(model: bp.Sequential, path: Path) -> bp.Sequential:
    model.save(path)
    return bp.load(path)


def copied(model: bp.Sequential, path: Path) -> bp.Sequential:
    return copy.deepcopy(model)


@pytest.mark.parametrize("take", [saved, copied])
def test_what_is_taken_during_fit_is_of_one_step(
    take: Callable[[bp.Sequential, Path], bp.Sequential], tmp_path: Path
) -> None:
    """It goes on to the bits of the run that it was taken from."""
    epochs = epochs_of(0.25)
    for _ in range(8):  # where this thread has had no turn, of a longer run
        epochs *= 2
        model = make()
        fit = {"epochs": epochs, "verbose": 0}
        thread = threading.Thread(target=model.fit, args=(X, Y), kwargs=fit)
        thread.start()
        taken = []
        while thread.is_alive():
            taken.append(take(model, tmp_path / "model"))
        thread.join()
        between = [m for m in taken if 0 < m.epochs_trained < epochs]
        if between:
            break
    assert between
    for one in between[:: max(1, len(between) // 3)]:
        one.fit(X, Y, resume=True, **fit)
        for name, value in model.parameters().items():
            np.testing.assert_array_equal(one.parameters()[name], value)


@pytest.mark.parametrize("take", [saved, copied])
@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_what_is_taken_beside_steps_is_of_one_step(
    device: str, take: Callable[[bp.Sequential, Path], bp.Sequential], tmp_path: Path
) -> None:
    """Parameters and Adam's state are those of the step that the copy says it is at."""
    layers = [bp.Dense(512, activation="relu"), bp.Dense(256), bp.Dense(3)]
    model, alone = bp.Sequential(layers, seed=1), bp.Sequential(layers, seed=1)
    for one in (model, alone):
        one.compile("adam", "softmax_cross_entropy", device=device)
        one.build(64)
    x, y = X[:32], Y[:32]
    done = threading.Event()

    def steps() -> None:
        while not done.is_set():
            model.step(x, y)

    thread = threading.Thread(target=steps)
    thread.start()
    try:
        taken, end = [], time.monotonic() + 300
        while len(taken) < 12 or len({one._engine.steps for one in taken}) < 6:
            assert time.monotonic() < end, f"{len(taken)} copies, and hardly a step beside them"
            taken.append(take(model, tmp_path / "model"))
    finally:
        done.set()
        thread.join()
    at = 0
    for one in taken:
        for _ in range(one._engine.steps - at):
            alone.step(x, y)
        at = one._engine.steps
        np.testing.assert_array_equal(one._engine.parameters, alone._engine.parameters)
        for mine, right in zip(
            one._engine.optimizer_state, alone._engine.optimizer_state, strict=True
        ):
            np.testing.assert_array_equal(mine, right)


def test_what_is_taken_beside_lbfgs_is_of_an_iteration() -> None:
    """Not the parameters that it tries on its way: within each try it waits for a copy."""
    taken: list[bytes] = []
    copies, done = threading.Condition(), threading.Event()

    def slope(z: Array) -> Array:
        before = len(taken)
        with copies:  # the second from here on was begun from here on
            assert copies.wait_for(lambda: len(taken) > before + 1, timeout=120)
            within.append((taken[-1], iterations[-1]))
        return 1 - np.tanh(z) ** 2

    model = bp.Sequential([bp.Dense(16, bp.CustomActivation(np.tanh, slope)), bp.Dense(3)], seed=1)
    model.compile(bp.LBFGS(), "softmax_cross_entropy")
    model.build(64)
    iterations = [model.parameters()["0.kernel"].tobytes()]
    within: list[tuple[bytes, bytes]] = []

    class Note(bp.Callback):
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            iterations.append(model.parameters()["0.kernel"].tobytes())

    def take() -> None:
        while not done.is_set():
            kernel = copy.deepcopy(model).parameters()["0.kernel"].tobytes()
            with copies:
                taken.append(kernel)
                copies.notify_all()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        model.fit(X, Y, epochs=20, verbose=0, callbacks=Note())
    finally:
        done.set()
        thread.join(60)
    assert len(set(iterations)) == 21 and len(within) >= 20
    assert all(one == last for one, last in within)
    assert set(taken) <= set(iterations)


def test_a_function_of_the_network_cannot_have_it_still() -> None:
    """save within a step of the same thread is of before the step; a step within still says so."""
    model = make()
    model.step(X[:8], Y[:8])
    with pytest.raises(RuntimeError, match="in use further up in this thread"):
        model._engine.still(lambda: model.predict(X[:8]))
    with pytest.raises(ZeroDivisionError):
        model._engine.still(lambda: 1 // 0)
    assert model._engine.still(lambda: model._engine.still(lambda: 3)) == 3
    model.step(X[:8], Y[:8])


def test_a_model_in_training_is_trained_by_nobody_else() -> None:
    model, alone = make(), make()
    refused = []

    def attempts(epoch: int, logs: object) -> None:
        def attempt() -> None:
            for call in (
                lambda: model.fit(X, Y, verbose=0),
                lambda: model.compile("sgd", "softmax_cross_entropy"),
                lambda: model.append(bp.Dense(3)),
                lambda: model.replace_head(3),
            ):
                with pytest.raises(RuntimeError, match="while fit trains this model") as error:
                    call()
                refused.append(str(error.value))
            model.predict(X[:3])
            model.evaluate(X[:9], Y[:9])

        attempt()
        beside = threading.Thread(target=attempt)
        beside.start()
        beside.join()

    watcher = bp.LambdaCallback(on_epoch_end=attempts)
    history = model.fit(X, Y, epochs=2, verbose=0, callbacks=watcher)
    assert len(refused) == 16
    assert ["another thread" in text for text in refused] == ([False] * 4 + [True] * 4) * 2
    assert history.history == alone.fit(X, Y, epochs=2, verbose=0).history
    assert model.history is history
    model.fit(X, Y, verbose=0)  # it is free again
    assert model.epochs_trained == 3


def test_ctrl_c_while_fit_begins_and_ends_leaves_the_model_free() -> None:
    """Behind each call in turns.py and around; the exception is kept, as consoles keep the last."""
    model, kept = make(), []
    places = ("turns.py", "contextlib.py", "training.py")
    fit = {"batch_size": 500, "verbose": 0}
    model.fit(X, Y, **fit)

    def interrupted(number: int) -> bool:
        left = number

        def look(frame: FrameType, event: str, _: object) -> None:
            nonlocal left
            if event in ("call", "c_return") and frame.f_code.co_filename.endswith(places):
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt

        sys.setprofile(look)
        try:
            model.fit(X, Y, **fit)
        except KeyboardInterrupt as error:
            kept.append(error)
        finally:
            sys.setprofile(None)
        return left <= 0

    number = 1
    while interrupted(number):
        model._turns.require_idle("fit")
        number += 1
    assert len(kept) > 30
    model.fit(X, Y, **fit)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_forked_during_fit_has_the_model_whole_or_is_told(tmp_path: Path) -> None:
    """Between two steps it may be used; within one, the child has not got the thread to end it."""
    model, epochs = make(), epochs_of(0.5)
    model.fit(X[:64], Y[:64], verbose=0)
    thread = threading.Thread(target=lambda: model.fit(X, Y, epochs=epochs, verbose=0))

    def use() -> None:
        try:
            model.save(tmp_path / "model")
        except RuntimeError as problem:
            assert "when the process was forked" in str(problem)
            with pytest.raises(RuntimeError, match="when the process was forked"):
                model.fit(X[:64], Y[:64])
            for call in (model.evaluate, model.step):  # where the thread was outside the engine
                with contextlib.suppress(RuntimeError):
                    call(X[:64], Y[:64])
        else:
            model.fit(X[:64], Y[:64], verbose=0)

    thread.start()
    while thread.is_alive():
        machine.in_child(use)
    thread.join()
    assert model.epochs_trained == 1 + epochs


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_has_not_lost_the_turn_with_the_reference(tmp_path: Path) -> None:
    """Another thread had it when the child was forked; that thread is not there to give it back.

    It does not calculate meanwhile: a fork beside a busy OpenBLAS may wait for ever in the parent.
    """
    model = make("reference")
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        taken.set()
        done.wait()

    def use() -> None:
        model.step(X[:8], Y[:8])
        model.save(tmp_path / "model")

    thread = threading.Thread(target=lambda: model._engine.still(hold))
    thread.start()
    taken.wait()
    try:
        machine.in_child(use)
    finally:
        done.set()
        thread.join()
    use()


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Python's threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("quick_switches")
@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_each_thread_gets_the_gradients_of_its_own_batch(device: str) -> None:
    model = bp.Sequential([bp.Dense(9, "tanh"), bp.Dense(3)], seed=1)
    model.compile("adam", "softmax_cross_entropy", device=device)
    parts = [slice(0, 10), slice(10, 30), slice(30, 35)]
    wanted = [model.gradients(X[part], Y[part])[1] for part in parts]
    wrong: list[str] = []

    def compare(part: slice, gradients: dict[str, Array]) -> None:
        for _ in range(300):
            for name, value in model.gradients(X[part], Y[part])[1].items():
                if not np.array_equal(value, gradients[name]):
                    wrong.append(name)
                    return

    threads = [
        threading.Thread(target=compare, args=each) for each in zip(parts, wanted, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
