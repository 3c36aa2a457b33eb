"""What every test file may use: the devices that a model runs on; the first lines of a test run."""

import fcntl
import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import cuda_library
import cupy_stand_in
import fastbp as bp
from builds import Builder, can_build, made_before, program
from command_line import Outcome, Run
from fastbp.cli import main
from fastbp.cuda_library import VARIABLE, open_device

BUILDER = pytest.StashKey[Builder]()
PROCESSES = 2  # more would measure each other's threads
BLAS_THREADS = "OPENBLAS_NUM_THREADS"
CHOICES = ("-k", "-m", "-n", "--collect-only", "--co", "--pdb")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The whole suite runs in two processes side by side, where pytest-xdist is installed and there
    are two processors; a choice of tests, in this one. `pytest -n 0` forbids it. NumPy has one
    thread in each then: those of its products turn for a tenth of a second where they wait.
    """
    everything = config.args_source is config.ArgsSource.TESTPATHS
    chosen = any(word.startswith(CHOICES) for word in config.invocation_params.args)
    can = config.pluginmanager.has_plugin("xdist") and os.cpu_count() != 1
    if everything and not chosen and can and not _given(config):
        config.option.numprocesses = PROCESSES
        config.option.dist = "worksteal"
        os.environ.setdefault(BLAS_THREADS, "1")


def _given(config: pytest.Config) -> dict[str, Any]:
    """What the first process has told this one, if this is one of two: pytest-xdist's."""
    given: dict[str, Any] = getattr(config, "workerinput", {})
    return given


def pytest_configure(config: pytest.Config) -> None:
    """Ctrl-C interrupts, also where the tests were started in the background of a shell script.

    Such a process inherits an ignored SIGINT, and a test of Ctrl-C would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    given = _given(config)
    config.stash[BUILDER] = Builder(Path(given["builds"]) if given else None)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Of pytest-xdist, in the first process: what one of the others builds serves both."""
    node.workerinput["builds"] = str(node.config.stash[BUILDER].folder)


def pytest_report_header() -> str:
    info = bp.info()
    available = ", ".join(info["isas_available"])
    return f"fastbp {info['fastbp']}: isa {info['isa']} of {available}; {info['threads']} threads"


@pytest.fixture(params=["cpu", "reference"])
def device(request: pytest.FixtureRequest) -> str:
    """Each device that this version has; a model made with it must say that it runs there."""
    name: str = request.param
    return name


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*argv: object) -> Outcome:
        status = main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Outcome(status, captured.out, captured.err)

    return call


@pytest.hookimpl(trylast=True)  # when what is not to run has been left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that wait for a compiler come last: it works beside the others until then."""
    waiting = {item.path for item in items if _builds_of(item)}
    items.sort(key=lambda item: item.path in waiting)


def pytest_collection_finish(session: pytest.Session) -> None:
    """What the chosen tests want compiled is begun, in their order, while the first of them run.

    What is loaded by now lasts for the run: no collection of garbage, of which tests that count
    memory ask for many, needs to look at it again (a third of a second each).
    """
    gc.collect()
    gc.freeze()
    builder = session.config.stash[BUILDER]
    if not session.config.option.collectonly:
        builder.begin(list(dict.fromkeys(n for item in session.items for n in _builds_of(item))))


def _builds_of(item: pytest.Item) -> list[str]:
    """Seen from the fixtures that it asks for and their parameters; what is not seen here is made
    when it is asked for."""
    fixtures = set(getattr(item, "fixturenames", ()))
    params = getattr(getattr(item, "callspec", None), "params", {})
    if params.get("device_library") == "emulated":
        fixtures.add("emulated_library")
    names = [build for fixture, build in FIXTURES_BUILDS.items() if fixture in fixtures]
    names += [program(params["program_name"])] if "program_name" in params else []
    return [name for name in names if can_build(name) and made_before(name) is None]


def pytest_unconfigure(config: pytest.Config) -> None:
    if BUILDER in config.stash:
        config.stash[BUILDER].end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[bool]:
    """A test that measures time runs alone."""
    folder = item.config.stash[BUILDER].folder
    with (folder / "gate").open("w") as gate, (folder / "room").open("w") as room:
        fcntl.flock(gate, fcntl.LOCK_EX)  # whoever waits for the room lets nobody in before it
        fcntl.flock(room, fcntl.LOCK_EX if _measures(item) else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        try:
            return (yield)
        finally:
            fcntl.flock(room, fcntl.LOCK_UN)  # a child may have the file open


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Nothing is compiled while a test measures time, and the interpreters that it starts have all
    of NumPy's threads."""
    if not _measures(item):
        return (yield)
    builder = item.config.stash[BUILDER]
    builder.signal(signal.SIGSTOP)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv(BLAS_THREADS, raising=False)
            return (yield)
    finally:
        builder.signal(signal.SIGCONT)


def _measures(item: pytest.Item) -> bool:
    return item.get_closest_marker("timing") is not None


@pytest.fixture(scope="session")
def builder(request: pytest.FixtureRequest) -> Builder:
    """Makes what takes a compiler."""
    return request.config.stash[BUILDER]


FIXTURES_BUILDS = {
    "emulated_library": "emulated",
    "watched_library": "watched",
    "hazards": "hazards",
    "cases_library": "cases",
    "nvcc_library": "release",
}


def _built(builder: Builder, name: str) -> Path:
    if (library := made_before(name)) is not None:
        return library
    if not can_build(name):
        pytest.skip(f"no compiler on PATH for what the tests call {name!r}")
    (library,) = builder.result(name).glob("*.so")
    return library


@pytest.fixture(scope="session")
def emulated_library(builder: Builder) -> Path:
    """libfastbp_cuda_emulated.so of these sources."""
    return _built(builder, "emulated")


@pytest.fixture(scope="session")
def watched_library(builder: Builder) -> Path:
    """The emulated device's library with every access watched."""
    return _built(builder, "watched")


@pytest.fixture(scope="session")
def hazards(builder: Builder, watched_library: Path) -> str:
    """What came of training with that library: "no hazard"."""
    return (builder.result("hazards") / "said").read_text().strip()


@pytest.fixture(scope="session")
def cases_library(builder: Builder) -> Path:
    """The kernels of tests/emulation."""
    return _built(builder, "cases")


@pytest.fixture(scope="session")
def nvcc_library(builder: Builder) -> Path:
    """libfastbp_cuda.so of these sources for this machine's GPU, else for 9.0."""
    return _built(builder, "release")


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
def cupy_like(emulated_library: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The emulated device, as a user would choose it, with arrays that are like CuPy's
    (cupy_stand_in.py). It serves the process from then on."""
    monkeypatch.setenv(VARIABLE, str(emulated_library))
    assert open_device(0).name == "emulated"
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(empty=cupy_stand_in.empty))
    if not hasattr(cupy_stand_in.UnknownArray, "library"):
        cupy_stand_in.UnknownArray.library = cuda_library.Library(emulated_library)
    return emulated_library


@pytest.fixture
def emulated_device(device_library: Path) -> None:
    """Of tests that need what only the emulated device can do: a small memory, another age."""
    if not cuda_library.is_emulated(device_library):
        pytest.skip("of the emulated device")
