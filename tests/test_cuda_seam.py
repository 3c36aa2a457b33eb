"""The CUDA kernels are the CPU's: the same formulas, the same numerics, the same bits.

The kernels of csrc/kernels/cuda are compiled as C++ for the emulated device of csrc/emulation and
called through the library's C interface. Compared, bit for bit and in float32 and float64, NaN
being equal to NaN: every activation and derivative with fastbp.ops at both signs of every
magnitude; products with fastbp.ops at sizes around the tile of 64, the slab of 16 and the chunks of
256, with every layout of the operands; all of it whatever the order in which threads run. Unwritten
device memory is NaN and ends at a page that faults; gaps between rows must stay as they are.
tests/cpp/test_emulation.cpp shows that the emulated device notices what it should.

Where nvcc is on PATH, the same sources must compile with it without a warning or a spilled register
and, where there is a GPU as well, give the same bits on it. No speed is measured.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import cpp_programs
import cuda_library
from cuda_library import Library, LibraryError
from fastbp import _core, ops
from sweeps import DTYPES, Array, assert_same_bits, normal, points

pytestmark = pytest.mark.skipif(
    not cpp_programs.HAS_COMPILER,
    reason=f"no C++ compiler: {cpp_programs.COMPILER} is not on PATH",
)

ACTIVATIONS = _core.activations()
NAMES = [entry["name"] for entry in ACTIVATIONS]
PARAMETERS = {"leaky_relu": 0.25, "elu": 1.5}  # besides the defaults
SCHEDULES = ("forward", "reverse", "random:0", "random:1", "random:2")
# m, n, k: around the tile of 64 x 64, the slab of 16, the chunks of 256; nothing; a row, a column.
SHAPES = (
    (1, 1, 1), (3, 5, 0), (0, 4, 3), (4, 0, 3), (1, 65, 15), (65, 1, 16), (2, 3, 17),
    (63, 64, 31), (64, 63, 32), (64, 64, 64), (65, 65, 33), (129, 66, 7), (17, 130, 48),
    (5, 9, 255), (65, 3, 256), (7, 66, 257), (3, 5, 511), (64, 8, 513), (2, 2, 769),
)  # fmt: skip


@pytest.fixture(scope="module")
def library(emulated_library: Path) -> Library:
    """The library for the emulated device."""
    return Library(emulated_library)


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest, library: Library) -> Iterator[str]:
    """Each order in which the device may run its threads."""
    text: str = request.param
    set_schedule = library.handle.fbp_emulation_set_schedule
    assert set_schedule(text.encode()) == 0
    yield text
    assert set_schedule(b"forward") == 0


def operand(seed: int, dtype: str, rows: int, cols: int, layout: str) -> Array:
    """A matrix of normal numbers, stored in one of the ways that a caller may have it."""
    if layout == "columns":
        return normal(seed, dtype, cols, rows).T
    if layout == "backwards":
        return normal(seed, dtype, rows, cols)[::-1, ::-1]
    if layout == "apart":
        return normal(seed, dtype, 2 * rows, 3 * cols)[::2, ::3]
    if layout == "one row":
        return np.broadcast_to(normal(seed, dtype, 1, cols), (rows, cols))
    return normal(seed, dtype, rows, cols)


def assert_gaps_are_untouched(result: Array) -> None:
    base = result.base
    assert isinstance(base, np.ndarray) and np.isnan(base[:, result.shape[1] :]).all()


def test_library_names_itself_and_its_list(library: Library) -> None:
    assert library.device_count() == 1
    assert library.device_name(0) == "emulated"
    assert library.activations == ACTIVATIONS
    with pytest.raises(LibraryError, match="number 0"):
        library.device_name(1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_product(library: Library, dtype: str, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    for number, layouts in enumerate((("rows", "rows"), ("rows", "columns"), ("columns", "rows"))):
        a, b = operand(1, dtype, m, k, layouts[0]), operand(2, dtype, k, n, layouts[1])
        bias = normal(3, dtype, n) if number else None
        c, out = library.matmul(a, b, bias, gap=number)
        assert_same_bits(c, ops.matmul(a, b, bias=bias), str(layouts))
        assert_gaps_are_untouched(c)
        assert np.isnan(out).all()


@pytest.mark.parametrize("layout", ["columns", "backwards", "apart", "one row"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_product_of_any_layout(library: Library, dtype: str, layout: str) -> None:
    for a_layout, b_layout in ((layout, "rows"), ("rows", layout), (layout, layout)):
        a, b = operand(1, dtype, 66, 35, a_layout), operand(2, dtype, 35, 67, b_layout)
        assert_same_bits(library.matmul(a, b)[0], ops.matmul(a, b), f"{a_layout}, {b_layout}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_product_of_zeros_infinities_and_denormals(library: Library, dtype: str) -> None:
    """-0 survives where a slab of k is not full; infinities and NaN spread; denormals stay."""
    b = np.ones((17, 3), dtype)
    bias = np.full(3, -0.0, dtype)
    c, _ = library.matmul(np.full((2, 17), -0.0, dtype), b, bias)
    assert np.signbit(c).all()
    assert_same_bits(c, ops.matmul(np.full((2, 17), -0.0, dtype), b, bias=bias))
    tiny = float(np.finfo(dtype).tiny)
    values = np.array([0.0, -0.0, 1.0, tiny / 4, -tiny / 2, 1e30, np.inf, -np.inf, np.nan], dtype)
    rng = np.random.default_rng(5)
    a, b = rng.choice(values, (70, 40)), rng.choice(values, (40, 70))
    a[:35], b[:, :35] = rng.choice(values[:5], (35, 40)), rng.choice(values[:5], (40, 35))
    assert_same_bits(library.matmul(a, b)[0], ops.matmul(a, b))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_product_with_activation(library: Library, dtype: str, name: str) -> None:
    a, b, bias = normal(1, dtype, 65, 18), normal(2, dtype, 18, 66), normal(3, dtype, 66)
    z = ops.matmul(a, b, bias=bias)
    c, out = library.matmul(a, b, bias, name, gap=1)
    assert_same_bits(c, z)
    assert_same_bits(out, ops.matmul(a, b, bias=bias, activation=name))
    assert_gaps_are_untouched(out)
    param = PARAMETERS.get(name)
    c, out = library.matmul(a, b, bias, name, param=param, keep_c=False)
    assert np.isnan(c).all()
    assert_same_bits(out, ops.activation_forward(name, z, param=param))


def test_product_of_any_order(library: Library, schedule: str) -> None:
    a, b, bias = (
        normal(1, "float32", 130, 50),
        normal(2, "float32", 50, 70),
        normal(3, "float32", 70),
    )
    _, out = library.matmul(a, b, bias, "tanh")
    assert_same_bits(out, ops.matmul(a, b, bias=bias, activation="tanh"), schedule)


def derivative(name: str, x: Array, dy: Array, param: float | None) -> tuple[Array, Array]:
    """(what the derivative is taken from, dz) on the CPU."""
    if next(e for e in ACTIVATIONS if e["name"] == name)["saves"] == "output":
        saved = ops.activation_forward(name, x, param=param)
        return saved, ops.activation_backward(name, dy, y=saved, param=param)
    return x, ops.activation_backward(name, dy, z=x, param=param)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_activation(library: Library, dtype: str, name: str) -> None:
    """Forward and backward at many points, by rows, with gaps between them, and in place."""
    x = np.concatenate([points(dtype, 400), np.array([np.inf, -np.inf, np.nan], dtype)])
    x = np.resize(x, (len(x) // 33, 33))
    dy = normal(7, dtype, *x.shape)
    for param in {None, PARAMETERS.get(name)}:
        y = ops.activation_forward(name, x, param=param)
        saved, dz = derivative(name, x, dy, param)
        assert_same_bits(library.activation(name, x, param=param), y)
        assert_same_bits(library.activation(name, x, param=param, in_place=True), y)
        assert_same_bits(library.activation(name, dy, saved, param=param), dz)
        assert_same_bits(library.activation(name, dy, saved, param=param, in_place=True), dz)
        wide = np.full((x.shape[0], 40), np.nan, dtype)[:, :33]
        wide[...] = x
        for result, expected in (
            (library.activation(name, wide, param=param, gap=2), y),
            (library.activation(name, dy, wide if saved is x else saved, param=param, gap=2), dz),
        ):
            assert_same_bits(result, expected)
            assert_gaps_are_untouched(result)


@pytest.mark.parametrize("shape", [(1, 1), (0, 3), (3, 0), (300, 1), (1, 700), (129, 3), (3, 257)])
def test_activation_of_any_shape_and_order(
    library: Library, schedule: str, shape: tuple[int, int]
) -> None:
    x = normal(1, "float32", *shape)
    for gap in (0, 1):
        result = library.activation("silu", x, gap=gap)
        assert_same_bits(result, ops.silu(x), schedule)


def test_wrong_arguments_are_errors(library: Library) -> None:
    run, good = library.api.matmul, cuda_library.MatmulArgs(0, -1, 0, 1, 1, 0, c=1)
    for field, value, message in (
        ("dtype", 2, "neither float32 nor float64"),
        ("activation", len(NAMES), "no such activation"),
        ("activation", -2, "no such activation"),
        ("m", -1, "a size is negative"),
        ("k", 1, "a or b is null"),
        ("c", None, "no memory for the result"),
    ):
        args = cuda_library.MatmulArgs.from_buffer_copy(good)
        setattr(args, field, value)
        with pytest.raises(LibraryError, match=f"matmul: .*{message}") as caught:
            library.check(run(ctypes.byref(args), None))
        assert caught.value.code == 1
    with pytest.raises(LibraryError, match="activation_forward: a pointer is null"):
        library.check(
            library.api.activation_forward(cuda_library.ActivationArgs(0, 0, 0, 1, 1), None)
        )
    other = cuda_library.Api(size=8)
    assert library.handle.fbp_get_api(ctypes.byref(other)) == 1
    assert not other.matmul


def test_overruns_are_errors_and_not_crashes(library: Library) -> None:
    x = normal(1, "float32", 3, 5)
    with cuda_library.Memory(library, x) as memory:
        args = cuda_library.ActivationArgs(
            0, 0, 0, 1, 16, memory.pointer, 16, None, 0, memory.pointer, 16
        )
        library.check(library.api.activation_forward(ctypes.byref(args), None))
        with pytest.raises(LibraryError, match="0 bytes past the end of 60 bytes") as caught:
            library.check(library.api.synchronize(None))
        assert caught.value.code == 3
    with pytest.raises(LibraryError, match="out of memory") as caught:
        library.check(library.api.allocate(ctypes.byref(ctypes.c_void_p()), 1 << 60))
    assert caught.value.code == 2


def test_schedule_comes_from_the_environment(library: Library, tmp_path: Path) -> None:
    """A schedule that is none fails the first launch, with a message that names the choices."""
    program = (
        "import sys, numpy as np; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from cuda_library import Library; library = Library(Path(sys.argv[2]))\n"
        "print(library.activation('relu', np.ones((1, 1), np.float32)))"
    )
    for schedule, status, text in (
        ("random:7", 0, "[[1.]]"),
        ("sideways", 1, "'sideways', expected forward, reverse or random:<seed>"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, str(Path(__file__).parent), library.handle._name],
            env={**os.environ, "FASTBP_EMULATION_SCHEDULE": schedule},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status and text in done.stdout + done.stderr, done.stderr


def test_header_is_plain_c() -> None:
    header = cuda_library.CSRC / "kernels" / "cuda" / "fastbp_cuda.h"
    flags = ["-x", "c", "-std=c99", "-pedantic", "-Wall", "-Werror", "-fsyntax-only"]
    subprocess.run([*cpp_programs.COMPILER.split(), *flags, str(header)], check=True)


@pytest.mark.nvcc
def test_nvcc_compiles_the_same_sources(nvcc_library: Path) -> None:
    """The real library loads without a GPU too, and says why it has none."""
    library = Library(nvcc_library)
    assert library.activations == ACTIVATIONS
    if cuda_library.gpu_architecture() is None:
        with pytest.raises(LibraryError, match=r"device_count: .+"):
            library.device_count()


@pytest.mark.gpu
@pytest.mark.skipif(cuda_library.gpu_architecture() is None, reason="no NVIDIA GPU")
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gpu_has_the_same_bits(nvcc_library: Path, dtype: str) -> None:
    library = Library(nvcc_library)
    assert library.device_name(0) != "emulated"
    a, b, x = normal(1, dtype, 129, 770), normal(2, dtype, 770, 66), points(dtype, 4000)[None, :]
    assert_same_bits(library.matmul(a, b)[0], ops.matmul(a, b))
    for name in NAMES:
        saved, dz = derivative(name, x, np.ones_like(x), None)
        assert_same_bits(library.activation(name, x), ops.activation_forward(name, x), name)
        assert_same_bits(library.activation(name, np.ones_like(x), saved), dz, name)
