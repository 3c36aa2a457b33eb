"""How dtype="float16" scales its loss, on device="cuda" and in its NumPy twin.

The rule is that of torch.amp.GradScaler with its defaults: scale 65536, halved with an update that
is left out because its gradient is not finite, doubled after 2000 updates in a row.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp
from cuda_library import in_orders
from fastbp import devices, files
from fastbp.reference import float16
from sweeps import Array
from test_cuda_training import digest, state


@pytest.fixture(autouse=True)
def library(device_library: Path) -> Path:
    return device_library


@pytest.fixture(params=["cuda", "reference"])
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def model(device: str, optimizer: bp.optimizers.Optimizer | None = None) -> bp.Sequential:
    layers = [bp.Dense(9, activation="tanh"), bp.BatchNorm(), bp.Dense(2)]
    made = bp.Sequential(layers, seed=1)
    made.compile(optimizer or bp.Adam(0.01), "mse", device=device, dtype="float16")
    made.build(4)
    return made


def data(rows: int, size: float = 1) -> tuple[Array, Array]:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(rows, 4)).astype(np.float32)
    return x, (size * rng.normal(size=(rows, 2))).astype(np.float32)


def scale_of(made: bp.Sequential) -> Array:
    found: Array = made._require_built().loss_scale  # type: ignore[attr-defined]
    return found


def everything(made: bp.Sequential) -> str:
    return digest(state(made), made.state(), scale_of(made), made._require_built().steps)


def test_operands_are_rounded_to_nearest() -> None:
    """x times 1: ties, numbers below 2^-14, where float16 thins out, and those beyond its range."""
    rng = np.random.default_rng(0)
    numbers = np.r_[0:64, 0x03E0:0x0420, 0x7BC0:0x7BFF, rng.integers(0, 0x7BFF, 1000)]
    low, high = (
        n.astype(np.uint16).view(np.float16).astype(np.float32) for n in (numbers, numbers + 1)
    )
    between = (low + high) / 2
    x = np.concatenate([
        low, high, between, -between, np.nextafter(between, 0), np.nextafter(between, np.inf),
        rng.normal(size=1000) * 1e-6, [65504, 65519.996, 65520, 1e9, -1e9],
    ]).astype(np.float32)[:, None]  # fmt: skip
    made = bp.Sequential([bp.Dense(1, use_bias=False)])
    made.compile("sgd", "mse", device="cuda", dtype="float16")
    made.build(1)
    made.set_parameters({"0.kernel": np.ones((1, 1))})
    with np.errstate(over="ignore"):
        wanted = x.astype(np.float16).astype(np.float32)
    assert np.array_equal(made.predict(x), wanted)
    assert np.array_equal(float16.round_to_float16(x), wanted)


def test_an_update_beyond_the_range_is_left_out(device: str) -> None:
    """Parameters, optimizer state, statistics: nothing changes but the scale."""
    made, (x, y) = model(device), data(8, 1000)
    before = [*state(made), *(array.copy() for array in made.state().values())]
    loss = made.step(x, y)
    assert np.isfinite(loss)
    assert made.loss_scale == (32768, 0, 1)
    after = [*state(made), *made.state().values()]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    made.step(x, y * np.float32(1e-3))
    assert made.loss_scale == (32768, 1, 1)
    assert not np.array_equal(made.parameters()["0.kernel"].ravel(), before[0][: 4 * 9])


def test_an_average_begins_with_the_first_update(device: str) -> None:
    made, (x, y) = model(device, bp.Adam(0.01, use_ema=True)), data(8, 1000)
    made.step(x, y)
    with pytest.raises(RuntimeError, match="there is no average yet"):
        made.averaged()
    made.step(x, y * np.float32(1e-3))
    assert np.array_equal(made.averaged().parameters()["0.kernel"], made.parameters()["0.kernel"])


OPTIMIZERS: dict[str, Callable[[], bp.optimizers.Optimizer]] = {
    "bias correction": lambda: bp.Adam(0.01),
    "schedule": lambda: bp.SGD(bp.schedules.ExponentialDecay(0.1, 1, 0.5), momentum=0.9),
    "function": lambda: bp.SGD(lambda step: 0.1 * 0.5**step),
    "average": lambda: bp.RMSprop(0.01, use_ema=True, ema_momentum=0.5),
    "limits": lambda: bp.AdamW(0.01, clip_norm=0.1, clip_value=0.05),
    "batches to an update": lambda: bp.Adam(0.01, gradient_accumulation_steps=2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_that_were_left_out_do_not_count(device: str, name: str) -> None:
    """As training that begins with a scale at which none is, bit for bit."""
    found = []
    for skips in (True, False):
        made, (x, y) = model(device, OPTIMIZERS[name]()), data(30)
        batches = 2 if name == "batches to an update" else 1
        scale_of(made)[0] = 2**10 if skips else 2**8
        if skips:
            for _ in range(2 * batches):
                made.step(x, y * np.float32(10000))
        assert made.loss_scale == (2**8, 0, 2 if skips else 0)
        for _ in range(6):
            made.step(x, y)
        found.append(digest(state(made), made.state()))
    assert found[0] == found[1]


def test_the_scale_is_doubled_after_2000_updates(device: str) -> None:
    made, (x, y) = model(device), data(8)
    scale_of(made)[:2] = 128, 1998
    made.step(x, y)
    assert made.loss_scale == (128, 1999, 0)
    made.step(x, y)
    assert made.loss_scale == (256, 0, 0)


def test_the_scale_has_bounds() -> None:
    least, most = (np.array([s, 1999, 5], np.float32) for s in (float16.LEAST, float16.MOST))
    float16.next_scale(least, finite=False)
    float16.next_scale(most, finite=True)
    assert least.tolist() == [2.0**-24, 0, 6] and most.tolist() == [2.0**60, 0, 5]
    made, (x, y) = model("cuda"), data(8)
    scale_of(made)[:] = 2.0**-24, 3, 0
    made.step(np.full_like(x, 1e9), y)
    assert made.loss_scale == (2.0**-24, 0, 1)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_fit_goes_on_while_updates_are_left_out(library: Path, shuffle: bool) -> None:
    """An epoch is enqueued before the device has said which updates of the one before it left out.
    The bits are those of single steps. The scale is doubled, and is then too large."""
    x, y = data(40, 60)

    def made() -> bp.Sequential:
        fresh = model("cuda", bp.Adam(bp.schedules.ExponentialDecay(0.05, 3, 0.9)))
        scale_of(fresh)[:2] = 2**12, 1993
        return fresh

    found = []
    for _ in in_orders(library, ("forward", "random:2")):
        whole = made()
        whole.fit(x, y, epochs=6, batch_size=10, shuffle=shuffle, verbose=0)
        found.append(everything(whole))
        assert whole.loss_scale is not None and 0 < whole.loss_scale.skipped_updates < 24
    assert found[0] == found[1]
    if shuffle:
        return
    single = made()
    for _ in range(6):
        for first in range(0, 40, 10):
            single.step(x[first : first + 10], y[first : first + 10])
    assert everything(single) == found[0]


def test_the_scale_follows_the_twins() -> None:
    scales = []
    for device in ("cuda", "reference"):
        made, (x, y) = model(device, bp.SGD(0.01)), data(40, 300)
        scale_of(made)[1] = 1990
        made.fit(x, y, epochs=5, batch_size=8, verbose=0)
        scales.append(made.loss_scale)
    assert scales[0] == scales[1]
    assert scales[0] is not None and scales[0].skipped_updates > 1


@pytest.mark.parametrize("other", ["cuda", "reference"])
def test_training_resumes_with_the_scale(device: str, other: str, tmp_path: Path) -> None:
    """Saved and loaded again, also by the other of the two."""
    x, y = data(40, 30)
    made = model(device)
    scale_of(made)[:2] = 2**14, 1993
    made.fit(x, y, epochs=1, batch_size=4, verbose=0)
    made.save(tmp_path / "net.safetensors")
    loaded = bp.load(tmp_path / "net.safetensors", device=other)
    assert loaded.loss_scale == made.loss_scale
    assert everything(loaded) == everything(made)
    if other == device:
        for one in (made, loaded):
            one.fit(x, y, epochs=2, batch_size=4, verbose=0)
        assert everything(loaded) == everything(made)


class StopAfter(bp.Callback):
    """Stops a run behind so many batches."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.left = batches

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        self.left -= 1
        if self.left == 0:
            self.model.stop_training = True


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """In the middle of an epoch, with updates left out before and after."""
    (x, y), path, found = data(40, 60), tmp_path / "net.safetensors", []
    for batches in (0, 7):
        made = model("cuda")
        scale_of(made)[:2] = 2**14, 1993
        callbacks = [StopAfter(batches)]
        made.fit(x, y, epochs=3, batch_size=8, callbacks=callbacks, verbose=0)
        if batches:
            assert made._require_built().steps == batches
            made.save(path)
            made = model("cuda")
            callbacks = [StopAfter(0)]
            made.fit(x, y, epochs=3, batch_size=8, callbacks=callbacks, verbose=0, resume=path)
        assert made.loss_scale is not None and made.loss_scale.skipped_updates > 1
        found.append(everything(made))
    assert found[0] == found[1]


@pytest.mark.parametrize("values", [(3, 0, 0), (np.nan, 0, 0), (4, -1, 0), (4, 0, 0.5), (0, 0, 0)])
def test_a_file_with_another_scale_is_refused(values: tuple[float, ...]) -> None:
    made = model("reference")
    scale_of(made)[:] = values
    with pytest.raises(bp.ModelFileError, match=r"its loss has the scale"):
        files.from_bytes(files.to_bytes(made), "reference")


def test_compiling_again_begins_with_the_first_scale(device: str) -> None:
    made, (x, y) = model(device), data(8, 1000)
    made.step(x, y)
    made.compile("sgd", "mse", device=device, dtype="float16")
    assert made.loss_scale == (65536, 0, 0)
    made.compile("sgd", "mse", device=device, dtype="float32")
    assert made.loss_scale is None


def test_small_gradients_do_not_vanish(device: str) -> None:
    """2^-30 is nothing in float16; times the scale, it is."""
    found = []
    for scale in (1, 2**16):
        made = bp.Sequential([bp.Dense(1, use_bias=False)])
        made.compile(bp.SGD(1.0), "half_sse", device=device, dtype="float16")
        made.build(1)
        made.set_parameters({"0.kernel": np.full((1, 1), 1)})
        scale_of(made)[0] = scale
        x = np.ones((1, 1), np.float32)
        found.append(made.gradients(x, x - np.float32(2**-23))[1]["0.kernel"].item())
        made.step(np.full((1, 1), 2**-9, np.float32), np.zeros((1, 1), np.float32))
        found.append(made.parameters()["0.kernel"].item())
    assert found == [2**-23, 1 - 2**-18, 2**-23, 1 - 2**-18]


def test_gradients_beyond_the_range_are_told(device: str) -> None:
    made, (x, y) = model(device), data(8, 1000)
    assert not np.isfinite(made.gradients(x, y)[1]["2.kernel"]).all()
    assert made.loss_scale == (65536, 0, 0)


def test_where_there_is_no_float16() -> None:
    with pytest.raises(bp.DeviceNotAvailableError, match=r"'float16' is for device='cuda'") as no:
        devices.require_dtype("cpu", "float16")
    assert no.value.reason == "no_float16"
