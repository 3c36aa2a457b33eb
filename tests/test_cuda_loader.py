"""Why a CUDA device cannot be used, in words, and that everything else goes on.

Each case runs in a process of its own, with a driver and a CUDA library that say what the case
wants (tests/cuda_fakes), found through the places that users have. Checked: the reason, the words
with the remedy, that fastbp.info() tells the same, and that the model trains on the CPU afterwards.
The emulated device is loaded by the same way.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cpp_programs
import cuda_library
import fastbp as bp

PACKAGE = Path(bp.__file__).parent
FAKES = Path(__file__).parent / "cuda_fakes"
VERSION = bp.__version__
GPU_BUILD = f"version={VERSION} device=gpu cuda=13000 architectures=750,800,900,1200"
# For each of the settings that come as arguments: asks for a device, and what info says.
PROGRAM = """
import json, os, sys
import fastbp as bp, numpy as np
from fastbp import cuda_library

def ask(asked):
    try:
        result = {"device": cuda_library.open_device(int(asked.partition(":")[2] or 0))}
    except bp.DeviceNotAvailableError as error:
        result = {"reason": error.reason}
    model = bp.Sequential([bp.Dense(2)])
    try:
        model.compile(loss="mse", device=asked)
    except bp.DeviceNotAvailableError as error:
        result["message"] = str(error)
    result["info"] = bp.info(probe_devices=True)["cuda"]
    model.compile(loss="mse")
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    return result

results = []
for settings in json.loads(sys.argv[1]):
    os.environ.update(settings)
    cuda_library._devices = None
    results.append(ask(os.environ.get("ASKED", "cuda")))
    for name in settings:
        del os.environ[name]
print(json.dumps(results))
"""

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="CUDA libraries are for Linux"),
    pytest.mark.skipif(not cpp_programs.HAS_COMPILER, reason="no C++ compiler"),
]


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder driver/ with libcuda.so.1, a folder fastbp_cuda13/ with the library."""
    folder = tmp_path_factory.mktemp("fakes")
    for source, target in (
        ("driver.c", "driver/libcuda.so.1"),
        ("library.c", "fastbp_cuda13/libfastbp_cuda.so"),
    ):
        (folder / target).parent.mkdir()
        compiler = [*cpp_programs.COMPILER.split(), "-x", "c", "-shared", "-fPIC", "-Wall"]
        command = [*compiler, f"-I{cuda_library.CSRC}", FAKES / source, "-o", folder / target]
        subprocess.run(command, check=True)
    (folder / "fastbp_cuda13" / "__init__.py").touch()
    return folder


def run(
    program: str, *arguments: str, fakes: Path | None = None, **settings: str
) -> subprocess.CompletedProcess[str]:
    """A new process with `settings` and, from `fakes`, the driver."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("FASTBP_CUDA_LIBRARY", "FASTBP_DEVICE", "CUDA_VISIBLE_DEVICES")
    }
    if fakes is not None:
        environment["LD_LIBRARY_PATH"] = str(fakes / "driver")
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**environment, **settings},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def ask_each(
    cases: list[dict[str, str]], fakes: Path | None = None, **settings: str
) -> list[dict[str, Any]]:
    """What comes of each case, in one process that has `settings` from its start."""
    done = run(PROGRAM, json.dumps(cases), fakes=fakes, **settings)
    assert done.returncode == 0, done.stderr
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


def ask(fakes: Path | None = None, **settings: str) -> dict[str, Any]:
    return ask_each([{}], fakes, **settings)[0]


def assert_refused(found: dict[str, Any], reason: str, *parts: str) -> None:
    assert found["reason"] == found["info"]["reason"] == reason, found
    for part in ("was asked for, but ", *parts, "device='auto' or 'cpu'"):
        assert part in found["message"], found["message"]
    assert found["info"]["problem"] in found["message"]


def library_of(fakes: Path) -> str:
    return str(fakes / "fastbp_cuda13" / "libfastbp_cuda.so")


has_driver = shutil.which("nvidia-smi") is not None
without_driver = pytest.mark.skipif(has_driver, reason="this machine has an NVIDIA driver")


@without_driver
def test_nothing_installed() -> None:
    found = ask()
    assert_refused(found, "no_backend", "libcuda.so.1", 'pip install "fastbp[cuda13]"')
    assert found["info"]["library"] is None
    assert found["info"]["tried"].keys() == {
        "FASTBP_CUDA_LIBRARY",
        "fastbp_cuda13",
        "beside the extension",
    }


def test_a_driver_alone(fakes: Path) -> None:
    found = ask(fakes, FAKE_VERSION="13020")
    assert_refused(found, "no_backend", "driver is present (CUDA 13.2): run  pip install")
    assert found["info"]["driver"] == "13.2"


@without_driver
def test_a_library_without_a_driver(fakes: Path) -> None:
    found = ask(FASTBP_CUDA_LIBRARY=library_of(fakes), FAKE_BUILD=GPU_BUILD)
    assert_refused(found, "no_driver", "libcuda.so.1 was not found", "--gpus")
    assert found["info"]["architectures"] == ["7.5", "8.0", "9.0", "12.0"]


UNUSABLE: list[tuple[dict[str, str], str, tuple[str, ...]]] = [
    ({"FAKE_VERSION": "12020"}, "old_driver", ("580 or later", "found CUDA 12.2", "Update")),
    ({"FAKE_INIT": "100"}, "no_device", ("0 devices. Check the output of nvidia-smi",)),
    (
        {"FAKE_DEVICES": "", "CUDA_VISIBLE_DEVICES": "7"},
        "no_device",
        ("0 devices (CUDA_VISIBLE_DEVICES='7')",),
    ),
    ({"FAKE_INIT": "34"}, "no_driver", ("the toolkit's stub", "LD_LIBRARY_PATH")),
    ({"FAKE_INIT": "999"}, "driver_error", ("cuInit failed with error 999: unknown error",)),
    ({"FAKE_INIT": "802"}, "driver_error", ("error 802: unknown",)),
    (
        {"FAKE_DEVICES": "70:Tesla V100"},
        "arch",
        ("'Tesla V100', has compute capability 7.0", "7.5, 8.0, 9.0, 12.0"),
    ),
    # Code for 10.x is not there, and the newest PTX is for 12.0.
    ({"FAKE_DEVICES": "100:B200"}, "arch", ("capability 10.0",)),
]


def test_a_driver_or_device_that_does_not_serve(fakes: Path) -> None:
    cases = [settings for settings, _, _ in UNUSABLE]
    found = ask_each(cases, fakes, FASTBP_CUDA_LIBRARY=library_of(fakes), FAKE_BUILD=GPU_BUILD)
    for result, (_, reason, parts) in zip(found, UNUSABLE, strict=True):
        assert_refused(result, reason, *parts)


def test_devices_that_serve(fakes: Path) -> None:
    """Machine code of the same generation, or PTX of the newest; and a number beyond the last."""
    names = ["75:T4", "89:L4", "86:A40,90:H100", "121:GB10", "130:next"]
    cases = [{"FAKE_DEVICES": name} for name in names]
    cases.append({"FAKE_DEVICES": names[2], "ASKED": "cuda:2"})
    settings = {"FASTBP_CUDA_LIBRARY": library_of(fakes), "FAKE_BUILD": GPU_BUILD}
    *found, beyond = ask_each(cases, fakes, **settings)
    for result, described in zip(found, names, strict=True):
        capability, name = described.split(",")[0].split(":")
        assert result["device"] == [name, int(capability), 1 << 30]
        assert result["info"]["problem"] is None and result["info"]["driver"] == "13.0"
        assert len(result["info"]["devices"]) == described.count(":")
    assert beyond["reason"] == "no_device"
    assert "there are 2 devices: cuda:0 'A40', cuda:1 'H100'" in beyond["message"]


def test_another_release(fakes: Path) -> None:
    """By version, and by interface even where the version is the same."""
    old = GPU_BUILD.replace(VERSION, "0.0.9")
    path = {"PYTHONPATH": os.pathsep.join([str(fakes), str(PACKAGE.parent)])}
    found, other = ask_each(
        [{"FAKE_BUILD": old}, {"FAKE_BUILD": GPU_BUILD, "FAKE_ABI": "99"}], **path
    )
    assert_refused(
        found,
        "version_mismatch",
        f"fastbp {VERSION} ",
        "this one is of 0.0.9",
        f"pip install --force-reinstall fastbp-cuda13=={VERSION}",
    )
    assert_refused(other, "version_mismatch", "(interface 99)")


def damaged(path: Path, kind: str, library: bytes) -> str:
    contents = {
        "missing": None,
        "empty": b"",
        "text": b"not a library at all " * 20,
        "32 bits": library[:4] + b"\1" + library[5:],
        "half": library[: len(library) // 2],
        "one byte": library[:-1],
        "header": library[:64],
        "other machine": library[:18] + b"\xb7\x77" + library[20:],
    }[kind]
    if contents is not None:
        path.write_bytes(contents)
    return str(path)


DAMAGE = {
    "missing": "it cannot be read: No such file or directory",
    "empty": "the file is no shared library",
    "text": "the file is no shared library",
    "32 bits": "it is not for a 64-bit little-endian machine",
    "half": "the file was cut short",
    "one byte": "the file was cut short",
    "header": "the file was cut short",
    "other machine": "libfastbp_cuda.so",
}


def test_a_damaged_file(fakes: Path, tmp_path: Path) -> None:
    whole = Path(library_of(fakes)).read_bytes()
    paths = []
    for kind in DAMAGE:
        folder = tmp_path / kind
        folder.mkdir()
        paths.append(damaged(folder / "libfastbp_cuda.so", kind, whole))
    found = ask_each([{"FASTBP_CUDA_LIBRARY": path} for path in paths], fakes)
    for result, path, part in zip(found, paths, DAMAGE.values(), strict=True):
        assert_refused(result, "bad_library", path, part, "or unset it")
        assert result["info"]["tried"]["FASTBP_CUDA_LIBRARY"] == path


def test_a_library_of_something_else(fakes: Path) -> None:
    found = ask(fakes, FASTBP_CUDA_LIBRARY=str(fakes / "driver" / "libcuda.so.1"))
    assert_refused(found, "bad_library", "no function fbp_abi_version: it is not fastbp's")


def test_places_in_order(fakes: Path, tmp_path: Path) -> None:
    """The variable, the package, beside the extension; a broken one is not passed over."""
    (tmp_path / "fastbp").mkdir()
    for entry in PACKAGE.iterdir():
        (tmp_path / "fastbp" / entry.name).symlink_to(entry)
    beside = tmp_path / "fastbp" / "libfastbp_cuda.so"
    shutil.copy(library_of(fakes), beside)
    both = os.pathsep.join([str(tmp_path), str(fakes)])
    settings = {"FAKE_BUILD": GPU_BUILD, "FAKE_DEVICES": "90:H100"}
    for path, named, expected in (
        (str(tmp_path), "", str(beside)),
        (both, "", library_of(fakes)),
        (both, str(beside), str(beside)),
        (both, "/missing.so", None),
    ):
        found = ask(fakes, PYTHONPATH=path, FASTBP_CUDA_LIBRARY=named, **settings)["info"]
        assert found["library"] == expected
        assert (found["reason"] == "bad_library") == (expected is None)


def test_the_driver_is_left_alone_until_a_device_is_asked_for(fakes: Path) -> None:
    """Not at import, nor by info: what forks afterwards may still use CUDA."""
    settings = {"FASTBP_CUDA_LIBRARY": library_of(fakes), "FAKE_BUILD": GPU_BUILD}
    for program, maps, started in (
        ("import fastbp, fastbp.ops", False, False),
        ("import fastbp; assert fastbp.info()['cuda']['devices'] is None", True, False),
        ("import fastbp; fastbp.info(probe_devices=True)", True, True),
    ):
        show = "; print(open('/proc/self/maps').read())"
        done = run(program + show, fakes=fakes, FAKE_DEVICES="90:H100", **settings)
        assert done.returncode == 0, done.stderr
        assert ("libfastbp_cuda" in done.stdout, "libcuda.so" in done.stdout) == (maps, maps)
        assert ("cuInit was called" in done.stderr) == started


def test_one_library_serves_a_process(fakes: Path, tmp_path: Path) -> None:
    other = tmp_path / "libfastbp_cuda.so"
    shutil.copy(library_of(fakes), other)
    program = f"""
import os, fastbp as bp
from fastbp import cuda_library
cuda_library.open_device(0)
os.environ["FASTBP_CUDA_LIBRARY"] = {str(other)!r}
try:
    cuda_library.open_device(0)
except bp.DeviceNotAvailableError as error:
    print(error.reason, error)
"""
    done = run(
        program, fakes=fakes, FASTBP_CUDA_LIBRARY=library_of(fakes), FAKE_BUILD=GPU_BUILD,
        FAKE_DEVICES="90:H100",
    )  # fmt: skip
    assert "already_loaded" in done.stdout and "new process" in done.stdout, done.stderr


def test_after_a_fork_the_device_is_refused_and_the_processor_serves(
    emulated_library: Path,
) -> None:
    program = """
import os, sys, numpy as np, fastbp as bp
from fastbp import cuda_library
if sys.argv[1:] == ["used"]:
    print(cuda_library.open_device(0).name, flush=True)
else:
    cuda_library.load()
child = os.fork()
if child == 0:
    try:
        print(cuda_library.open_device(0).name)
    except bp.DeviceNotAvailableError as error:
        print(error.reason, error)
    model = bp.Sequential([bp.Dense(2)])
    model.compile(loss="mse")
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    sys.stdout.flush()
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0
print(cuda_library.open_device(0).name)
"""
    settings = {"FASTBP_CUDA_LIBRARY": str(emulated_library)}
    unused = run(program, **settings)
    assert unused.stdout.split() == ["emulated", "emulated"], unused.stderr
    used = run(program, "used", **settings)
    first, in_child, after = used.stdout.splitlines()
    assert first == after == "emulated"
    assert in_child.startswith("forked ") and "'spawn'" in in_child


def test_the_emulated_device_is_said_to_be_emulated(emulated_library: Path) -> None:
    found = ask(FASTBP_CUDA_LIBRARY=str(emulated_library))
    assert found["device"] == ["emulated", 0, 0]
    assert found["info"]["emulated"] and found["info"]["problem"] is None
    shown = subprocess.run(
        [sys.executable, "-m", "fastbp", "info"],
        env={**os.environ, "FASTBP_CUDA_LIBRARY": str(emulated_library)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "(emulated: no GPU is behind it)" in shown and "cuda:0 emulated" in shown
