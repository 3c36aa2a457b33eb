"""cuBLASLt: NVIDIA's library of matrix products, where it is looked for, whether it may be used.

Networks on device="cuda" whose products have rounded operands ("bfloat16", "float16", "tf32") take
it where it is there and faster than fastbp's own kernels, which is measured once for each size
(csrc/engine/cuda/blas_products.h). It is no requirement. FASTBP_CUBLASLT says where it is:

  auto, or not set   what the process has loaded already (PyTorch, CuPy), else that of the package
                     nvidia-cublas (pip install nvidia-cublas), else what the system finds
  off                nowhere: products are fastbp's own, which have the same bits in every process
  a file             that one, or an error

On the emulated device a file alone: NVIDIA's library would want a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import _core

VARIABLE = "FASTBP_CUBLASLT"
FILE_NAME = "libcublasLt.so.13"

_setting: str | None = None  # that has been followed
_library: str | None = None  # that serves
_version = 0
_problem: str | None = "it has not been looked for"


def prepare() -> None:
    """Does what FASTBP_CUBLASLT says, if that is not done yet; the CUDA library is loaded.

    Raises ValueError where it names a file that cannot be used.
    """
    global _setting, _library, _version, _problem
    setting = os.environ.get(VARIABLE) or "auto"
    if setting == _setting:
        return
    if setting == "off":
        _core.cuda_load_blas("")
        _library, _version, _problem = None, 0, f"{VARIABLE}=off forbids it"
    elif setting != "auto":
        path = str(Path(setting).absolute())
        try:
            _version = _core.cuda_load_blas(path)
        except ValueError as error:
            raise ValueError(
                f"{VARIABLE} names {path}, which cannot be used: {error}. Set it to a "
                f"{FILE_NAME}, to 'auto' or to 'off'"
            ) from None
        _library, _problem = path, None
    else:
        _look()
    _setting = setting


def report(*, look: bool) -> dict[str, Any]:
    """library, version, problem, and what has been measured; looks for it only if asked to."""
    problem = _problem
    if look:
        try:
            prepare()
            problem = _problem
        except ValueError as error:
            problem = str(error)
    return {
        "library": _library,
        "version": _dotted(_version) if _version else None,
        "problem": problem,
        "products": _core.cuda_blas_choices().splitlines() if _library else [],
    }


def _look() -> None:
    global _library, _version, _problem
    _core.cuda_load_blas("")
    _library, _version = None, 0
    if "device=emulated" in _core.cuda_build_info():
        _problem = f"the emulated device takes none but a file that {VARIABLE} names"
        return
    problems = []
    for path in _candidates():
        try:
            _version = _core.cuda_load_blas(path)
        except ValueError as error:
            problems.append(f"{path}: {error}")
        else:
            _library, _problem = path, None
            return
    _problem = "; ".join(problems)


def _candidates() -> Iterator[str]:
    loaded = _loaded()
    if loaded is not None:
        yield loaded
    for folder in _package_folders():
        if (folder / FILE_NAME).exists():
            yield str(folder / FILE_NAME)
    yield FILE_NAME  # as the system's loader finds it


def _loaded() -> str | None:
    """The file that is mapped into this process."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    paths = (line.split(maxsplit=5)[5] for line in lines if line.endswith(f"/{FILE_NAME}"))
    return next(paths, None)


def _package_folders() -> list[Path]:
    """Where NVIDIA's packages for Python put their libraries."""
    try:
        spec = find_spec("nvidia.cu13")
    except ModuleNotFoundError:  # nor is there a package nvidia
        return []
    found = [] if spec is None else list(spec.submodule_search_locations or ())
    return [Path(folder) / "lib" for folder in found]


def _dotted(version: int) -> str:
    """130100 -> "13.1.0"."""
    return f"{version // 10000}.{version % 10000 // 100}.{version % 100}"
