"""Energy by the processor's counters: files made for the test stand for the machine's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastbp.benchmark import energy


def package(root: Path, number: int, microjoules: int, most: int = 999) -> Path:
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"package-{number}\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder / "energy_uj"


def test_packages_are_added_up_and_counters_go_round(tmp_path: Path) -> None:
    first, second = package(tmp_path, 0, 100), package(tmp_path, 1, 990)
    package(tmp_path, 2, 0).parent.rename(tmp_path / "intel-rapl:0:0")  # a part of the first

    def work() -> None:
        first.write_text("150")
        second.write_text("40")

    meters = energy.counters(tmp_path)
    assert [meter.name for meter in meters] == ["package-0", "package-1"]
    found = energy.measured(work, meters)
    assert found.joules == pytest.approx((50 + 50) * 1e-6)
    assert found.watts == found.joules / found.seconds


def test_a_machine_without_counters_says_so(tmp_path: Path) -> None:
    assert "not available" in energy.report(tmp_path)
    assert "has no RAPL counters" in energy.report(tmp_path / "nothing")


def test_counters_of_the_administrator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any) -> int:
        raise PermissionError

    package(tmp_path, 0, 1)
    monkeypatch.setattr(energy.Counter, "read", refuse)
    with pytest.raises(energy.EnergyError, match="administrator alone: run as root"):
        energy.counters(tmp_path)


def test_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, 0, 0)
    monkeypatch.setattr(energy, "SIZES", ((4, 8, 3, 16),))
    monkeypatch.setattr(
        energy, "measured", lambda work, meters: (work(), energy.Energy(2.0, 0.5))[1]
    )
    lines = energy.report(tmp_path, seconds=0.0).splitlines()
    assert "package-0" in lines[0] and "at rest 4.0 W" in lines[1]
    assert lines[-1].split() == ["4-8-3", "b16", "0.02", "800", "4.0"]
