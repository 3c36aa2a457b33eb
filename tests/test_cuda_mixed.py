"""dtype="bfloat16", "float16" and "tf32" on device="cuda": tensor cores against the NumPy twin.

Both round the same operands and sum in float32; the order of the sums differs. A
gradient is held to the bound of one rounded product for each layer, training to a loss that follows
the twin's. The same run gives the same bits, in any order of the threads. How float16 scales its
loss is tested in test_cuda_float16.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp
from cuda_library import in_orders, launches
from fastbp import cuda_library, devices
from fastbp.reference.tf32 import round_to_tf32
from sweeps import Array
from test_cuda_training import digest, state

# Around the tile of 128, the warp's 64, fragments of 16 and 8, slabs of 32; odd rows and columns.
# What has both sides of at least 64 is made by wgmma on 9.0, which the emulated device is: tiles of
# 128 and slabs of 64, two tiles at a time of each of two processors.
SIZES = {
    "one of each": (1, (1,), 1),
    "below a fragment": (7, (5, 3), 6),
    "fragments with a rest": (17, (33, 9), 18),
    "slabs along k": (70, (65, 40), 12),
    "more than a tile": (131, (130,), 9),
    "more rows than a tile": (3, (17, 2), 150),
    "parts of a batch": (9, (12, 4), 600),
    "wide": (65, (64,), 64),
    "wide, with a rest": (70, (140,), 130),
    "wide, more tiles than processors": (70, (390, 66), 260),
}
WIDE = [name for name in SIZES if "wide" in name]
CAPABILITY = {"bfloat16": "80", "float16": "75", "tf32": "80"}  # the least
STEP = {"bfloat16": 2**-8, "float16": 2**-11, "tf32": 2**-11}  # of a rounding


@pytest.fixture(autouse=True)
def library(device_library: Path) -> Path:
    return device_library


@pytest.fixture(params=STEP)
def dtype(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def model(device: str, units: tuple[int, ...], dtype: str, **options: Any) -> bp.Sequential:
    layers: list[bp.layers.Layer] = [bp.Dense(n, activation="gelu") for n in units[:-1]]
    made = bp.Sequential([*layers, bp.Dense(units[-1])], seed=1)
    settings = {"optimizer": bp.SGD(0.1), "loss": "mse", **options}
    made.compile(**settings, device=device, dtype=dtype)
    return made


def lower_scale(made: bp.Sequential) -> None:
    """To one at which the loss of a few rows has no gradient beyond float16's range."""
    scale = made._require_built().loss_scale if made.dtype == "float16" else None
    if scale is not None:
        scale[0] = 2**9


def build(made: bp.Sequential, inputs: int) -> None:
    made.build(inputs)
    lower_scale(made)


def data(inputs: int, outputs: int, rows: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(rows, inputs)), rng.normal(size=(rows, outputs))
    return x.astype(np.float32), y.astype(np.float32)


def assert_close(found: Array, wanted: Array, dtype: str, steps: int = 1) -> None:
    """As sums of the same terms in another order, through a few layers: a rounding of an operand
    may fall to the other side, which is STEP of it; of what training has made, in each step."""
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=steps * STEP[dtype] * scale + 1e-30)


@pytest.mark.parametrize("name", SIZES)
def test_products_are_the_twins(library: Path, name: str, dtype: str) -> None:
    before = launches(library, "wide_gemm")
    inputs, units, rows = SIZES[name]
    x, y = data(inputs, units[-1], rows)
    cuda, twin = (model(device, units, dtype) for device in ("cuda", "reference"))
    for made in (cuda, twin):
        build(made, inputs)
    assert_close(cuda.predict(x), twin.predict(x), dtype)
    (loss, found), (expected, wanted) = cuda.gradients(x, y), twin.gradients(x, y)
    assert loss == pytest.approx(expected, rel=1e-3)
    for key in wanted:
        assert_close(found[key], wanted[key], dtype)
    found_dx, wanted_dx = cuda.input_gradient(x, y)[1], twin.input_gradient(x, y)[1]
    assert_close(found_dx, wanted_dx, dtype)
    if before is not None:
        assert (launches(library, "wide_gemm") != before) == (name in WIDE and dtype != "tf32")


@pytest.mark.parametrize(
    ("kernel_name", "dtype"),
    [(kernel, dtype) for kernel in ("wide_gemm", "tensor_gemm") for dtype in STEP
     if (kernel, dtype) != ("wide_gemm", "tf32")],
)  # fmt: skip
def test_products_of_small_integers_are_exact(
    library: Path, kernel_name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums of integers below 2^24 have no rounding: every term must be there, once."""
    if kernel_name == "tensor_gemm":
        monkeypatch.setenv("FASTBP_EMULATION_CAPABILITY", CAPABILITY[dtype])
    names = ("wide_gemm", "tensor_gemm")
    before = [launches(library, name) for name in names]
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (140, 75)).astype(np.float32)
    kernel = rng.integers(-4, 5, (75, 133)).astype(np.float32)
    made = bp.Sequential([bp.Dense(133)])
    made.compile("sgd", "half_sse", device="cuda", dtype=dtype)
    build(made, 75)
    bias = np.arange(133, dtype=np.float32)
    made.set_parameters({"0.kernel": kernel, "0.bias": bias})
    z = x @ kernel + bias
    assert np.array_equal(made.predict(x), z)
    y = z - rng.integers(-4, 5, z.shape).astype(np.float32)  # dz = z - y
    _, gradients = made.gradients(x, y)
    assert np.array_equal(gradients["0.kernel"], x.T @ (z - y))
    assert np.array_equal(gradients["0.bias"], (z - y).sum(axis=0))
    assert np.array_equal(made.input_gradient(x, y)[1], (z - y) @ kernel.T)
    if before[0] is not None:
        ran = [launches(library, name) != old for name, old in zip(names, before, strict=True)]
        assert ran == [name == kernel_name for name in names]


@pytest.mark.usefixtures("emulated_device")
def test_the_instructions_before_8_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device that is emulated has m16n8k8 of float16 alone, and no asynchronous copies."""
    monkeypatch.setenv("FASTBP_EMULATION_CAPABILITY", "75")
    x, y = data(70, 40, 20)
    cuda, twin = (model(device, (65, 40), "float16") for device in ("cuda", "reference"))
    for made in (cuda, twin):
        build(made, 70)
        made.fit(x, y, batch_size=10, verbose=0)
    for mine, theirs in zip(state(cuda), state(twin), strict=True):
        assert_close(mine, theirs, "float16", steps=2)
    for dtype, missing in (("bfloat16", "m16n8k16.bf16"), ("tf32", "cp.async of 4 bytes")):
        with pytest.raises(
            RuntimeError, match=rf"{missing}.*: a device of capability 75 has it not"
        ):
            model("cuda", (40,), dtype).predict(x[:, :69])


@pytest.mark.slow
def test_a_wide_gradient_goes_through_the_optimizer(library: Path) -> None:
    """One of so many tiles that it is made in one part."""
    x, y = data(2060, 2060, 64)
    found = []
    before = launches(library, "wide_gemm")
    for device in ("cuda", "reference"):
        made = model(device, (2060,), "bfloat16", optimizer=bp.Adam(0.01))
        made.fit(x, y, batch_size=64, verbose=0, shuffle=False)
        found.append(made.parameters()["0.kernel"].copy())
    if before is not None:
        assert launches(library, "wide_gemm") == before + 2
    # A step of Adam is at most the rate; where the gradient is next to nothing its sign may differ.
    assert np.mean(np.abs(found[0] - found[1]) > 1e-3) < 1e-4


@pytest.mark.parametrize(
    ("optimizer", "batch"), [(bp.SGD(0.05, momentum=0.9), 16), (bp.AdamW(0.01), 300)]
)
def test_training_follows_the_twin(
    optimizer: bp.optimizers.Optimizer, batch: int, dtype: str
) -> None:
    """The updates' shadows are what the next step reads: from the epilogue, and from the parts."""
    x, _ = data(6, 1, max(batch, 96))
    y = np.tanh(x @ np.arange(-3.0, 3.0, dtype=np.float32)[:, None])
    losses = []
    for device in ("cuda", "reference"):
        made = model(device, (20, 20, 1), dtype, optimizer=optimizer)
        build(made, 6)
        history = made.fit(x, y, epochs=4, batch_size=batch, verbose=0).history["loss"]
        losses.append(history)
        assert made.evaluate(x, y)["loss"] < history[0]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.01)


def test_layers_without_products_in_between(library: Path, dtype: str) -> None:
    """Dropout and activations on their own: what they make is rounded when it is read. The bits do
    not depend on the order of the threads."""
    layers = [bp.ReLU(), bp.Dense(9), bp.Dropout(0.3), bp.Activation("tanh"), bp.Dropout(0.2),
              bp.Dense(5, use_bias=False), bp.Dense(3)]  # fmt: skip
    x, _ = data(8, 1, 40)
    y = np.random.default_rng(1).integers(0, 3, 40)

    def train(device: str) -> tuple[Array, str]:
        made = bp.Sequential(layers, seed=2)
        made.compile(bp.Adam(0.01), "softmax_cross_entropy", ["accuracy"], device, dtype)
        made.fit(x, y, epochs=2, batch_size=16, verbose=0)
        return made.predict(x), digest(state(made))

    found = [train("cuda") for _ in in_orders(library, ("forward", "reverse", "random:1"))]
    assert len({bits for _, bits in found}) == 1
    assert_close(found[0][0], train("reference")[0], dtype)


def test_parameters_written_by_the_caller_are_used(dtype: str) -> None:
    made = model("cuda", (4, 2), dtype)
    x, y = data(3, 2, 5)
    made.fit(x, y, verbose=0)
    made.parameters()["1.kernel"][:] = 0
    made.parameters()["1.bias"][:] = 7
    assert np.all(made.predict(x) == 7)


@pytest.mark.usefixtures("emulated_device")
def test_old_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = cuda_library.Device("Turing", 75, 2**33)
    monkeypatch.setattr(cuda_library, "open_device", lambda number: old)
    for dtype in ("bfloat16", "tf32"):
        with pytest.raises(bp.DeviceNotAvailableError, match=r"8\.0 or later.* has 7\.5") as caught:
            devices.require_dtype("cuda", dtype)
        assert caught.value.reason == f"no_{dtype}"
    devices.require_dtype("cuda", "float32")
    devices.require_dtype("cuda", "float16")


def test_a_processor_has_no_tf32() -> None:
    with pytest.raises(bp.DeviceNotAvailableError, match=r"'tf32' is for device='cuda'") as caught:
        devices.require_dtype("cpu", "tf32")
    assert caught.value.reason == "no_tf32"


def test_tf32_rounds_to_nearest_and_ties_away_from_zero() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=1000) * 10.0 ** rng.integers(-30, 30, 1000)
    ties = np.ldexp(rng.integers(2**11, 2**12, 1000) + 0.5, rng.integers(-40, 40, 1000))
    edges = [0, np.nextafter(1 + 2**-11, 0), np.nextafter(1 + 2**-11, 2), 3e38]
    x = np.concatenate([x, ties, -ties, edges]).astype(np.float32)
    mantissa, exponent = np.frexp(x.astype(np.float64))
    wanted = np.ldexp(np.trunc(mantissa * 2**11 + np.copysign(0.5, mantissa)), exponent - 11)
    assert np.array_equal(round_to_tf32(x), wanted)
    made = bp.Sequential([bp.Dense(1, use_bias=False)])
    made.compile("sgd", "mse", device="cuda", dtype="tf32")
    made.build(1)
    made.set_parameters({"0.kernel": np.ones((1, 1))})
    assert np.array_equal(made.predict(x[:, None])[:, 0], wanted.astype(np.float32))


def test_a_row_has_the_same_bits_wherever_it_is(dtype: str) -> None:
    x, _ = data(70, 3, 300)
    made = model("cuda", (33, 3), dtype)
    build(made, 70)
    whole = made.predict(x)
    for first, count in ((0, 1), (129, 1), (131, 40), (7, 290)):
        assert np.array_equal(made.predict(x[first : first + count]), whole[first : first + count])


def test_which_narrow_networks_are_trained_whole(dtype: str) -> None:
    """By the kernel that has bfloat16 and float32 alone."""
    (x, y), made = data(6, 3, 60), model("cuda", (33, 3), dtype)
    made.step(x, y)
    steps: int = made._require_built().persistent_steps  # type: ignore[attr-defined]
    assert steps == (dtype == "bfloat16")


def norms() -> list[bp.layers.Layer]:
    """What is no product in front of one, behind one, and around one."""
    block = bp.Residual([bp.Dense(12, activation="relu"), bp.LayerNorm(), bp.Dense(12)])
    return [bp.BatchNorm(), bp.Dense(12, activation="gelu"), bp.BatchNorm(), block, bp.Dense(3)]


def table() -> list[bp.layers.Layer]:
    return [bp.Embedding(11, 5), bp.Dense(8, activation="tanh"), bp.LayerNorm(), bp.Dense(3)]


def limited() -> list[bp.layers.Layer]:
    """Columns too long from the start, in front of one that is frozen and behind it."""
    return [bp.Dense(70, "tanh", max_norm=0.3), bp.Dense(9), bp.Dense(5, max_norm=0.2)]


RULES: dict[str, dict[str, Any]] = {
    "none": {},
    "norm": {"clip_norm": 0.5},
    "value and average": {"clip_value": 0.01, "use_ema": True},
    "batches to an update": {"gradient_accumulation_steps": 2},
}


def train_with(
    device: str, layers: Callable[[], list[bp.layers.Layer]], rule: str, dtype: str
) -> bp.Sequential:
    """Four steps, the last of fewer rows, with a frozen layer and a penalty too."""
    rng = np.random.default_rng(3)
    x = (rng.integers(0, 11, (56, 4)) if layers is table else rng.normal(size=(56, 4))).astype("f4")
    y = rng.normal(size=(56, 3)).astype(np.float32)
    made = bp.Sequential([*layers(), bp.Dense(3, kernel_regularizer=bp.L2(0.01))], seed=4)
    made.compile(bp.SGD(0.05, momentum=0.9, **RULES[rule]), "mse", device=device, dtype=dtype)
    build(made, 4)
    made.freeze(layers=[1])
    made.fit(x, y, batch_size=16, verbose=0)
    return made


@pytest.mark.parametrize(
    ("layers", "rule"),
    [*((norms, rule) for rule in RULES), (table, "norm"), (table, "batches to an update"),
     (limited, "none"), (limited, "value and average")],
)  # fmt: skip
def test_norms_and_rules_follow_the_twin(
    library: Path, layers: Callable[[], list[bp.layers.Layer]], rule: str, dtype: str
) -> None:
    """The same bits in any order of the threads."""
    case = layers, rule, dtype
    found = [train_with("cuda", *case) for _ in in_orders(library, ("forward", "random:1"))]
    assert len({digest(state(made), made.state()) for made in found}) == 1
    twin = train_with("reference", *case)
    for mine, theirs in zip(state(found[0]), state(twin), strict=True):
        assert_close(mine, theirs, dtype, steps=4)
    for name, moving in twin.state().items():
        assert_close(found[0].state()[name], moving, dtype, steps=4)
    assert found[0].loss_scale == twin.loss_scale


def test_the_next_product_reads_limited_weights(dtype: str) -> None:
    """Where shadows are kept, theirs too; float16 leaves out limits with the update."""
    made = train_with("cuda", limited, "value and average", dtype)
    assert np.linalg.norm(made.parameters()["0.kernel"], axis=0).max() <= 0.3 * (1 + 1e-6)
    x = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    again = train_with("cuda", limited, "none", dtype)
    again.set_parameters(made.parameters())
    assert np.array_equal(made.predict(x), again.predict(x))
    if dtype == "float16":
        made.parameters()["0.kernel"][...] = 1
        made.step(x, np.full((7, 3), 1e30, np.float32))
        assert (made.parameters()["0.kernel"] == 1).all()


def train_watched(dtype: str) -> None:
    """For watched_training.py: every kernel that this file is about."""
    for layers, rule in ((norms, "batches to an update"), (table, "norm")):
        train_with("cuda", layers, rule, dtype)
    for name in ("slabs along k", "wide"):
        inputs, units, rows = SIZES[name]
        made = model("cuda", units, dtype)
        build(made, inputs)
        made.step(*data(inputs, units[-1], rows))
        made.gradients(*data(inputs, units[-1], rows))
