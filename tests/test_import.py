"""What `import fastbp` costs and what it leaves alone; what fastbp.info() says."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastbp as bp
from fastbp import _core

MILLISECONDS = 20  # of processor time beyond NumPy's own import
SHARE = 0.25  # of NumPy's own, which is what that comes to; where another program slows both


def run(program: str, **environment: str) -> str:
    """The output of a new Python process."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timing
def test_import_is_quick() -> None:
    """The best of several processes: the first ones may have to write bytecode.

    Of the importing thread: those of NumPy's BLAS go on spinning for a while.
    """
    program = (
        "import time; begin = time.thread_time(); import numpy; start = time.thread_time();"
        "import fastbp; end = time.thread_time(); print(start - begin, end - start)"
    )
    seen = []
    for _ in range(10):
        numpy, ours = map(float, run(program, PYTHONDONTWRITEBYTECODE="").split())
        if 1e3 * ours <= MILLISECONDS or ours <= SHARE * numpy:
            return
        seen.append((numpy, ours))
    pytest.fail(f"seconds of importing NumPy, and fastbp on top of it: {seen}")


def test_import_loads_only_what_every_program_needs() -> None:
    program = "import sys, numpy; import fastbp; print(*sys.modules)"
    loaded = set(run(program).split())
    unwanted = {
        "fastbp.reference", "fastbp.ops", "fastbp.files", "fastbp.training", "fastbp.cli",
        "importlib.metadata", "json", "hashlib", "difflib", "matplotlib", "rich", "tqdm", "sklearn",
    }  # fmt: skip
    assert not unwanted & loaded


def test_a_first_fit_loads_only_what_it_needs() -> None:
    """What is imported at the first call makes that call slow."""
    program = """
import sys
import numpy
import fastbp as bp
model = bp.Sequential([bp.Dense(2)], seed=0)
model.compile("sgd", "mse")
model.fit(numpy.ones((4, 3)), numpy.ones((4, 2)), verbose=0)
print(*sys.modules)
"""
    loaded = set(run(program).split())
    unwanted = {
        "fastbp.reference", "fastbp.ops", "fastbp.files", "fastbp.cli", "numpy.random", "csv",
        "fastbp.callbacks.checkpoint", "fastbp.callbacks.logs", "fastbp.callbacks.monitored",
        "hashlib",
    }  # fmt: skip
    assert not unwanted & loaded


def test_types_are_told() -> None:
    """Type checkers read the package, and a stub that has the names of the extension."""
    folder = Path(bp.__file__).parent
    assert (folder / "py.typed").exists()
    stub = ast.parse((folder / "_core.pyi").read_text(encoding="utf-8"))
    told: dict[str, set[str]] = {"": set()}
    for node in stub.body:
        if isinstance(node, ast.ClassDef):
            told[node.name] = {
                inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)
            }
            told[node.name] |= {
                inner.target.id
                for inner in node.body
                if isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name)
            }
        name = getattr(node, "name", None) or getattr(getattr(node, "target", None), "id", None)
        told[""] |= {name} if name else set()
    public = {name for name in dir(_core) if not name.startswith("_")}
    assert public - told[""] == set()
    for name in sorted(public & set(told)):
        own = {n for n in vars(getattr(_core, name)) if not n.startswith("_")}
        assert own - told[name] == set(), name


def test_import_changes_no_global_state() -> None:
    program = """
import os, sys, signal, threading, warnings, random, locale, numpy
import ctypes.util, ctypes
mxcsr = ctypes.CDLL(ctypes.util.find_library("m")).fegetround
def state():
    return (
        dict(os.environ), warnings.filters[:], numpy.geterr(), random.getstate(), mxcsr(),
        numpy.random.get_state()[1].tolist(), threading.active_count(), os.getcwd(), sys.path[:],
        [signal.getsignal(s) for s in signal.valid_signals()], locale.setlocale(locale.LC_ALL),
        float('1e-310') * threading.active_count(), sys.getrecursionlimit(),
        sys.getswitchinterval(), sys.excepthook,
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None,
        len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 1,
    )
before = state()
import fastbp
assert state() == before
"""
    run(program)


def test_modules_named_later_are_found() -> None:
    assert run("import fastbp; print(fastbp.ops.relu(-1.0), fastbp.reference.ops.relu(-1.0))")
    assert {"ops", "reference", "Sequential"} <= set(dir(bp))
    for name in bp.__all__:
        assert getattr(bp, name) is not None
    found = run("import fastbp; print(*(n for n in dir(fastbp) if n[:2] != '__'))").split()
    modules = {"callbacks", "metrics", "model_selection", "ops", "reference", "sklearn"}
    estimators = {f"{kind}{what}" for kind in ("MLP", "Sequence")
                  for what in ("Classifier", "Regressor")}  # fmt: skip
    assert set(found) == {*bp.__all__, *modules, *estimators} - {"__version__"}


def test_version_is_the_package_metadatas() -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version("fastbp")
    except PackageNotFoundError:
        pytest.skip("fastbp runs from its source folder, not installed")
    assert bp.__version__ == installed


def test_info_is_plain_data_that_prints_as_a_table() -> None:
    info = bp.info()
    assert json.loads(json.dumps(info)) == info
    assert info["fastbp"] == bp.__version__
    assert info["isa"] in info["isas_available"]
    assert set(info["isas_available"]) <= set(info["isas_compiled"])
    assert info["threads"] == bp.get_num_threads()
    assert "isa" in str(info).splitlines()[5]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FASTBP_ISA", "sse9"),
        ("FASTBP_NUM_THREADS", "many"),
        ("FASTBP_DEVICE", "tpu"),
        ("FASTBP_DEVICE", "cuda"),
        ("FASTBP_CUDA_LIBRARY", "/missing.so"),
    ],
)
def test_info_reports_wrong_settings(name: str, value: str) -> None:
    program = "import fastbp, json; i = fastbp.info(); print(json.dumps(i)); print(i)"
    output = run(program, **{name: value})
    found = json.loads(output.splitlines()[0])["environment"]
    assert found[name]["value"] == value
    assert found[name]["problem"]
    assert f"{name}={value} (not valid:" in output


def test_info_shows_right_settings() -> None:
    found = json.loads(
        run("import fastbp, json; print(json.dumps(fastbp.info()))", FASTBP_NUM_THREADS="1")
    )
    assert found["threads"] == 1
    assert found["environment"]["FASTBP_NUM_THREADS"] == {"value": "1", "problem": None}


def test_threads_can_be_set() -> None:
    before = bp.get_num_threads()
    try:
        bp.set_num_threads(1)
        assert bp.get_num_threads() == 1
    finally:
        bp.set_num_threads(before)


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not on PATH")
def test_the_extension_exports_its_module_alone() -> None:
    """So that no symbol of a C++ library linked into it is taken for one of NumPy's."""
    command = ["nm", "-D", "--defined-only", "--format=posix", _core.__file__]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in found.splitlines()] == ["PyInit__core"]
