"""What nvcc makes of the CUDA kernels, read from the binary: no GPU is needed.

The library is built as users get it, for one architecture, or for all of them (slow), and taken
apart with cuobjdump, from a CUDA toolkit or from PyPI (nvidia-cuda-cuobjdump and
nvidia-cuda-nvdisasm). Checked: machine code for each architecture and PTX for those to come; no
kernel uses local memory (registers that spill, arrays that did not fit), more registers than its
threads have, or more shared memory than a block may; no floating-point atomics, whose order is
left to chance; tensor-core instructions where the name says so and nowhere else, since they round
otherwise, and wgmma with TMA in the wide products of 9.0; the library exports three functions,
needs no other CUDA library, and is small.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from functools import cached_property
from pathlib import Path

import pytest

import cuda_library

ALL = ("75", "80", "86", "89", "90a", "100", "120")
MEGABYTES = 10  # of the whole library
REGISTERS = 65536  # of a processor, and thus of a block
STATIC_SHARED = 48 * 1024


def find_tool(name: str) -> str | None:
    """From PATH, or NVIDIA's wheel for this Python."""
    beside = Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13" / "bin"
    return shutil.which(name) or shutil.which(name, path=str(beside))


TOOLS = {name: find_tool(name) for name in ("cuobjdump", "nvdisasm")}

pytestmark = [
    pytest.mark.nvcc,
    pytest.mark.skipif(not cuda_library.has_nvcc(), reason="nvcc is not on PATH"),
    pytest.mark.skipif(
        None in TOOLS.values(),
        reason="no cuobjdump or nvdisasm: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm",
    ),
]


class Binary:
    """A library, and what cuobjdump says of it."""

    def __init__(self, path: Path, architectures: tuple[str, ...]) -> None:
        self.path, self.architectures = path, architectures

    def dump(self, *arguments: str) -> str:
        folder = Path(TOOLS["nvdisasm"] or "").parent
        return subprocess.run(
            [str(TOOLS["cuobjdump"]), *arguments, str(self.path)],
            env={**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    @cached_property
    def usage(self) -> list[tuple[str, dict[str, int]]]:
        """(kernel, {"REG": registers a thread, "STACK": bytes, ...}) of each machine code."""
        lines = re.findall(r"Function (\S+):\s*\n\s*(\S.*)", self.dump("-res-usage"))
        return [
            (name, {key: int(value) for key, value in re.findall(r"([A-Z]+):(\d+)", line)})
            for name, line in lines
        ]

    @cached_property
    def instructions(self) -> list[tuple[str, int, list[str]]]:
        """(kernel, architecture, its instructions) of each machine code."""
        found = []
        for code in re.split(r"^\s*code for sm_", self.dump("-sass"), flags=re.M)[1:]:
            architecture = int(re.match(r"\d+", code).group())  # type: ignore[union-attr]
            for text in re.split(r"^\s*Function : ", code, flags=re.M)[1:]:
                name, body = text.split("\n", 1)
                codes = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", body)
                found.append((name, architecture, codes))
        return found


@pytest.fixture(scope="module")
def short(nvcc_library: Path) -> Binary:
    return Binary(nvcc_library, (cuda_library.gpu_architecture() or "90a",))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Binary:
    return Binary(cuda_library.build_release(tmp_path_factory.mktemp("whole"), ALL), ALL)


@pytest.fixture(params=["short", pytest.param("whole", marks=pytest.mark.slow)])
def binary(request: pytest.FixtureRequest) -> Binary:
    found: Binary = request.getfixturevalue(request.param)
    return found


def test_every_architecture_is_there(binary: Binary) -> None:
    code = re.findall(r"\.sm_(\d+a?)\.cubin", binary.dump("--list-elf"))
    assert set(code) == set(binary.architectures)
    newest = re.findall(r"\.sm_(\d+a?)\.ptx", binary.dump("--list-ptx"))
    assert set(newest) == {binary.architectures[-1]}
    kernels = {name for name, _ in binary.usage}
    assert len(kernels) > 20
    assert len(binary.usage) == len(kernels) * len(binary.architectures)


def test_kernels_keep_within_registers_and_shared_memory(binary: Binary) -> None:
    for name, used in binary.usage:
        assert used["STACK"] == used["LOCAL"] == 0, f"{name} spills: {used}"
        assert used["SHARED"] <= STATIC_SHARED, f"{name}: {used}"
        assert used["REG"] <= 255, f"{name}: {used}"


def test_a_block_of_the_bound_size_fits(binary: Binary) -> None:
    """Registers times the threads that __launch_bounds__ names, or 1024."""
    bounds = re.findall(
        r"\.nv\.info\.(\S+)\n(?:(?!\.nv\.info)[\s\S])*?EIATTR_MAX_THREADS[\s\S]*?Value:\s*"
        r"(0x[0-9a-f]+) (0x[0-9a-f]+) (0x[0-9a-f]+)",
        binary.dump("-elf"),
    )
    threads = {name: int(x, 16) * int(y, 16) * int(z, 16) for name, x, y, z in bounds}
    assert threads
    for name, used in binary.usage:
        block = threads.get(name, 1024)
        assert used["REG"] * block <= REGISTERS, f"{name}: {used}, {block} threads"


FLOAT_ATOMIC = re.compile(r"^(RED|ATOM|ATOMG|ATOMS)\..*(F16|BF16|F32|F64)")
LOCAL = re.compile(r"^(STL|LDL)\b")
TENSOR_NAME = re.compile(r"tensor_(gemm_)?kernel")
WIDE_NAME = re.compile(r"wide_gemm_kernel")
WALK_NAME = re.compile(r"walk_steps_kernel.*RoundedHeld")  # one kernel for all three kinds
WIDE = (re.compile(r"^HGMMA\."), re.compile(r"^UTMALDG\."), re.compile(r"^USETMAXREG"))
HALF_NAME = re.compile(r"4HalfE(\d)E")
TENSOR = re.compile(r"^(HMMA|HGMMA|BMMA|IMMA|DMMA|QGMMA|UTC\w*MMA)\b")


def kinds_of(codes: list[str]) -> set[str]:
    """What the products on tensor cores multiply: its name is there unless it is float16."""
    found = [code for code in codes if TENSOR.match(code)]
    return {
        "bfloat16" if ".BF16" in code else "tf32" if ".TF32" in code else "float16"
        for code in found
    }


def kinds_wanted(name: str, architecture: int) -> set[str]:
    """The same of a kernel where it is launched: before 8.0 there is float16 alone, and a wide one
    is for 9.0 alone. (Mangled names have the file's name in them.)"""
    wide, tensor = WIDE_NAME.search(name), TENSOR_NAME.search(name)
    if wide:  # the kind of its operands is a number in its name
        kind = HALF_NAME.search(name)
        assert kind, name
        return {("bfloat16", "float16")[int(kind.group(1))]} if architecture == 90 else set()
    if not tensor and not WALK_NAME.search(name):
        return set()
    kinds = {"bfloat16"}
    if not tensor:
        kinds = {"bfloat16", "float16", "tf32"}
    elif tensor.group() == "tensor_gemm_kernel":
        kinds = {"tf32"} if "Tf32Product" in name else {"bfloat16", "float16"}
    return kinds if architecture >= 80 else kinds & {"float16"}


def test_instructions(binary: Binary) -> None:
    assert {name for name, *_ in binary.instructions} == {name for name, _ in binary.usage}
    for name, architecture, codes in binary.instructions:
        assert "EXIT" in codes, f"{name}: not understood"
        assert not [code for code in codes if FLOAT_ATOMIC.match(code)], name
        assert not [code for code in codes if LOCAL.match(code)], name
        has_tensor_code = any(TENSOR.match(code) for code in codes)
        kinds = kinds_wanted(name, architecture)
        assert has_tensor_code == bool(kinds), f"{name}, sm_{architecture}: {has_tensor_code}"
        assert kinds_of(codes) == kinds, f"{name}, sm_{architecture}"
        is_wide = architecture == 90 and bool(WIDE_NAME.search(name))
        assert all(any(one.match(code) for code in codes) == is_wide for one in WIDE), name
    found = [TENSOR_NAME.search(name) for name, *_ in binary.instructions]
    assert {one.group() for one in found if one} == {"tensor_gemm_kernel", "tensor_kernel"}
    for wanted in (WIDE_NAME, WALK_NAME):
        assert any(wanted.search(name) for name, *_ in binary.instructions)


def test_what_the_library_offers_and_needs(binary: Binary) -> None:
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", "--format=posix", str(binary.path)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    exported = {line.split()[0] for line in symbols.splitlines()}
    assert exported == {"fbp_abi_version", "fbp_build_info", "fbp_get_api"}
    dynamic = subprocess.run(
        ["readelf", "-d", str(binary.path)], capture_output=True, text=True, check=True
    ).stdout
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", dynamic))
    system = {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1"}
    assert needed <= system | {"libgcc_s.so.1", "ld-linux-x86-64.so.2"}


def test_the_library_is_small(binary: Binary) -> None:
    megabytes = binary.path.stat().st_size / 2**20
    print(f"{megabytes:.1f} MiB for {', '.join(binary.architectures)}")
    assert megabytes <= MEGABYTES
