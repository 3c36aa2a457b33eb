"""What every test file may use: the devices that a model runs on; the first lines of a test run."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import cuda_library
import fastbp as bp
from fastbp.cuda_library import VARIABLE, open_device


def pytest_configure() -> None:
    """Ctrl-C interrupts, also where the tests were started in the background of a shell script.

    Such a process inherits an ignored SIGINT, and a test of Ctrl-C would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    info = bp.info()
    available = ", ".join(info["isas_available"])
    return f"fastbp {info['fastbp']}: isa {info['isa']} of {available}; {info['threads']} threads"


@pytest.fixture(params=["cpu", "reference"])
def device(request: pytest.FixtureRequest) -> str:
    """Each device that this version has; a model made with it must say that it runs there."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def emulated_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libfastbp_cuda_emulated.so of these sources, built once for the whole run."""
    if shutil.which(cuda_library.COMPILER.split()[0]) is None:
        pytest.skip(f"no C++ compiler: {cuda_library.COMPILER} is not on PATH")
    return cuda_library.build_emulated(tmp_path_factory.mktemp("emulated"))


@pytest.fixture(scope="session")
def nvcc_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libfastbp_cuda.so of these sources for this machine's GPU, else for compute capability 9.0;
    built once for the whole run."""
    if not cuda_library.has_nvcc():
        pytest.skip("nvcc is not on PATH")
    architecture = cuda_library.gpu_architecture() or "90a"
    return cuda_library.build_release(tmp_path_factory.mktemp("nvcc"), [architecture])


@pytest.fixture(scope="session")
def watched_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The emulated device's library with every access watched, built once for the whole run."""
    if shutil.which(cuda_library.COMPILER.split()[0]) is None:
        pytest.skip(f"no C++ compiler: {cuda_library.COMPILER} is not on PATH")
    return cuda_library.build_emulated(tmp_path_factory.mktemp("watched"), watched=True)


@pytest.fixture(scope="module", params=["emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def device_library(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The library of the process's CUDA device: the emulated one, or with `pytest -m gpu` a GPU.

    A process has one such library, so a run tests either.
    """
    if request.param == "gpu" and cuda_library.gpu_architecture() is None:
        pytest.skip("no NVIDIA GPU")
    library: Path = request.getfixturevalue(
        "nvcc_library" if request.param == "gpu" else "emulated_library"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(library))
        assert (open_device(0).name == "emulated") == (request.param == "emulated")
        yield library


@pytest.fixture
def emulated_device(device_library: Path) -> None:
    """Of tests that need what only the emulated device can do: a small memory, another age."""
    if not cuda_library.is_emulated(device_library):
        pytest.skip("of the emulated device")
