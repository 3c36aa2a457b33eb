"""The C++ tests: runs every program that tests/cpp/test_*.cpp makes (cpp_programs.py says how)."""

from __future__ import annotations

from pathlib import Path

import pytest

from builds import Builder, program
from cpp_programs import BUILDS, COMMON_FLAGS, HAS_COMPILER, ISA_FLAGS, SOURCES, Output, builds_of

pytestmark = pytest.mark.skipif(not HAS_COMPILER, reason="no C++ compiler on PATH")
PROGRAMS = {build.name: build for build in BUILDS}
PER_ISA = [source for source in SOURCES if any("-isa-" in b.name for b in builds_of(source))]


def output_of(name: str, builder: Builder) -> Output:
    return Output.read(builder.result(program(name)))


@pytest.mark.parametrize(
    "program_name",
    [pytest.param(b.name, marks=pytest.mark.slow if b.slow else ()) for b in BUILDS],
)
def test_program(builder: Builder, program_name: str) -> None:
    output = output_of(program_name, builder)
    assert output.status == 0, f"{program_name} ended with status {output.status}:\n{output.text}"


@pytest.mark.parametrize("source", PER_ISA, ids=lambda source: source.stem)
def test_instruction_sets_agree(builder: Builder, source: Path) -> None:
    names = [build.name for build in builds_of(source)]
    hashes = {name: output_of(name, builder).hashes for name in names}
    assert all(hashes.values()), f"no HASH line from one of {hashes}"
    assert len({tuple(h) for h in hashes.values()}) == 1, hashes


def test_flags_match_the_processor_check() -> None:
    """Every -m flag of the table is one that the run-time check of cpuid.cpp accounts for."""
    known = {"-mavx2", "-mfma", "-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw"}
    known |= {"-mavx512bf16", "-mamx-tile", "-mamx-bf16"}
    used = {flag for flags in ISA_FLAGS.values() for flag in flags if flag.startswith("-m")}
    assert used <= known, f"cpuid.cpp does not test what {used - known} enable"
    assert "-ffp-contract=off" in COMMON_FLAGS
