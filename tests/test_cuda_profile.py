"""Sequential.profile on device="cuda": the CPU's parts, timed by events in the graph of a step."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp
from cuda_library import is_emulated
from fastbp import _core
from test_cuda_custom import OWN
from test_cuda_training import digest, state
from test_profile import LAYERS, compiled, data

KERNEL = 700  # microseconds of each kernel, by the emulated device's clock


@pytest.fixture(autouse=True)
def library(device_library: Path) -> Path:
    return device_library


@pytest.fixture
def told_time(library: Path) -> Iterator[None]:
    """Kernels take as long as the test says."""
    if not is_emulated(library):
        pytest.skip("a GPU's time is its own")
    clock = ctypes.CDLL(str(_core.cuda_library_path())).fbp_emulation_set_clock
    clock.argtypes = [ctypes.c_double, ctypes.c_double]
    clock(KERNEL, KERNEL)
    yield
    clock(-1, -1)


def parts(layers: list[Any], x: Any, y: Any, **settings: Any) -> dict[tuple[str, str], float]:
    model = compiled(layers, device="cuda", **settings)
    model.build(x.shape[-1])
    before = {key: value.copy() for key, value in model.parameters().items()}
    found = model.profile(x, y, batch_size=30, seconds=0.01)
    assert all(part.seconds > 0 for part in found.parts)
    assert found.steps % -(-len(x) // 30) == 0 and found.rows == 30
    for key, value in model.parameters().items():
        np.testing.assert_array_equal(value, before[key])
    return {(part.part, part.layer): part.seconds for part in found.parts}


@pytest.mark.parametrize("name", ["dense", "residual"])
def test_parts_are_those_of_a_processor(name: str) -> None:
    layers, expected = LAYERS[name]
    there, here = parts(layers, *data()), compiled(layers)
    here.build(20)
    of_cpu = here.profile(*data(), batch_size=30, seconds=0.01).parts

    def of_both(found: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Without what a device may have or not; a processor looks at stages without parameters."""
        return {key for key in found if key[0] not in ("gradient", "update", "wait", "between")}

    assert expected <= set(there)
    assert of_both(there) == of_both((part.part, part.layer) for part in of_cpu)


def test_times_are_those_of_the_kernels(told_time: None) -> None:
    """Each part's, to the microsecond: of each step, which is replayed."""
    found = parts(LAYERS["dense"][0], *data(), metrics=["accuracy"])
    found.pop(("between", ""), None)  # the host's
    per_step = {key: round(1e6 * seconds) for key, seconds in found.items()}
    layers = ["0 Dense tanh", "1 Dense relu", "2 Dense"]
    one_kernel = [("gather", ""), ("update", ""), *(("forward", layer) for layer in layers)]
    one_kernel += [("gradient", layer) for layer in layers]
    one_kernel += [("delta", layer) for layer in layers[1:]]
    assert per_step == {**dict.fromkeys(one_kernel, KERNEL), ("loss", ""): 2 * KERNEL}


def test_sequences_have_parts_too() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6, 4)), np.arange(40) % 3
    found = parts([bp.LSTM(9), bp.Dense(3)], x, y)
    assert {(part, "0 LSTM") for part in ("forward", "delta", "gradient")} <= set(found)
    assert {("gather", ""), ("loss", ""), ("update", "")} <= set(found)


def test_one_kernel_is_one_part() -> None:
    found = parts([bp.Dense(8, activation="relu"), bp.Dense(3)], *data())
    assert ("whole", "all layers") in found
    assert set(found) <= {("whole", "all layers"), ("between", "")}


def test_functions_of_the_users_own_are_timed() -> None:
    """Such steps are enqueued kernel by kernel."""
    x, y = data()
    model = compiled([bp.Dense(6, activation=OWN), bp.Dense(3)], device="cuda")
    model.build(20)
    engine: Any = model._require_built()
    engine.start_clock()
    model.fit(x, y, epochs=2, batch_size=30, verbose=0)
    times = engine.stop_clock()
    assert engine.replays == 0
    assert (times["forward"][[0, 2]] > 0).all() and times["loss"][-1] > 0


@pytest.mark.parametrize("name", ["dense", "small"])
def test_a_clock_changes_no_bit(name: str) -> None:
    """Also where it is stopped and started again, and where batches have a rest."""
    x, y = data()
    models = [compiled(LAYERS[name][0], device="cuda") for _ in range(2)]
    for timed, model in enumerate(models):
        model.build(20)
        engine: Any = model._require_built()
        for batch in (30, 40):
            if timed:
                engine.start_clock()
            before = engine.steps - engine.replays - engine.persistent_steps
            model.fit(x, y, epochs=2, batch_size=batch, verbose=0)
            if timed:
                assert sum(times.sum() for times in engine.stop_clock().values()) > 0
                assert engine.steps - engine.replays - engine.persistent_steps == before
        model.fit(x, y, epochs=2, batch_size=40, verbose=0)
    assert digest(state(models[0])) == digest(state(models[1]))


def test_a_clock_that_does_not_run() -> None:
    model = compiled([bp.Dense(3)], device="cuda")
    model.build(20)
    engine: Any = model._require_built()
    with pytest.raises(RuntimeError, match=r"call start_clock\(\) first"):
        engine.stop_clock()
    engine.start_clock()
    assert all(times.sum() == 0 for times in engine.stop_clock().values())
    with pytest.raises(RuntimeError, match=r"call start_clock\(\) first"):
        engine.stop_clock()
