"""cuBLASLt, by a library with its interface that computes on the emulated device's memory
(tests/cuda_fakes/cublaslt.cpp) and refuses what NVIDIA's documentation does not permit.

Checked: which products it makes, that what a network does with it is what the NumPy twin does, in
recorded steps too, that it is measured once and serves only where it is faster and right; that it
can be forbidden, and what is said where it is absent, of another version, or fails.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cpp_programs
import cuda_library
import fastbp as bp
from fastbp import _core, cublaslt
from fastbp.cublaslt import VARIABLE
from sweeps import Array

SOURCE = Path(__file__).parent / "cuda_fakes" / "cublaslt.cpp"
STEP = {"bfloat16": 2**-8, "float16": 2**-11, "tf32": 2**-11}  # of a rounding
# Numbers of epilogues (csrc/engine/cuda/blas_interface.h).
DEFAULT, BIAS, RELU, GELU, RELU_AUX, GELU_AUX, D_RELU, D_GELU, SUMS = (
    1, 4, 6, 36, 134, 164, 136, 192, 256)  # fmt: skip
# Each test has a size of its own: what was measured stays known to the process.
WIDTHS = itertools.count(200, 8)

Use = Callable[[str], None]


@pytest.fixture(scope="module")
def fake(device_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not cuda_library.is_emulated(device_library):
        pytest.skip("of the emulated device")
    target = tmp_path_factory.mktemp("blas") / cublaslt.FILE_NAME
    flags = ["-std=c++17", "-O2", "-shared", "-fPIC", "-Wall"]
    include = f"-I{cuda_library.CSRC}"
    command = [*cpp_programs.COMPILER.split(), *flags, include, SOURCE, device_library]
    subprocess.run([*command, "-o", target], check=True)
    return target


@pytest.fixture
def use(fake: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Use]:
    """Makes it serve, with the words of FAKE_BLAS. Its products take 10 microseconds to events,
    "slow" ones 1000, fastbp's own 100, other kernels 5."""
    clock = ctypes.CDLL(str(_core.cuda_library_path())).fbp_emulation_set_clock
    clock.argtypes = (ctypes.c_double, ctypes.c_double)
    clock(100, 5)

    def serve(words: str = "") -> None:
        tell(words)
        monkeypatch.setenv(VARIABLE, "off")
        cublaslt.prepare()  # what was measured before is of another service
        monkeypatch.setenv(VARIABLE, str(fake))

    yield serve
    tell("")
    clock(-1, -1)
    monkeypatch.setenv(VARIABLE, "off")
    cublaslt.prepare()


def tell(words: str) -> None:
    """What C++ reads of the environment is set in its own."""
    assert ctypes.CDLL(None).setenv(b"FAKE_BLAS", words.encode(), 1) == 0


def calls(fake: Path, epilogue: int) -> int:
    count = ctypes.CDLL(str(fake)).fake_blas_calls
    count.restype = ctypes.c_int64
    return int(count(epilogue))


def measured() -> list[str]:
    return _core.cuda_blas_choices().splitlines()


def train(device: str, dtype: str, activation: str, width: int, rule: str = "") -> bp.Sequential:
    """Two steps; the products of both hidden layers are worth it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(128, 96)).astype(np.float32)
    y = rng.normal(size=(128, 8)).astype(np.float32)
    layers = [bp.Dense(width, activation=activation) for _ in range(2)]
    made = bp.Sequential([*layers, bp.Dense(8)], seed=1)
    options: dict[str, Any] = {"clip_norm": 1.0} if rule == "norm" else {}
    made.compile(bp.SGD(0.05, momentum=0.9, **options), "mse", device=device, dtype=dtype)
    made.fit(x, y, epochs=1, batch_size=64, shuffle=False, verbose=0)
    return made


def layer(device: str, width: int, dtype: str = "bfloat16") -> bp.Sequential:
    """Of one product."""
    made = bp.Sequential([bp.Dense(width, activation="relu")], seed=1)
    made.compile("sgd", "mse", device=device, dtype=dtype)
    made.build(width)
    return made


def rows(count: int, width: int) -> Array:
    return np.random.default_rng(count).normal(size=(count, width)).astype(np.float32)


def assert_predicts(made: bp.Sequential, x: Array) -> None:
    twin = layer("reference", x.shape[1], made.dtype).predict(x)
    np.testing.assert_allclose(made.predict(x), twin, rtol=0, atol=1e-4 * np.abs(twin).max())


def assert_same(found: bp.Sequential, wanted: bp.Sequential, dtype: str) -> None:
    for name, value in wanted.parameters().items():
        allowed = 5 * STEP[dtype] * np.abs(value).max()
        np.testing.assert_allclose(found.parameters()[name], value, rtol=0, atol=allowed)


@pytest.mark.parametrize(
    ("dtype", "activation", "rule", "served"),
    [
        ("bfloat16", "relu", "", (BIAS, RELU_AUX, D_RELU, SUMS, DEFAULT)),
        pytest.param("bfloat16", "gelu_tanh", "norm", (BIAS, GELU_AUX, D_GELU, SUMS),
                     marks=pytest.mark.slow),
        pytest.param("tf32", "relu", "", (RELU_AUX, D_RELU, SUMS), marks=pytest.mark.slow),
        pytest.param("float16", "tanh", "", (BIAS, SUMS), marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_training_is_the_twins(
    use: Use, fake: Path, dtype: str, activation: str, rule: str, served: tuple[int, ...]
) -> None:
    use("" if activation == "tanh" else "slow_plain")  # of tanh there is no epilogue
    width, before = next(WIDTHS), {one: calls(fake, one) for one in served}
    found = train("cuda", dtype, activation, width, rule)
    engine: Any = found._require_built()
    assert engine.replays > 0
    assert [one for one in served if calls(fake, one) == before[one]] == []
    lines = [line for line in measured() if f"x{width}x" in line]
    taken = "taken: cuBLASLt" + " with" * (activation != "tanh")
    assert lines and all(taken in line for line in lines), lines
    assert_same(found, train("reference", dtype, activation, width, rule), dtype)
    train("cuda", dtype, activation, width, rule)
    assert [line for line in measured() if f"x{width}x" in line] == lines


def test_relus_derivative_of_what_is_rounded(use: Use) -> None:
    """By a kernel of its own, where the library's epilogue takes longer."""
    use("slow_derivative")
    width = next(WIDTHS)
    found = train("cuda", "bfloat16", "relu", width)
    (line,) = [line for line in measured() if line.startswith(f"delta 64x{width}x{width}")]
    assert "taken: cuBLASLt rounding" in line
    assert_same(found, train("reference", "bfloat16", "relu", width), "bfloat16")


def test_predictions(use: Use) -> None:
    """Their rows differ from call to call: what was measured serves up to the next power of two."""
    use("")
    width = next(WIDTHS)
    made = layer("cuda", width)
    for count in (100, 90, 128, 65):
        assert_predicts(made, rows(count, width))
        assert len([line for line in measured() if f"x{width}x" in line]) == 1
    assert_predicts(made, rows(130, width))
    assert len([line for line in measured() if f"x{width}x" in line]) == 2


def test_what_is_exact_or_small_is_never_asked(use: Use, fake: Path) -> None:
    use("")
    before = [calls(fake, one) for one in (BIAS, RELU)]
    width = next(WIDTHS)
    layer("cuda", width, "float32").predict(rows(64, width))
    layer("cuda", 32).predict(rows(64, 32))
    assert [calls(fake, one) for one in (BIAS, RELU)] == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("slow", "us"),
        ("wrong", "another result"),
        ("idle", "another result"),
        ("fails", "not offered"),
        ("no_algorithms", "not offered"),
    ],
)
def test_it_serves_where_it_is_faster_and_right(use: Use, words: str, said: str) -> None:
    use(words)
    width = next(WIDTHS)
    assert_predicts(layer("cuda", width), rows(64, width))
    (line,) = [line for line in measured() if f"64x{width}x{width} bf" in line]
    assert said in line and line.endswith("taken: own")


def test_it_fails_later(use: Use) -> None:
    use("")
    width = next(WIDTHS)
    made, x = layer("cuda", width), rows(64, width)
    assert_predicts(made, x)
    (line,) = [line for line in measured() if f"64x{width}x{width} bf" in line]
    assert "taken: cuBLASLt" in line
    tell("fails")
    assert_predicts(made, x)
    assert f"{line}; own, since it failed" in measured()


def test_it_has_no_handle(use: Use, fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the driver does not let it."""
    use("no_handle")
    fresh = fake.with_name("without-handle.so")
    fresh.write_bytes(fake.read_bytes())
    monkeypatch.setenv(VARIABLE, str(fresh))
    width = next(WIDTHS)
    assert_predicts(layer("cuda", width), rows(64, width))
    (line,) = [line for line in measured() if f"64x{width}x{width} bf" in line]
    assert line.endswith("taken: own")


def test_nan_comes_through(use: Use) -> None:
    """A relu that makes 0 of it is not taken, however fast; what has none may be."""
    use("loses_nan")
    width = next(WIDTHS)
    made, x = layer("cuda", width), rows(64, width)
    assert_predicts(made, x)
    (line,) = [line for line in measured() if f"64x{width}x{width} bf" in line]
    assert "loses NaN" in line and "taken: cuBLASLt with" not in line
    made.parameters()["0.bias"][5] = np.nan
    assert np.isnan(made.predict(x)[:, 5]).all()


def test_memory_is_too_small(use: Use) -> None:
    """Then the own kernels, which want no workspace, go on."""
    use("")
    width = next(WIDTHS)
    gc.collect()  # networks of other tests
    limit = ctypes.CDLL(None)
    limit.setenv(b"FASTBP_EMULATION_MEMORY", str(24 << 20).encode(), 1)
    try:
        assert_predicts(layer("cuda", width), rows(64, width))
    finally:
        limit.unsetenv(b"FASTBP_EMULATION_MEMORY")
    assert not [line for line in measured() if f"x{width}x" in line]


def test_what_is_said(use: Use, fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use("")
    width = next(WIDTHS)
    layer("cuda", width).predict(rows(64, width))
    found = bp.info(probe_devices=True)
    assert found["cuda"]["cublaslt"]["library"] == str(fake)
    assert f"cuBLASLt 13.1.0: {fake}" in str(found) and "taken: " in str(found)
    assert found["environment"][VARIABLE] == {"value": str(fake), "problem": None}

    monkeypatch.setenv(VARIABLE, "off")
    assert "without cuBLASLt: FASTBP_CUBLASLT=off forbids it" in str(bp.info(probe_devices=True))
    monkeypatch.delenv(VARIABLE)
    said = bp.info(probe_devices=True)["cuda"]["cublaslt"]
    assert said["library"] is None and "the emulated device takes none" in said["problem"]

    for words, named, expected in (
        ("old", fake, "it is version 12.4, and this CUDA library takes 13"),
        ("", SOURCE, "cannot be used"),
        ("", fake.parent / "none.so", "there is no such file"),
        ("", cuda_library.SHARED[0], "cannot be used"),
    ):
        tell(words)
        copy = fake.with_name(f"{len(words)}-{named.name}")  # a file that was not loaded before
        if named == fake:
            copy.write_bytes(fake.read_bytes())
            named = copy
        monkeypatch.setenv(VARIABLE, str(named))
        problem = bp.info(probe_devices=True)["environment"][VARIABLE]["problem"]
        assert problem is not None and expected in problem
        with pytest.raises(ValueError, match=f"{VARIABLE} names .* cannot be used"):
            layer("cuda", width)


def test_where_it_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is loaded already, NVIDIA's package, what the system finds."""
    lib = tmp_path / "nvidia" / "cu13" / "lib"
    lib.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(cublaslt, "_loaded", lambda: None)
    others = list(cublaslt._candidates())  # those of this environment, if it has the package
    assert others[-1] == cublaslt.FILE_NAME
    (lib / cublaslt.FILE_NAME).touch()
    assert list(cublaslt._candidates()) == [str(lib / cublaslt.FILE_NAME), *others]
    tried: list[str] = []

    def load(path: str) -> int:
        tried.append(path)
        if path == "/loaded":
            raise ValueError("too short")
        return 130100

    monkeypatch.setattr(cublaslt, "_loaded", lambda: "/loaded")
    monkeypatch.setattr(_core, "cuda_load_blas", load)
    monkeypatch.setattr(_core, "cuda_build_info", lambda: "version=1 device=gpu")
    for name in ("_setting", "_library", "_version", "_problem"):
        monkeypatch.setattr(cublaslt, name, None)
    monkeypatch.delenv(VARIABLE, raising=False)
    cublaslt.prepare()
    assert tried == ["", "/loaded", str(lib / cublaslt.FILE_NAME)]
    assert cublaslt._library == tried[-1] and cublaslt._problem is None
