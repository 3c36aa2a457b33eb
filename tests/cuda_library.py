"""The CUDA library from Python: builds it from csrc/, for an emulated device or with nvcc, and
calls its C interface (csrc/kernels/cuda/fastbp_cuda.h) with NumPy arrays.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from ctypes import POINTER, c_char_p, c_double, c_int32, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from cpp_programs import COMMON_FLAGS, COMPILER
from fastbp import _core
from sweeps import Array

CSRC = Path(__file__).parent.parent / "csrc"
KERNELS = sorted((CSRC / "kernels" / "cuda").glob("*.cu"))
TRAINING = sorted((CSRC / "kernels" / "cuda" / "train").glob("*.cu"))  # flush denormals
ENGINE = sorted((CSRC / "engine" / "cuda").glob("*.cu"))
SHARED = [
    CSRC / name
    for name in (
        "core/arena.cpp",
        "core/random.cpp",
        "engine/layout.cpp",
        "engine/plan.cpp",
        "engine/step_scales.cpp",
    )
]
EMULATION = sorted((CSRC / "emulation").glob("*.cpp"))
DTYPE_CODES = {"float32": 0, "float64": 1}
SAVES = ("none", "input", "output")  # by code
ABI_VERSION = 19
VERSION = f'-DFASTBP_VERSION="{_core.build_info()["version"]}"'
NO_ACTIVATION = -1


def build_emulated(folder: Path, *, watched: bool = False) -> Path:
    """The library for the emulated device; `watched` for data races and unwritten memory."""
    kernels = [*TRAINING, *KERNELS]
    host = _made_once(folder.parent / "host", (*ENGINE, *SHARED), "-O0")
    return link_emulated(kernels, folder, "libfastbp_cuda_emulated.so", host, watched=watched)


def link_emulated(
    sources: list[Path], folder: Path, name: str, host: Sequence[str] = (), *, watched: bool
) -> Path:
    """A library of these sources, the objects `host` and the emulated device."""
    # Calls of __tsan_..., which the device defines: nothing is linked to ThreadSanitizer.
    watch = ["-fsanitize=thread"] if watched else []
    objects = _compile_emulated(sources, folder, *watch)
    library = folder / name
    shared = [*COMPILER.split(), "-shared", "-pthread"]
    _run(
        [
            *shared,
            *objects,
            *host,
            *emulated_device(folder.parent / "device"),
            "-ldl",
            "-o",
            str(library),
        ]
    )
    return library


def emulated_device(folder: Path) -> list[str]:
    """Its objects, the same for all that is linked with them. Every access of a watched library
    goes through them: by -O1 that takes half as long again."""
    return _made_once(folder, tuple(EMULATION), "-O2")


_MAKING = threading.Lock()


def _made_once(folder: Path, sources: tuple[Path, ...], *flags: str) -> list[str]:
    """What is not watched, the device itself and the host's side: made once for all libraries and
    programs of a process."""
    with _MAKING:
        return _objects(folder, sources, *flags)


@functools.cache
def _objects(folder: Path, sources: tuple[Path, ...], *flags: str) -> list[str]:
    own = folder.with_name(f"{folder.name}-{os.getpid()}")
    own.mkdir()
    return _compile_emulated(sources, own, *flags)


def _compile_emulated(sources: Sequence[Path], folder: Path, *more: str) -> list[str]:
    # The checked longjmp takes a jump from one stack to another for a mistake.
    flags = ["-std=c++17", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-U_FORTIFY_SOURCE"]
    defines = ["-DFASTBP_EMULATION", VERSION, f"-I{CSRC}"]
    warnings = ["-Wall", "-Wextra", "-Werror"]
    command = [*COMPILER.split(), *flags, *warnings, *COMMON_FLAGS, *defines, *more]
    first = _read_first(folder.parent, *command)
    return _compile([*command, "-include", first, "-x", "c++"], sources, folder)


@functools.cache
def _read_first(folder: Path, *command: str) -> str:
    """What every CUDA source includes, as this compiler has understood it: a quarter of a second
    for each of them."""
    first = Path(tempfile.mkdtemp(prefix="first-", dir=folder)) / "first.h"
    first.write_text('#include "kernels/cuda/launch.cuh"\n')
    _run([*command, "-x", "c++-header", str(first), "-o", f"{first}.gch"])
    return str(first)


def build_release(folder: Path, architectures: Sequence[str]) -> Path:
    """The library as cmake/cuda.cmake builds it for users: machine code for each architecture, PTX
    for the newest, nothing exported but the interface.
    """
    code = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in architectures]
    newest = architectures[-1]
    code.append(f"-gencode=arch=compute_{newest},code=compute_{newest}")
    flags = ["-O3", "-DNDEBUG", "--compress-mode=size", *code]
    objects = _compile_with_nvcc(flags, folder)
    library = folder / "libfastbp_cuda.so"
    host = "-static-libstdc++,-static-libgcc"
    exports = f"-Xlinker=--version-script={CSRC / 'kernels' / 'cuda' / 'exports.map'}"
    exclude = ["-Xlinker=--exclude-libs,ALL", "-Xlinker=-s", exports]
    link = ["nvcc", "-shared", "--cudart=static", f"-Xcompiler={host}", *exclude, *code]
    _run([*link, *objects, "-o", str(library)])
    return library


def _nvcc_flags() -> list[str]:
    """Warnings, and registers that spill to memory, are errors."""
    ptxas = "-Xptxas=-Werror,-warn-spills,-warn-lmem-usage"
    host = "-Xcompiler=-fPIC,-fvisibility=hidden,-ffp-contract=off,-Wall,-Wextra"
    return ["-fmad=false", ptxas, host, VERSION, f"-I{CSRC}", "-Werror", "all-warnings"]


def is_emulated(library: Path) -> bool:
    return hasattr(ctypes.CDLL(str(library)), "fbp_emulation_set_schedule")


def launches(library: Path, name: str) -> int | None:
    """How many kernels of this name the emulated device has run; None on a GPU."""
    count = getattr(ctypes.CDLL(str(library)), "fbp_emulation_launches", None)
    if count is None:
        return None
    count.restype = c_int64
    return int(count(name.encode()))


def held(library: Path) -> int:
    """Bytes that are allocated on the emulated device."""
    count = ctypes.CDLL(str(library)).fbp_emulation_held
    count.restype = c_int64
    return int(count(0))


def copied(library: Path) -> dict[str, int]:
    """Bytes that the emulated device has copied so far, by direction."""
    count = ctypes.CDLL(str(library)).fbp_emulation_copied
    count.restype = c_int64
    return {"in": int(count(1)), "out": int(count(2)), "within": int(count(3))}


def in_orders(library: Path, schedules: Sequence[str]) -> Iterator[str]:
    """Each schedule, while the emulated device runs threads in it. A GPU has an order of its own
    each time.
    """
    handle = ctypes.CDLL(str(library))
    try:
        for schedule in schedules:
            if is_emulated(library):
                assert handle.fbp_emulation_set_schedule(schedule.encode()) == 0
            yield schedule
    finally:
        if is_emulated(library):
            assert handle.fbp_emulation_set_schedule(b"forward") == 0


def gpu_architecture() -> str | None:
    """As nvcc names them: "80" for a GPU of compute capability 8.0, "90a" for 9.0, with what it
    alone has; None where there is none."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    said = subprocess.run(query, capture_output=True, text=True, check=False)
    if said.returncode != 0:
        return None
    number = said.stdout.splitlines()[0].replace(".", "")
    return "90a" if number == "90" else number


def _compile_with_nvcc(flags: list[str], folder: Path) -> list[str]:
    """The library's objects; the kernels of a training step flush denormals."""
    command = ["nvcc", "-std=c++17", *flags, *_nvcc_flags()]
    objects = _compile([*command, "-ftz=true"], TRAINING, folder)
    return objects + _compile(command, [*KERNELS, *ENGINE, *SHARED], folder)


def _compile(command: list[str], sources: Sequence[Path], folder: Path) -> list[str]:
    objects = [str(folder / f"{source.parent.name}_{source.name}.o") for source in sources]
    commands = [
        [*command, "-c", str(source), "-o", target]
        for source, target in zip(sources, objects, strict=True)
    ]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_run, commands))
    return objects


def _run(command: list[str]) -> None:
    # Compilers do without the sanitizers that Python may run with.
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def has_nvcc() -> bool:
    return shutil.which("nvcc") is not None


class MatmulArgs(ctypes.Structure):
    _fields_ = (
        *((name, c_int32) for name in ("dtype", "activation")),
        ("param", c_double),
        *((name, c_int64) for name in "mnk"),
        ("a", c_void_p),
        *((name, c_int64) for name in ("a_row", "a_col")),
        ("b", c_void_p),
        *((name, c_int64) for name in ("b_row", "b_col")),
        ("bias", c_void_p),
        ("c", c_void_p),
        ("c_row", c_int64),
        ("out", c_void_p),
        ("out_row", c_int64),
    )


class ActivationArgs(ctypes.Structure):
    _fields_ = (
        *((name, c_int32) for name in ("dtype", "activation")),
        ("param", c_double),
        *((name, c_int64) for name in ("rows", "cols")),
        *(
            field
            for name in ("x", "saved", "out")
            for field in ((name, c_void_p), (f"{name}_row", c_int64))
        ),
    )


class ActivationInfo(ctypes.Structure):
    _fields_ = (("name", c_char_p), ("saves", c_int32), ("default_param", c_double))


def _function(*parameters: Any) -> Any:
    return ctypes.CFUNCTYPE(c_int32, *parameters)


class Api(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        ("last_error", ctypes.CFUNCTYPE(c_char_p)),
        ("device_count", _function(POINTER(c_int32))),
        ("device_name", _function(c_int32, c_char_p, c_size_t)),
        ("allocate", _function(POINTER(c_void_p), c_size_t)),
        ("release", _function(c_void_p)),
        ("copy_to_device", _function(c_void_p, c_void_p, c_size_t, c_void_p)),
        ("copy_to_host", _function(c_void_p, c_void_p, c_size_t, c_void_p)),
        ("synchronize", _function(c_void_p)),
        ("select_device", _function(c_int32)),
        ("device_of", _function(c_void_p, POINTER(c_int32))),
        ("activation_count", c_int32),
        ("activations", POINTER(ActivationInfo)),
        ("matmul", _function(POINTER(MatmulArgs), c_void_p)),
        ("activation_forward", _function(POINTER(ActivationArgs), c_void_p)),
        ("activation_backward", _function(POINTER(ActivationArgs), c_void_p)),
        ("intake", c_void_p),  # called through fastbp._core, like what follows
        ("sum", c_void_p),
        ("load_blas", c_void_p),
        ("blas_choices", c_void_p),
        ("network", c_void_p),  # called through fastbp._core.CudaNetwork
    )


class LibraryError(RuntimeError):
    """A call failed; .code is the C interface's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Memory:
    """Device memory with the bytes that an array spans, gaps included; `pointer` is where element
    [0, 0, ...] lies. For `with`: it is released at the end, which fails if the bytes around it
    have changed.
    """

    def __init__(self, library: Library, array: Array) -> None:
        self.library, self.array = library, array
        low, high = np.lib.array_utils.byte_bounds(array) if array.size else (0, 0)
        self.low, self.bytes = low, high - low
        self.start = c_void_p()
        library.check(library.api.allocate(ctypes.byref(self.start), self.bytes))
        self.pointer = (self.start.value or 0) + (array.ctypes.data - low if array.size else 0)
        library.check(library.api.copy_to_device(self.start, low, self.bytes, None))

    def fetch(self) -> Array:
        """The array with what the device's memory has become."""
        copy = self.library.api.copy_to_host
        self.library.check(copy(self.low, self.start, self.bytes, None))
        return self.array

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        self.library.check(self.library.api.release(self.start))


class Library:
    """The functions of a library, checked and with arrays for arguments."""

    def __init__(self, path: Path) -> None:
        self.handle = ctypes.CDLL(str(path))
        version = self.handle.fbp_abi_version()
        assert version == ABI_VERSION, f"{path} has ABI {version}, expected {ABI_VERSION}"
        self.api = Api(size=ctypes.sizeof(Api))
        assert self.handle.fbp_get_api(ctypes.byref(self.api)) == 0
        infos = [self.api.activations[i] for i in range(self.api.activation_count)]
        self.activations = [
            {"name": i.name.decode(), "saves": SAVES[i.saves], "default_param": i.default_param}
            for i in infos
        ]
        self.index = {info["name"]: number for number, info in enumerate(self.activations)}

    def check(self, code: int) -> None:
        if code != 0:
            raise LibraryError(code, self.api.last_error().decode())

    def device_count(self) -> int:
        count = c_int32(-1)
        self.check(self.api.device_count(ctypes.byref(count)))
        return count.value

    def device_name(self, device: int) -> str:
        name = ctypes.create_string_buffer(64)
        self.check(self.api.device_name(device, name, len(name)))
        return name.value.decode()

    def matmul(
        self,
        a: Array,
        b: Array,
        bias: Array | None = None,
        activation: str | None = None,
        *,
        param: float | None = None,
        gap: int = 0,
        keep_c: bool = True,
    ) -> tuple[Array, Array]:
        """(c, out) of a @ b + bias, full of NaN where the device was not to write; `gap` elements
        lie between the rows of each.
        """
        (m, k), n = a.shape, b.shape[1]
        c, out = (np.full((m, n + gap), np.nan, a.dtype)[:, :n] for _ in range(2))
        chosen = NO_ACTIVATION if activation is None else self.index[activation]
        if param is None:
            param = 0.0 if activation is None else self.activations[chosen]["default_param"]
        with (
            Memory(self, a) as on_a,
            Memory(self, b) as on_b,
            Memory(self, np.empty(0) if bias is None else bias) as on_bias,
            Memory(self, c) as on_c,
            Memory(self, out) as on_out,
        ):
            args = MatmulArgs(
                DTYPE_CODES[a.dtype.name], chosen, param, m, n, k,
                on_a.pointer, *_steps(a), on_b.pointer, *_steps(b), on_bias.pointer,
                on_c.pointer if keep_c else None, n + gap, on_out.pointer, n + gap,
            )  # fmt: skip
            self.check(self.api.matmul(ctypes.byref(args), None))
            return on_c.fetch(), on_out.fetch()

    def activation(
        self,
        name: str,
        x: Array,
        saved: Array | None = None,
        *,
        param: float | None = None,
        gap: int = 0,
        in_place: bool = False,
    ) -> Array:
        """f(x), or x f'(saved) where saved is given; `gap` elements lie between the result's rows,
        or it is written over x.
        """
        out = np.full((x.shape[0], x.shape[1] + gap), np.nan, x.dtype)[:, : x.shape[1]]
        chosen = self.index[name]
        run = self.api.activation_forward if saved is None else self.api.activation_backward
        param = self.activations[chosen]["default_param"] if param is None else param
        saved = np.empty((0, 0), x.dtype) if saved is None else saved
        with (
            Memory(self, x.copy() if in_place else x) as on_x,
            Memory(self, saved) as on_saved,
            Memory(self, out) as on_out,
        ):
            target = on_x if in_place else on_out
            args = ActivationArgs(
                DTYPE_CODES[x.dtype.name], chosen, param, *x.shape,
                on_x.pointer, _steps(on_x.array)[0], on_saved.pointer, _steps(saved)[0],
                target.pointer, _steps(target.array)[0],
            )  # fmt: skip
            self.check(run(ctypes.byref(args), None))
            return target.fetch()


def _steps(matrix: Array) -> tuple[int, ...]:
    return tuple(step // matrix.itemsize for step in matrix.strides)
