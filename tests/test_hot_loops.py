"""The gate on the instructions of the matrix product's innermost loops, read from the machine code.

Three quarters of a training step run in them (docs/performance.md). A register tile that no longer
fits the registers, or a compiler that spills one, costs a tenth to a half of every product and is
hard to see in times; here it fails whatever else the machine does. Per value of k, a tile of
rows x vectors must take rows x vectors multiply-adds, at most a load for each vector of B and a
broadcast for each row of A, and nothing may be kept on the stack.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import NamedTuple

import pytest

from fastbp import _core

pytestmark = [
    pytest.mark.skipif(
        shutil.which("objdump") is None or shutil.which("nm") is None,
        reason="objdump and nm (binutils) are not on PATH",
    ),
    pytest.mark.skipif(bool(_core.build_info()["sanitize"]), reason="a sanitizer's loops differ"),
    pytest.mark.skipif("EMULATE_AVX512" in _core.build_info()["flags"], reason="not its code"),
    pytest.mark.skipif("avx512" not in _core.isas()["compiled"], reason="reads x86 code"),
]

# blocking.h: rows by vectors, by instruction set and kind of vector; the registers of a vector.
TILES = {
    ("avx512", "Vec"): ((16, 1), (12, 2), (8, 3), (6, 4)),
    ("avx2", "Vec"): ((6, 1),),
    ("avx2", "Narrow"): ((12, 1),),
}
REGISTERS = {("avx512", "Vec"): 1, ("avx2", "Vec"): 2, ("avx2", "Narrow"): 1}
TYPES = {"float32": "f", "float64": "d"}
CASES = [
    (*kind, *tile, dtype) for kind, tiles in TILES.items() for tile in tiles for dtype in TYPES
]
BOOKKEEPING = 8  # pointers, a counter, a jump


class Instruction(NamedTuple):
    address: int
    name: str
    operands: str

    @property
    def target(self) -> int | None:
        """Where a jump goes to."""
        found = re.match(r"([0-9a-f]+)\b", self.operands) if self.name[0] == "j" else None
        return int(found[1], 16) if found else None

    @property
    def multiplies(self) -> bool:
        return self.name.startswith("vfmadd")

    @property
    def reads_memory(self) -> bool:
        return self.name[0] == "v" and "(" in self.operands

    @property
    def on_the_stack(self) -> bool:
        return bool(re.search(r"\(%rsp|-0x[0-9a-f]+\(%rbp\)", self.operands))


@pytest.fixture(scope="module")
def kernels() -> dict[str, tuple[int, int]]:
    """Address and size of every function of the extension, by its mangled name."""
    command = ["nm", "--print-size", "--defined-only", "--format=posix", _core.__file__]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {}
    for line in listed.splitlines():
        name, kind, *place = line.split()
        if kind in "tTW" and len(place) == 2:
            found[name] = (int(place[0], 16), int(place[1], 16))
    if not any("micro_kernel" in name for name in found):
        pytest.skip("the extension's symbols were stripped")
    return found


def disassembled(address: int, size: int) -> list[Instruction]:
    command = ["objdump", "-d", "--no-show-raw-insn", _core.__file__]
    command += [f"--start-address={address:#x}", f"--stop-address={address + size:#x}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pattern = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)[^\S\n]*(.*)$", re.MULTILINE)
    return [Instruction(int(at, 16), name, rest) for at, name, rest in pattern.findall(shown)]


def hot_loop(code: list[Instruction]) -> list[Instruction]:
    """Of the innermost loops, the one with the most multiply-adds."""
    jumps = [(i.target, i.address) for i in code if i.target and i.target <= i.address]
    innermost = [
        (start, end)
        for start, end in jumps
        if not any(start <= low and high < end for low, high in jumps)
    ]
    loops = [[i for i in code if start <= i.address <= end] for start, end in innermost]
    return max(loops, key=lambda loop: sum(i.multiplies for i in loop), default=[])


@pytest.mark.parametrize("transposed", [0, 1], ids=["A by rows", "A by columns"])
@pytest.mark.parametrize(("isa", "vector", "rows", "vectors", "dtype"), CASES)
def test_a_tile_stays_in_registers(
    kernels: dict[str, tuple[int, int]],
    isa: str,
    vector: str,
    rows: int,
    vectors: int,
    dtype: str,
    transposed: int,
) -> None:
    tile = f"{len(vector)}{vector}I{TYPES[dtype]}EELi{rows}ELi{vectors}ELb{transposed}ELb0E"
    parts = (f"{len(isa)}{isa}", "12micro_kernelI", tile)
    (place,) = [at for name, at in kernels.items() if all(part in name for part in parts)]
    loop = hot_loop(disassembled(*place))
    said = "\n".join(f"{i.name} {i.operands}" for i in loop)
    vectors *= REGISTERS[isa, vector]
    multiplies = sum(i.multiplies for i in loop)
    assert multiplies, said
    assert multiplies % (rows * vectors) == 0, said
    steps = multiplies // (rows * vectors)  # some compilers unroll
    assert not any(i.on_the_stack and i.name[0] == "v" for i in loop), said
    assert sum(i.reads_memory for i in loop) <= steps * (rows + vectors), said
    least = multiplies + steps * (rows + vectors)
    assert len(loop) <= least + BOOKKEEPING * steps + (rows if transposed else 0) * steps, said
