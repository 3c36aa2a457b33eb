"""The C++ tests as programs: what each is built from and with, and what it said.

The first line of tests/cpp/test_*.cpp names what to link, "// build: core/arena.cpp -DNAME=1"
(paths below csrc, defines), or says "// build: per-isa": then it is built once for each
instruction set that this machine can run, with its flags and -DFBP_TEST_ISA=<name>, and the
"HASH <hex>" lines that it prints must agree between instruction sets. "// build: avx512 ...", or
another row of isa_flags.txt, builds it for that one, if it can run here. "// build: emulated ..."
links the emulated device, as builds.py makes it for the CUDA libraries. "// sanitize: thread" on
the second line builds and runs the test once more under ThreadSanitizer.

AVX-512 can run on every processor with AVX2: where it has none, on csrc/emulation/avx512.h.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SIMD = ROOT / "csrc" / "kernels" / "cpu" / "simd"
SOURCES = sorted((ROOT / "tests" / "cpp").glob("test_*.cpp"))
COMPILER = os.environ.get("CXX") or "c++"
HAS_COMPILER = shutil.which(COMPILER.split()[0]) is not None
PROCESSOR = {"amd64": "x86_64", "arm64": "aarch64"}.get(
    platform.machine().lower(), platform.machine().lower()
)
# No bit depends on how hard the compiler tries, and -O2 takes it half as long again for the maths;
# loops over the lanes of plain C++ take it twice as long by -O1 as by -Og.
BASE_FLAGS = ["-std=c++17", "-O1", "-pthread", "-Wall", "-Wextra"]
FLAGS_FOR_TESTS = {"scalar": ["-Og"]}
EMULATE_AVX512 = "-DFASTBP_EMULATE_AVX512"


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


def cpu_has(flags: list[str]) -> bool:
    """Whether the system says that the processor has what these flags enable."""
    wanted = {flag[2:].replace("-", "") for flag in flags if re.fullmatch(r"-m[\w-]+", flag)}
    if not wanted:
        return True
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    return found is not None and wanted <= set(found[1].replace("_", "").split())


def flags_to_run(isa: str) -> list[str] | None:
    """Those with which programs for `isa` run here, None where none do."""
    flags = ISA_FLAGS.get(isa)
    if flags is None or cpu_has(flags):
        return flags
    emulated = [flag for flag in flags if not flag.startswith(("-mavx512", "-mamx"))]
    if emulated == flags or not cpu_has(emulated):
        return None
    return [*emulated, EMULATE_AVX512]


@dataclass(frozen=True)
class Build:
    """One program to compile and run."""

    source: Path
    name: str
    arguments: tuple[str, ...]
    sanitized: bool = False
    emulated: bool = False  # the emulated device's objects are linked to it

    @property
    def slow(self) -> bool:
        """The kernels of AVX-512 on what emulates it take g++ as long as all other programs of an
        instruction set together: .ci/run has a step for them."""
        return self.name == "test_avx512_products" and EMULATE_AVX512 in self.arguments

    def compile(self, folder: Path, objects: Sequence[str] = ()) -> None:
        """The program as `folder`/program; raises where the compiler says anything."""
        command = [*COMPILER.split(), *BASE_FLAGS, *COMMON_FLAGS, *self.arguments]
        command += ["-I", str(ROOT / "csrc"), "-I", str(ROOT / "tests" / "cpp"), str(self.source)]
        command += [*objects, "-ldl"] if objects else []
        compiled = subprocess.run(
            [*command, "-o", str(folder / "program")], capture_output=True, text=True, check=False
        )
        said = compiled.stdout + compiled.stderr
        if compiled.returncode != 0 or "warning:" in said:
            raise RuntimeError(f"{self.name} does not compile, or with a warning:\n{said}")

    def compile_and_run(self, folder: Path, objects: Sequence[str] = ()) -> None:
        """What it says goes to files beside it (Output.read)."""
        self.compile(folder, objects)
        # ThreadSanitizer of some releases cannot live with a randomised address space.
        randomise = ["setarch", "-R"] if self.sanitized and shutil.which("setarch") else []
        ran = subprocess.run(
            [*randomise, str(folder / "program")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        (folder / "status").write_text(str(ran.returncode))
        (folder / "said").write_text(ran.stdout)


@dataclass(frozen=True)
class Output:
    """What a program said."""

    status: int
    text: str

    @classmethod
    def read(cls, folder: Path) -> Output:
        return cls(int((folder / "status").read_text()), (folder / "said").read_text())

    @property
    def hashes(self) -> list[str]:
        return re.findall(r"^HASH (\w+)$", self.text, re.M)


def builds_of(source: Path) -> list[Build]:
    """What the test's first two lines ask for."""
    first, second = source.read_text().splitlines()[:2]
    match = re.match(r"// build: (.+)", first)
    assert match, f"{source.name}: the first line must be '// build: ...', it is {first!r}"
    words = match[1].split()
    if words == ["per-isa"]:
        return [
            Build(
                source,
                f"{source.stem}-isa-{isa}",
                (*flags, *FLAGS_FOR_TESTS.get(isa, ()), f"-DFBP_TEST_ISA={isa}"),
            )
            for isa in ISA_FLAGS
            if (SIMD / f"{isa}.h").exists() and (flags := flags_to_run(isa)) is not None
        ]
    if words[0] == "emulated":
        return [Build(source, source.stem, tuple(words[1:]), emulated=True)]
    flags = []
    if "." not in words[0]:
        isa = words.pop(0)
        if (found := flags_to_run(isa)) is None:
            return []
        flags = found
    arguments = (*flags, *(w if w.startswith("-") else str(ROOT / "csrc" / w) for w in words))
    builds = [Build(source, source.stem, arguments)]
    if second == "// sanitize: thread":
        arguments = (*arguments, "-fsanitize=thread", "-g")
        builds.append(Build(source, f"{source.stem}-tsan", arguments, sanitized=True))
    return builds


BUILDS = [build for source in SOURCES for build in builds_of(source)]
