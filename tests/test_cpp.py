"""The C++ tests: compiles every tests/cpp/test_*.cpp with $CXX or c++ and runs it.

The first line of a test names what to link, "// build: core/arena.cpp -DNAME=1" (paths below
csrc, defines), or says "// build: per-isa": then it is built once for each instruction set that
this machine can run, with its flags and -DFBP_TEST_ISA=<name>, and the "HASH <hex>" lines that it
prints must agree between instruction sets. "// sanitize: thread" on the second line builds and
runs the test once more under ThreadSanitizer.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SIMD = ROOT / "csrc" / "kernels" / "cpu" / "simd"
SOURCES = sorted((ROOT / "tests" / "cpp").glob("test_*.cpp"))
COMPILER = os.environ.get("CXX") or "c++"
PROCESSOR = {"amd64": "x86_64", "arm64": "aarch64"}.get(
    platform.machine().lower(), platform.machine().lower()
)
BASE_FLAGS = ["-std=c++17", "-O2", "-pthread", "-Wall", "-Wextra"]

pytestmark = pytest.mark.skipif(
    shutil.which(COMPILER.split()[0]) is None, reason=f"no C++ compiler: {COMPILER} is not on PATH"
)


def flag_table() -> tuple[list[str], dict[str, list[str]]]:
    """The common flags, and those of each instruction set here, from cmake/isa_flags.txt."""
    common: list[str] = []
    isas: dict[str, list[str]] = {}
    for line in (ROOT / "cmake" / "isa_flags.txt").read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, processor, *flags = line.split()
        if name == "common":
            common = flags
        elif processor in ("any", PROCESSOR):
            isas[name] = flags
    return common, isas


COMMON_FLAGS, ISA_FLAGS = flag_table()


def cpu_has(isa: str) -> bool:
    """Whether the system says that the processor has what the flags of `isa` enable."""
    wanted = {flag[2:] for flag in ISA_FLAGS[isa] if re.fullmatch(r"-m\w+", flag)}
    if not wanted:
        return True
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    return found is not None and wanted <= set(found[1].split())


@dataclass
class Build:
    """One program to compile and run, and what came of it."""

    source: Path
    name: str
    arguments: list[str]
    sanitized: bool = False
    compiler_output: str = ""
    output: str = ""
    status: int | None = None
    hashes: list[str] = field(default_factory=list)

    def compile_and_run(self, folder: Path) -> None:
        program = folder / self.name
        command = [*COMPILER.split(), *BASE_FLAGS, *COMMON_FLAGS, *self.arguments]
        command += ["-I", str(ROOT / "csrc"), "-I", str(ROOT / "tests" / "cpp"), str(self.source)]
        compiled = subprocess.run(
            [*command, "-o", str(program)], capture_output=True, text=True, check=False
        )
        self.compiler_output = compiled.stdout + compiled.stderr
        if compiled.returncode != 0:
            return
        # ThreadSanitizer of some releases cannot live with a randomised address space.
        randomise = ["setarch", "-R"] if self.sanitized and shutil.which("setarch") else []
        ran = subprocess.run(
            [*randomise, str(program)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        self.output, self.status = ran.stdout, ran.returncode
        self.hashes = re.findall(r"^HASH (\w+)$", self.output, re.M)


def builds_of(source: Path) -> list[Build]:
    """What the test's first two lines ask for."""
    first, second = source.read_text().splitlines()[:2]
    match = re.match(r"// build: (.+)", first)
    assert match, f"{source.name}: the first line must be '// build: ...', it is {first!r}"
    words = match[1].split()
    if words == ["per-isa"]:
        return [
            Build(source, f"{source.stem}-isa-{isa}", [*flags, f"-DFBP_TEST_ISA={isa}"])
            for isa, flags in ISA_FLAGS.items()
            if (SIMD / f"{isa}.h").exists() and cpu_has(isa)
        ]
    arguments = [word if word.startswith("-") else str(ROOT / "csrc" / word) for word in words]
    builds = [Build(source, source.stem, arguments)]
    if second == "// sanitize: thread":
        arguments = [*arguments, "-fsanitize=thread", "-g"]
        builds.append(Build(source, f"{source.stem}-tsan", arguments, sanitized=True))
    return builds


BUILDS = [build for source in SOURCES for build in builds_of(source)]


@pytest.fixture(scope="module")
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Build]:
    """The programs of the selected tests, compiled and run two at a time."""
    folder = tmp_path_factory.mktemp("cpp")
    here = [item for item in request.session.items if item.path == Path(__file__)]
    asked = {value for i in here if hasattr(i, "callspec") for value in i.callspec.params.values()}
    builds = [build for build in BUILDS if build.name in asked or build.source in asked]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda build: build.compile_and_run(folder), builds))
    return {build.name: build for build in builds}


@pytest.mark.parametrize("name", [build.name for build in BUILDS])
def test_program(results: dict[str, Build], name: str) -> None:
    build = results[name]
    assert build.status is not None, f"{name} does not compile:\n{build.compiler_output}"
    assert "warning:" not in build.compiler_output, build.compiler_output
    assert build.status == 0, f"{name} ended with status {build.status}:\n{build.output}"


@pytest.mark.parametrize(
    "source", [s for s in SOURCES if builds_of(s)[0].name != s.stem], ids=lambda s: s.stem
)
def test_instruction_sets_agree(results: dict[str, Build], source: Path) -> None:
    builds = [build for build in results.values() if build.source == source]
    hashes = {build.name: build.hashes for build in builds}
    assert all(hashes.values()), f"no HASH line from one of {hashes}"
    assert len({tuple(h) for h in hashes.values()}) == 1, hashes


def test_flags_match_the_processor_check() -> None:
    """Every -m flag of the table is one that the run-time check of cpuid.cpp accounts for."""
    known = {"-mavx2", "-mfma", "-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw"}
    known |= {"-mavx512bf16"}
    used = {flag for flags in ISA_FLAGS.values() for flag in flags if flag.startswith("-m")}
    assert used <= known, f"cpuid.cpp does not test what {used - known} enable"
    assert "-ffp-contract=off" in COMMON_FLAGS
