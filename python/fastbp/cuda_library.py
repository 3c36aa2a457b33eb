"""The CUDA library: where it is looked for, whether it fits this machine, and if not, why not.

Nothing here runs at import. The library is loaded when a device is first asked for, or named in
`fastbp.info()`; the driver is started only for a device. The first place that has a library
decides: a library that does not fit is an error, and no other one is tried in its stead.

1. the file that FASTBP_CUDA_LIBRARY names
2. the installed package fastbp_cuda13 (pip install "fastbp[cuda13]")
3. libfastbp_cuda.so beside the extension module (a build of this repository)
"""

from __future__ import annotations

import os
import re
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from . import _core, cublaslt
from .errors import DeviceNotAvailableError

VARIABLE = "FASTBP_CUDA_LIBRARY"
PACKAGE = "fastbp_cuda13"
EXTRA = 'pip install "fastbp[cuda13]"'
FILE_NAME = "libfastbp_cuda.so"
# The oldest Linux driver for each CUDA major version (CUDA release notes, "minor version
# compatibility").
_OLDEST_DRIVER = {12: 525, 13: 580}


class Place(NamedTuple):
    """Where a library may be: how it is called for users, its file, None if there is none."""

    name: str
    path: Path | None


class Device(NamedTuple):
    """A GPU, or the emulated device, whose capability and memory are 0."""

    name: str
    capability: int  # 90 for 9.0
    memory: int  # bytes


class Build(NamedTuple):
    """What a library says that it was built as."""

    version: str
    emulated: bool
    cuda: int  # 13000 for 13.0
    architectures: tuple[int, ...]  # 75, 80, ...


_devices: list[Device] | None = None  # once they were asked for


def places() -> list[Place]:
    """The places in order; an empty variable is one that is not set."""
    named = os.environ.get(VARIABLE)
    spec = find_spec(PACKAGE)
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    beside = Path(_core.__file__).parent / FILE_NAME
    return [
        Place(VARIABLE, Path(named).absolute() if named else None),
        Place(PACKAGE, Path(folders[0]) / FILE_NAME if folders else None),
        Place("beside the extension", beside if beside.exists() else None),
    ]


def load() -> Place:
    """Loads the library of the first place that has one, or finds it loaded.

    Raises DeviceNotAvailableError: "no_backend", "bad_library", "version_mismatch",
    "already_loaded".
    """
    place = next((place for place in places() if place.path is not None), None)
    if place is None:
        raise _without_library()
    path = str(place.path)
    if path == _core.cuda_library_path():
        return place
    problem = _damage(place)
    if problem:
        raise _unfit(place, DeviceNotAvailableError(problem, "bad_library"))
    try:
        _core.cuda_load(os.fsencode(path))
    except DeviceNotAvailableError as error:
        raise _unfit(place, error) from None
    return place


def open_device(index: int) -> Device:
    """CUDA device `index`, ready to be used.

    Raises DeviceNotAvailableError with what was found, and what to do about it.
    """
    place = load()
    try:
        _core.cuda_require_usable()
    except DeviceNotAvailableError as error:
        raise DeviceNotAvailableError(
            f"{error}. Start processes with multiprocessing's 'spawn' or 'forkserver', or use CUDA "
            "in the child alone",
            error.reason,
        ) from None
    found = _list_devices(place)
    if index >= len(found):
        named = ", ".join(f"cuda:{i} {device.name!r}" for i, device in enumerate(found))
        number = "is 1 device" if len(found) == 1 else f"are {len(found)} devices"
        raise DeviceNotAvailableError(f"there {number}: {named}", "no_device")
    _require_architecture(index, found[index])
    return found[index]


def build() -> Build | None:
    """What the loaded library was built as; None before it is loaded."""
    words = dict(word.split("=", 1) for word in _core.cuda_build_info().split())
    if not words:
        return None
    return Build(
        words["version"],
        words["device"] == "emulated",
        int(words.get("cuda", 0)),
        tuple(int(number) // 10 for number in words.get("architectures", "").split(",") if number),
    )


def report(*, start_driver: bool) -> dict[str, Any]:
    """What was looked for, what was found and why it cannot be used; plain data, for fastbp.info.

    The driver is started, which takes a moment and is not undone, only if asked or already done.
    """
    found = places()
    result: dict[str, Any] = {
        "library": None,
        "tried": {place.name: str(place.path) if place.path else None for place in found},
        "version": None,
        "cuda": None,
        "architectures": [],
        "emulated": False,
        "driver": _driver_version(),
        "devices": None,
        "problem": None,
        "reason": None,
        "cublaslt": None,
    }
    try:
        result["library"] = str(load().path)
        made = build()
        assert made is not None
        result.update(version=made.version, emulated=made.emulated)
        result.update(
            cuda=_dotted(made.cuda), architectures=[_dotted(a) for a in made.architectures]
        )
        if start_driver or _devices is not None:
            open_device(0)
        result["cublaslt"] = cublaslt.report(look=start_driver)
    except DeviceNotAvailableError as error:
        result.update(problem=str(error), reason=error.reason)
    if _devices is not None:
        result["devices"] = [device._asdict() for device in _devices]
    return result


def _list_devices(place: Place) -> list[Device]:
    global _devices
    if _devices is None:
        made = build()
        assert made is not None
        if not made.emulated:
            _require_driver(place, made)
        ask = _core.cuda_emulated_devices if made.emulated else _core.cuda_driver_devices
        try:
            _devices = [Device(**entry) for entry in ask()]
        except DeviceNotAvailableError as error:
            raise _without_device(place, error) from None
    return _devices


def _require_driver(place: Place, made: Build) -> None:
    driver = _core.cuda_driver()
    if not driver["found"]:
        raise DeviceNotAvailableError(
            f"{_described(place)} is there, but libcuda.so.1 was not found: this machine has no "
            "NVIDIA driver, or the container was started without --gpus. Install the driver, or "
            "start the container with GPUs",
            "no_driver",
        )
    if driver["version"] // 1000 < made.cuda // 1000:
        oldest = _OLDEST_DRIVER.get(made.cuda // 1000)
        raise DeviceNotAvailableError(
            f"{_described(place)} needs a driver for CUDA {_dotted(made.cuda)}"
            + (f" ({oldest} or later)" if oldest else "")
            + f"; found {_driver_text(driver['version'])}. Update the NVIDIA driver",
            "old_driver",
        )


def _require_architecture(index: int, device: Device) -> None:
    """Machine code serves its own generation from its own capability on, PTX of the newest serves
    all that come later.
    """
    made = build()
    assert made is not None
    if made.emulated:
        return
    has_code = any(
        device.capability // 10 == built // 10 and device.capability >= built
        for built in made.architectures
    )
    if has_code or device.capability > max(made.architectures):
        return
    raise DeviceNotAvailableError(
        f"device {index}, {device.name!r}, has compute capability {_dotted(device.capability)}; "
        f"this library was built for {', '.join(map(_dotted, made.architectures))} and later ones. "
        "Build fastbp for it with an nvcc that knows it (FASTBP_CUDA_ARCHITECTURES)",
        "arch",
    )


def _without_library() -> DeviceNotAvailableError:
    driver = _core.cuda_driver()
    if driver["found"]:
        action = f"An NVIDIA driver is present ({_driver_text(driver['version'])}): run  {EXTRA}"
    else:
        action = (
            "Nor was libcuda.so.1 found: this machine has no NVIDIA driver, or the container was "
            f"started without --gpus. With one, run  {EXTRA}"
        )
    return DeviceNotAvailableError(f"no CUDA library is installed. {action}", "no_backend")


def _unfit(place: Place, error: DeviceNotAvailableError) -> DeviceNotAvailableError:
    if place.name == VARIABLE:
        action = f"Set {VARIABLE} to a {FILE_NAME} of this fastbp, or unset it"
    elif place.name == PACKAGE:
        distribution = PACKAGE.replace("_", "-")
        action = (
            f"Run  pip install --force-reinstall {distribution}=={_core.build_info()['version']}"
        )
    else:
        action = "Build fastbp again (-DFASTBP_CUDA=ON), or delete that file"
    if error.reason == "already_loaded":
        action = "Start a new process to use another"
    return DeviceNotAvailableError(
        f"{_described(place)} cannot be used: {error}. {action}", error.reason
    )


def _without_device(place: Place, error: DeviceNotAvailableError) -> DeviceNotAvailableError:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hint = f" (CUDA_VISIBLE_DEVICES={visible!r})" if visible is not None else ""
    action = {
        "no_device": "Check the output of nvidia-smi"
        + (" and that variable" if visible is not None else ""),
        "no_driver": "Take the folder of the stub out of LD_LIBRARY_PATH",
    }.get(error.reason, "Check the output of nvidia-smi; a reboot helps after an update")
    return DeviceNotAvailableError(
        f"{_described(place)} is there, but {error}{hint}. {action}", error.reason
    )


def _damage(place: Place) -> str:
    """What is wrong with the file, or "": the system's loader crashes on one that was cut short."""
    path = place.path
    assert path is not None
    try:
        with path.open("rb") as file:
            header = file.read(64)
            if len(header) < 64 or header[:4] != b"\x7fELF":
                return "the file is no shared library"
            if header[4:6] != b"\x02\x01":
                return "it is not for a 64-bit little-endian machine"
            sections, (size, count) = _words("<Q", header, 40)[0], _words("<HH", header, 58)
            end = file.seek(0, os.SEEK_END)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    # Linkers write the table of sections last.
    return "the file was cut short" if end < sections + size * count else ""


def _words(form: str, data: bytes, offset: int) -> tuple[int, ...]:
    return struct.unpack_from(form, data, offset)


def _described(place: Place) -> str:
    where = f"named by {VARIABLE}" if place.name == VARIABLE else f"of {place.name}"
    where = place.name if place.name.startswith("beside") else where
    return f"the CUDA library {place.path} ({where})"


def _driver_version() -> str | None:
    """ "13.0", the newest CUDA that the driver serves; None without a driver."""
    try:
        driver = _core.cuda_driver()
    except DeviceNotAvailableError:
        return None
    return _dotted(driver["version"]) if driver["found"] else None


def _driver_text(version: int) -> str:
    """The driver's own number too, where the kernel module tells it."""
    try:
        said = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        said = ""
    number = re.search(r"Kernel Module\D*(\d+[\d.]*)", said)
    return f"{number[1]}, CUDA {_dotted(version)}" if number else f"CUDA {_dotted(version)}"


def _dotted(number: int) -> str:
    """13000 -> "13.0", 90 -> "9.0": CUDA versions and compute capabilities."""
    return (
        f"{number // 1000}.{number % 1000 // 10}"
        if number >= 1000
        else f"{number // 10}.{number % 10}"
    )
