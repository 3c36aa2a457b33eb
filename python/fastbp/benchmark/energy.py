"""What a training step costs in energy, by the processor's own counters.

RAPL (Intel, and AMD since Zen) counts the microjoules of each processor package; Linux shows them
in /sys/class/powercap. Many systems let only the administrator read them, and most virtual machines
have none: then there is no figure, and the reason is said. Measured is all that the package does
meanwhile, so nothing else should run; what it takes at rest is given beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

POWERCAP = Path("/sys/class/powercap")
SIZES = ((4, 32, 3, 16), (784, 128, 10, 32), (784, 256, 128, 10, 128))  # layers, then the batch


class EnergyError(Exception):
    """Energy cannot be measured here; the text says why."""


class Counter(NamedTuple):
    """One package's counter, which begins again at 0 behind `most` microjoules."""

    name: str
    file: Path
    most: int

    def read(self) -> int:
        return int(self.file.read_text())


def counters(root: Path = POWERCAP) -> list[Counter]:
    """The packages' counters. Raises EnergyError where there are none, or none may be read."""
    found = []
    for folder in sorted(root.glob("*-rapl:*")):
        if folder.name.count(":") > 1:  # a part of a package
            continue
        try:
            most = int((folder / "max_energy_range_uj").read_text())
            counter = Counter((folder / "name").read_text().strip(), folder / "energy_uj", most)
            counter.read()
        except PermissionError:
            raise EnergyError(
                f"{folder / 'energy_uj'} may be read by the administrator alone: run as root, or "
                f"allow it with  chmod a+r {folder}/energy_uj"
            ) from None
        except (OSError, ValueError):
            continue
        found.append(counter)
    if not found:
        raise EnergyError(f"{root} has no RAPL counters (virtual machines rarely have)")
    return found


class Energy(NamedTuple):
    """Joules and seconds of a piece of work."""

    joules: float
    seconds: float

    @property
    def watts(self) -> float:
        return self.joules / self.seconds


def measured(work: Callable[[], object], meters: list[Counter]) -> Energy:
    """What `work` takes, of all packages. It must not last as long as a counter needs to go round
    (a minute at the very least)."""
    before, start = [meter.read() for meter in meters], time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    after = [meter.read() for meter in meters]
    used = zip(before, after, meters, strict=True)
    return Energy(sum((b - a) % (meter.most + 1) for a, b, meter in used) * 1e-6, seconds)


def report(root: Path = POWERCAP, seconds: float = 2.0) -> str:
    """A table of joules a step and rows a joule, or the reason why there is none."""
    try:
        meters = counters(root)
    except EnergyError as error:
        return f"energy: not available: {error}"
    rest = measured(lambda: time.sleep(seconds), meters)
    names = ", ".join(meter.name for meter in meters)
    lines = [
        f"energy of a training step (Adam, float32), by RAPL of {names}",
        f"at rest {rest.watts:.1f} W, which the figures include",
        f"{'network':<24}{'J/step':>12}{'rows/J':>12}{'W':>8}",
    ]
    for *sizes, batch in SIZES:
        epoch, steps = _training(sizes, batch)
        once = measured(epoch, meters).seconds
        epochs = max(1, round(seconds / once))
        energy = measured(lambda e=epoch, n=epochs: [e() for _ in range(n)], meters)  # type: ignore[misc]
        each = max(energy.joules / (epochs * steps), 1e-30)
        name = f"{'-'.join(map(str, sizes))} b{batch}"
        lines.append(f"{name:<24}{each:>12.3g}{batch / each:>12.3g}{energy.watts:>8.1f}")
    return "\n".join(lines)


def _training(sizes: list[int], batch: int) -> tuple[Callable[[], object], int]:
    """An epoch of a network with those layers, ready to be called again, and its steps."""
    from .. import Dense, Sequential

    steps = 100
    rng = np.random.default_rng(0)
    X = rng.normal(size=(steps * batch, sizes[0])).astype(np.float32)
    y = rng.integers(0, sizes[-1], len(X))
    hidden = [Dense(units, "relu") for units in sizes[1:-1]]
    model = Sequential([*hidden, Dense(sizes[-1])], seed=0)
    model.compile("adam", "softmax_cross_entropy")
    model.fit(X, y, batch_size=batch, verbose=0)
    return lambda: model.fit(X, y, batch_size=batch, verbose=0), steps
