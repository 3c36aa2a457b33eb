"""Two documents beside each other: what became faster or slower.

Clocks and neighbours differ between runs, so times are compared as multiples of the NumPy loop's in
the same rounds. A change counts where the ranges of these multiples over the rounds lie apart:
otherwise it is noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import text
from .contestants import BASELINE, OWN
from .timing import Ratio, Timing


@dataclass(frozen=True)
class Change:
    """A result that both documents have: fastbp's time as a multiple of the baseline's."""

    workload: str
    contestant: str
    before_seconds: float
    after_seconds: float
    before: Ratio
    after: Ratio

    @property
    def factor(self) -> float:
        """New time / old time, as the baseline measures them; above 1 is slower."""
        return self.after.median / self.before.median

    @property
    def verdict(self) -> str:
        if self.after.low > self.before.high:
            return "slower"
        return "faster" if self.after.high < self.before.low else "same"


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Of all fastbp results that are in both, with their baselines."""
    old = {workload["name"]: workload["results"] for workload in before["workloads"]}
    found = []
    for workload in after["workloads"]:
        new, name = workload["results"], workload["name"]
        for contestant, result in new.items():
            results = (old.get(name, {}), new)
            if result["library"] != OWN or any(contestant not in r for r in results):
                continue
            if any(BASELINE not in r for r in results):
                continue
            own = [Timing.from_json(r[contestant]["seconds"]) for r in results]
            base = [Timing.from_json(r[BASELINE]["seconds"]) for r in results]
            ratios = [Ratio.of(a, b) for a, b in zip(own, base, strict=True)]
            found.append(Change(name, contestant, own[0].median, own[1].median, *ratios))
    return found


def slower_than(found: Sequence[Change], limit: float) -> list[Change]:
    """Those beyond noise and beyond the limit."""
    return [c for c in found if c.verdict == "slower" and c.factor > limit]


def as_text(found: Sequence[Change]) -> str:
    rows = [["workload", "contestant", "before", "after", "change", "noise", "verdict"]]
    for change in found:
        noise = max(r.high / r.low - 1 for r in (change.before, change.after))
        rows.append(
            [
                change.workload,
                change.contestant,
                text.seconds(change.before_seconds),
                text.seconds(change.after_seconds),
                f"{change.factor:.3f}",
                f"{noise:.0%}",
                change.verdict,
            ]
        )
    counts = {v: sum(c.verdict == v for c in found) for v in ("slower", "faster", "same")}
    return (
        f"{text.table(rows, indent=0)}\n\n"
        "change: new time / old time, each as a multiple of NumPy's in the same run; noise: range "
        "over the rounds\n"
        f"{counts['slower']} slower, {counts['faster']} faster, {counts['same']} the same"
    )
