"""What the tests of a run want compiled, made from its start by a process beside them.

That process gives way to the tests, and stands still while one measures time. It makes them in the
order in which the tests ask for them, by two compilers at a time, and runs the C++ programs. Each
has a folder, and beside it a file "<name>.begun", and when it is made "<name>.made" with the error
or nothing. Where a run has two processes for its tests, they share the folder of all that: what one
has begun, the other waits for.

FASTBP_TEST_KEEP may name a folder, where the libraries of the emulated device are kept as NAME.so
for the next run of tests on the same sources: it names the folder in FASTBP_TEST_LIBRARIES.

  python tests/builds.py FOLDER NAME...     is that process
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import groupby
from pathlib import Path

import cpp_programs
import cuda_library

EMULATION_CASES = Path(__file__).parent / "emulation" / "kernels.cpp"
SUFFIX = ".made"
GROUP = ".group"  # a file named by the number of a group of processes that builds
POLL = 0.05  # seconds
# Not idle: beside other work on the machine it must come to an end too.
BEHIND = ["nice", "-n", "5"] if shutil.which("nice") else []


def made_before(name: str) -> Path | None:
    """FASTBP_TEST_LIBRARIES may name a folder of libraries, each NAME.so, for a machine that has no
    time to build them: one with a GPU, say."""
    library = Path(os.environ.get("FASTBP_TEST_LIBRARIES", "/nowhere")) / f"{name}.so"
    return library if library.exists() else None


def keep(library: Path, name: str) -> None:
    """For the next run, where that is asked for."""
    if folder := os.environ.get("FASTBP_TEST_KEEP"):
        half = Path(folder) / f"{name}.half"
        shutil.copy(library, half)
        half.rename(half.with_suffix(".so"))  # never seen half written


def emulated(folder: Path) -> None:
    """The CUDA library of these sources for the emulated device."""
    keep(cuda_library.build_emulated(folder), "emulated")


def watched(folder: Path) -> None:
    """The same with every access watched."""
    keep(cuda_library.build_emulated(folder, watched=True), "watched")


def hazards(folder: Path) -> None:
    """What watched_training.py says with that library."""
    library = made_before("watched") or next((folder.parent / "watched").glob("*.so"))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "watched_training.py")],
        env={**os.environ, "FASTBP_CUDA_LIBRARY": str(library)},
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder / "said").write_text(done.stdout)


def cases(folder: Path) -> None:
    """Right and broken kernels on the emulated device."""
    sources = [EMULATION_CASES, cuda_library.CSRC / "kernels" / "cuda" / "tensor_map.cu"]
    cuda_library.link_emulated(sources, folder, "libcases.so", watched=True)


def release(folder: Path) -> None:
    """The CUDA library by nvcc, for this machine's GPU, else for compute capability 9.0."""
    cuda_library.build_release(folder, [cuda_library.gpu_architecture() or "90a"])


def program(name: str) -> str:
    """Of a program of tests/cpp."""
    return f"program:{name}"


def run_program(build: cpp_programs.Build, folder: Path) -> None:
    """Of tests/cpp: compiled and run."""
    objects = cuda_library.emulated_device(folder.parent / "device") if build.emulated else ()
    build.compile_and_run(folder, objects)


BUILDS: dict[str, Callable[[Path], object]] = {
    build.__name__: build for build in (emulated, watched, hazards, cases, release)
}
BUILDS |= {program(build.name): partial(run_program, build) for build in cpp_programs.BUILDS}


def can_build(name: str) -> bool:
    """Whether the compiler is there."""
    return cuda_library.has_nvcc() if name == "release" else cpp_programs.HAS_COMPILER


class Builder:
    """The process, from the tests' side; `shared` is a folder that another process will remove."""

    def __init__(self, shared: Path | None = None) -> None:
        self.shared = shared is not None
        self.folder = shared or Path(tempfile.mkdtemp(prefix="fastbp-builds-"))
        self.process: subprocess.Popen[bytes] | None = None

    def begin(self, names: Sequence[str]) -> None:
        """Starts to make these, after those that were begun before."""
        names = [name for name in names if self._claim(name)]
        if not names:
            return
        if self.process is not None:
            self.process.wait()
        command = [*BEHIND, sys.executable, __file__, str(self.folder), *names]
        self.process = subprocess.Popen(command, start_new_session=True)
        (self.folder / f"{self.process.pid}{GROUP}").touch()

    def _claim(self, name: str) -> bool:
        """Whether nobody has begun it."""
        try:
            (self.folder / f"{name}.begun").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def result(self, name: str) -> Path:
        """The folder of what was made; waits for it."""
        self.begin([name])
        made = self.folder / f"{name}{SUFFIX}"
        while not made.exists():
            alive = self.process is None or self.process.poll() is None
            assert alive or self.shared or made.exists(), "the process that builds has died"
            time.sleep(POLL)
        error = made.read_text()
        assert not error, error
        return self.folder / name

    def signal(self, number: signal.Signals) -> None:
        """To the processes that build and their compilers."""
        for group in self.folder.glob(f"*{GROUP}"):
            with suppress(ProcessLookupError):
                os.killpg(int(group.stem), number)

    def end(self) -> None:
        if self.shared:
            return
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def make(folder: Path, name: str) -> None:
    """Of `name`, and the file that says how it went."""
    place = folder / name
    place.mkdir()
    try:
        BUILDS[name](place)
        error = ""
    except Exception:
        error = traceback.format_exc()
    half = folder / f"{name}.half"
    half.write_text(error)
    half.rename(folder / f"{name}{SUFFIX}")  # never seen half written


def main(folder: Path, names: Sequence[str]) -> None:
    """Two compilers at a time: a library has many sources, a program is one command."""
    for programs, group in groupby(names, lambda name: name.startswith(program(""))):
        with ThreadPoolExecutor(2 if programs else 1) as pool:
            list(pool.map(partial(make, folder), group))
    (folder / f"{os.getpid()}{GROUP}").unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
