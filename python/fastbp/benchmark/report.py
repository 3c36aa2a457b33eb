"""A document as tables: plain text for the terminal, Markdown for files."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import text
from . import machine
from .contestants import ALL, OWN
from .timing import Ratio, Timing

BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"
TITLES = {
    "train": "One training step (forward, loss, backward, Adam)",
    "predict": "One call: prediction, matrix product",
    "job": "A whole job: from the description of the network to the trained model",
}
SWEEPS = {
    "widths": "Widths: one training step",
    "batches": "Batches: one training step",
    "odd": "Odd shapes: one training step",
    "random": "Random shapes: one training step",
    "matmul": "Matrix products",
}
TOGETHER = {"matmul": "predict"}  # kinds that share a table

Rows = list[list[str]]


@dataclass(frozen=True)
class Row:
    """One workload beside the results of one of fastbp's dtypes."""

    workload: dict[str, Any]
    dtype: str

    @property
    def own_name(self) -> str:
        return OWN if self.dtype == "float32" else f"{OWN} {self.dtype}"

    @property
    def own(self) -> dict[str, Any]:
        found: dict[str, Any] = self.workload["results"][self.own_name]
        return found

    @property
    def timing(self) -> Timing:
        return Timing.from_json(self.own["seconds"])

    @property
    def share(self) -> float | None:
        """Of the roofline."""
        bound = self.own["roofline_seconds"]
        return None if bound is None else bound / self.timing.median

    def ratio(self, name: str) -> Ratio | None:
        """How many times as long a contestant takes."""
        result = self.workload["results"].get(name)
        return result and Ratio.of(Timing.from_json(result["seconds"]), self.timing)

    def rivals(self) -> list[str]:
        """Results of other libraries that do the same at least as exactly."""
        return [
            name
            for name, result in self.workload["results"].items()
            if result["library"] != OWN
            and (result["dtype"] == self.dtype or self.dtype == "bfloat16")
            and not (self.dtype == "bfloat16" and result["dtype"] == "float64")
        ]

    def best_rival(self) -> tuple[str, float] | None:
        """The fastest of them and its ratio."""
        found = [(name, ratio.median) for name in self.rivals() if (ratio := self.ratio(name))]
        return min(found, key=lambda pair: pair[1], default=None)


def rows(document: dict[str, Any], dtype: str = "float32") -> list[Row]:
    """The workloads that fastbp has a result for in that dtype."""
    found = [Row(workload, dtype) for workload in document["workloads"]]
    return [row for row in found if row.own_name in row.workload["results"]]


def dtypes(document: dict[str, Any]) -> list[str]:
    """Of fastbp's results, float32 first."""
    found = {
        result["dtype"]
        for workload in document["workloads"]
        for result in workload["results"].values()
        if result["library"] == OWN
    }
    return sorted(found, key=lambda dtype: (dtype != "float32", dtype))


def tables(document: dict[str, Any], sweeps: bool = True) -> Iterator[tuple[str, Rows]]:
    """Title and cells of each table; sweeps, if wanted, have tables of their own."""
    for dtype in dtypes(document):
        for title, chosen in _parts(rows(document, dtype), sweeps):
            if chosen:
                yield f"{title}, {dtype}", _table(chosen)


def _parts(found: list[Row], sweeps: bool) -> Iterator[tuple[str, list[Row]]]:
    standard = [row for row in found if row.workload["group"] not in SWEEPS]
    for kind, title in TITLES.items():
        kinds = (kind, *(k for k, with_ in TOGETHER.items() if with_ == kind))
        yield title, [row for row in standard if row.workload["kind"] in kinds]
    if sweeps:
        for group, title in SWEEPS.items():
            yield title, [row for row in found if row.workload["group"] == group]


def _table(chosen: Sequence[Row]) -> Rows:
    dtype = chosen[0].dtype
    step = f"{OWN} step" + f" {dtype}" * (dtype != "float32")
    present = {name for row in chosen for name in row.workload["results"]}
    rivals = {name for row in chosen for name in row.rivals()}
    columns = [contestant.name for contestant in ALL if contestant.name in rivals]
    head = ["workload", OWN, "spread", "roofline"]
    head += ["step()"] * (step in present) + columns + ["best peer"] * (len(columns) > 1)
    body = []
    for row in chosen:
        best = row.best_rival()
        steady = "" if row.workload["steady"] else " ?"
        cells = [
            row.workload["name"] + steady,
            text.seconds(row.timing.median),
            f"{row.timing.spread:.0%}",
            "" if row.share is None else f"{row.share:.0%}",
        ]
        if step in present:
            result = row.workload["results"].get(step)
            cells.append(text.seconds(result["seconds"]["median"]) if result else "")
        cells += [_times(row.ratio(name)) for name in columns]
        if len(columns) > 1:
            cells.append("" if best is None else f"{_number(best[1])}x")
        body.append(cells)
    return [head, *body]


def _times(ratio: Ratio | None) -> str:
    return "" if ratio is None else f"{_number(ratio.median)}x"


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def summary(document: dict[str, Any]) -> Iterator[str]:
    """How fastbp stands against the fastest other of each row."""
    for dtype in dtypes(document):
        found = [
            (best[1], best[0], row.workload["name"])
            for row in rows(document, dtype)
            if (best := row.best_rival())
        ]
        if found:
            mean = math.exp(statistics.fmean(math.log(ratio) for ratio, _, _ in found))
            least = min(found)
            yield (
                f"{dtype}: the fastest other contestant of each row takes {mean:.2f} times as long "
                f"(geometric mean of {len(found)}), at least {least[0]:.2f} times "
                f"({least[1]}, {least[2]})"
            )


def peaks_table(document: dict[str, Any]) -> Rows:
    peaks = document["peaks"]
    found = [["probed", "one thread", f"{peaks['threads']} threads"]]
    for dtype, rates in peaks["gflops"].items():
        found.append([f"{dtype} GFLOP/s", *(f"{rates[n]:.1f}" for n in ("one", "all"))])
    for level, rates in peaks["gbytes"].items():
        found.append([f"{level} GB/s", *(f"{rates[n]:.1f}" for n in ("one", "all"))])
    return found


def about(document: dict[str, Any]) -> list[str]:
    """The machine, the versions, and how it was timed."""
    described, options = document["machine"], document["options"]
    packages = ", ".join(f"{name} {version}" for name, version in described["packages"].items())
    return [
        machine.line(described),
        f"fastbp {described['fastbp']}, Python {described['python']}, {packages} "
        f"(BLAS: {described['blas']})",
        f"{described['date']}; {text.plural(options['repeats'], 'round')} of "
        f"{options['seconds']:g} s for each contestant",
    ]


def notes(document: dict[str, Any]) -> Iterator[str]:
    """Failures and unsteady rows."""
    unsteady = [w["name"] for w in document["workloads"] if not w["steady"]]
    if unsteady:
        yield (
            "marked ?: the machine's probed peak was more than 3 % below the best of the run "
            f"before or after: {', '.join(unsteady)}"
        )
    for workload in document["workloads"]:
        for name, reason in workload["failed"].items():
            yield f"no result of {name} for {workload['name']}: {reason}"


def as_text(document: dict[str, Any]) -> str:
    parts = ["\n".join(about(document)), text.table(peaks_table(document), indent=0)]
    for title, cells in tables(document):
        parts.append(f"{title}:\n{text.table(cells, indent=0)}")
    parts.append(
        "times are medians; spread is (p90 - p10) / median; 3.2x: takes 3.2 times as long as fastbp"
    )
    parts += ["\n".join(summary(document)), "\n".join(notes(document))]
    return "\n\n".join(part for part in parts if part)


def as_markdown(document: dict[str, Any], sweeps: bool = True) -> str:
    parts = ["  \n".join(about(document)), _markdown_table(peaks_table(document))]
    for title, cells in tables(document, sweeps):
        parts.append(f"{title}:\n\n{_markdown_table(cells)}")
    parts += ["\n".join(f"- {line}" for line in (*summary(document), *notes(document)))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown_table(cells: Rows) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in cells]
    rule = "|---|" + "---:|" * (len(cells[0]) - 1)
    return "\n".join([head, rule, *body])


def write_markdown(path: Path, document: dict[str, Any]) -> None:
    """Without sweeps between the two marks of a file that has them, otherwise as the whole file."""
    if not write_between(path, (BEGIN, END), as_markdown(document, sweeps=False)):
        path.write_text(as_markdown(document), encoding="utf-8")


def write_between(path: Path, marks: tuple[str, str], content: str) -> bool:
    """Puts lines between the two marks of a file; False, and nothing done, where it has none."""
    if not path.exists():
        return False
    before, begin, rest = path.read_text(encoding="utf-8").partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (begin and end):
        return False
    path.write_text(f"{before}{begin}\n{content}{end}{after}", encoding="utf-8")
    return True
