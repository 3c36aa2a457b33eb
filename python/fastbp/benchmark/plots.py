"""A document as pictures: ratio bars, roofline, sweeps. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only: no window, no display

from matplotlib import pyplot

from ..cli import text
from . import machine
from .contestants import ALL, OWN
from .report import Row, dtypes, rows
from .workloads import Workload

Document = dict[str, Any]
Figure = Any  # of matplotlib; None where there is nothing to draw
Axes = Any

# Colours that colour-blind readers can tell apart; fastbp has the strongest.
COLOURS = {
    "fastbp": "#0b5fa5",
    "fastbp step": "#6aaed6",
    "numpy": "#7f7f7f",
    "torch": "#d55e00",
    "torch bfloat16": "#d55e00",
    "jax": "#e6ab02",
    "jax scan": "#8c6d1f",
    "scikit-learn": "#009e73",
    "onnxruntime": "#aa4499",
}
OTHER = "#333333"
SWEEPS = {"widths": "width of the layers (batch 64)", "batches": "rows of a batch (64-64-64-10)"}


def draw(document: Document, folder: Path, suffix: str = "png") -> list[Path]:
    """Writes what the document has figures for; returns the files."""
    drawings: dict[str, Callable[[], Figure]] = {}
    for dtype in dtypes(document):
        drawings[f"ratios-{dtype}"] = partial(ratio_bars, document, dtype)
        drawings[f"roofline-{dtype}"] = partial(roofline, document, dtype)
    for group in SWEEPS:
        drawings[f"sweep-{group}"] = partial(sweep, document, group)
    written = []
    with pyplot.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        for name, drawing in drawings.items():
            figure = drawing()
            if figure is not None:
                path = folder / f"{name}.{suffix}"
                figure.savefig(path, dpi=150, bbox_inches="tight")
                pyplot.close(figure)
                written.append(path)
    return written


def ratio_bars(document: Document, dtype: str) -> Figure:
    """How many times as long each other contestant takes, by workload."""
    chosen = [row for row in _table_rows(document, dtype) if row.rivals()]
    names = _in_order(name for row in chosen for name in row.rivals())
    if not chosen:
        return None
    height = 0.8 / len(names)
    figure, axes = pyplot.subplots(figsize=(8, 1.2 + len(chosen) * (0.22 + 0.11 * len(names))))
    for place, name in enumerate(names):
        bars = [(at, ratio.median) for at, row in enumerate(chosen) if (ratio := row.ratio(name))]
        heights = [at + (place - (len(names) - 1) / 2) * height for at, _ in bars]
        values = [value for _, value in bars]
        axes.barh(heights, values, height * 0.92, label=name, color=_colour(name))
        for where, value in zip(heights, values, strict=True):
            axes.annotate(
                f"{value:.3g}",
                (max(value, 1), where),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=6,
            )
    axes.set_xscale("log")
    axes.axvline(1, color=COLOURS[OWN], linewidth=1.5, label="fastbp")
    axes.set_yticks(range(len(chosen)), [_label(row) for row in chosen])
    axes.invert_yaxis()
    axes.set_xlabel(f"times as long as fastbp ({dtype})")
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=len(names) + 1, frameon=False, fontsize=7.5
    )
    _caption(axes, document)
    return figure


def _table_rows(document: Document, dtype: str) -> list[Row]:
    """Of the standard suite; sweeps have pictures of their own."""
    return [
        row
        for row in rows(document, dtype)
        if row.workload["group"] in ("steps", "large", "latency", "jobs")
    ]


def _label(row: Row) -> str:
    return f"{row.workload['name']}\n{text.seconds(row.timing.median)}"


def roofline(document: Document, dtype: str) -> Figure:
    """What is reached beside what the machine allows, by arithmetic per byte."""
    peaks = document["peaks"]
    chosen = [row for row in rows(document, dtype) if row.workload["kind"] != "job"]
    chosen = [row for row in chosen if row.workload["group"] in ("steps", "large", "matmul")]
    if dtype not in peaks["gflops"] or not chosen:
        return None
    figure, axes = pyplot.subplots(figsize=(8, 5))
    points = [_point(row) for row in chosen]
    left = min(min(x for x, _ in points) / 2, 0.2)
    right = max(max(x for x, _ in points) * 4, 100)
    top = peaks["gflops"][dtype]["all"]
    for level, rates in peaks["gbytes"].items():
        bend = top / rates["all"]
        axes.plot([left, bend], [left * rates["all"], top], color="#999999", linewidth=1)
        axes.annotate(
            f"{level} {rates['all']:.0f} GB/s",
            (left, left * rates["all"]),
            xytext=(3, 4),
            textcoords="offset points",
            fontsize=7.5,
            color="#555555",
        )
    for name, style in (("all", "-"), ("one", "--")):
        rate = peaks["gflops"][dtype][name]
        threads = f"{peaks['threads']} threads" if name == "all" else "one thread"
        axes.axhline(rate, color="#555555", linewidth=1, linestyle=style)
        axes.annotate(
            f"{dtype} peak, {threads}: {rate:.0f} GFLOP/s",
            (left, rate),
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=7.5,
            color="#555555",
        )
    for row, (x, y) in zip(chosen, points, strict=True):
        matmul = row.workload["kind"] == "matmul"
        axes.plot(x, y, "s" if matmul else "o", color=OTHER if matmul else COLOURS[OWN], ms=5)
        axes.annotate(
            row.workload["name"],
            (x, y),
            xytext=(5, -3),
            textcoords="offset points",
            fontsize=6.5,
            va="top",
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(left, right),
        ylim=(min(y for _, y in points) / 2, top * 2),
        xlabel="FLOP per byte that has to be read or written",
        ylabel="GFLOP/s reached",
    )
    _caption(axes, document)
    return figure


def _point(row: Row) -> tuple[float, float]:
    """FLOP per byte, GFLOP/s."""
    workload = Workload.from_json(row.workload)
    traffic = workload.traffic(8 if row.dtype == "float64" else 4)
    return workload.flop / traffic, workload.flop / row.timing.median / 1e9


def sweep(document: Document, group: str) -> Figure:
    """Time of a step over a size, of everyone: cliffs show as steps of a line."""
    chosen = [w for w in document["workloads"] if w["group"] == group]
    if len(chosen) < 2:
        return None
    names = _in_order(name for workload in chosen for name in workload["results"])
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for name in names:
        points = sorted(_sweep_points(chosen, group, name))
        own = name == OWN
        axes.plot(
            [x for x, _ in points],
            [1e6 * y for _, y in points],
            "--" if "bfloat16" in name or "float64" in name else "-",
            marker="o",
            ms=3.5 if own else 2.5,
            linewidth=2.2 if own else 1.1,
            color=_colour(name),
            label=name,
        )
    bound = sorted(_sweep_points(chosen, group, OWN, "roofline_seconds"))
    axes.plot(
        [x for x, _ in bound],
        [1e6 * y for _, y in bound],
        ":",
        color="#555555",
        linewidth=1,
        label="roofline",
    )
    axes.set(xscale="log", yscale="log", xlabel=SWEEPS[group], ylabel="µs per training step")
    ticks = sorted({x for x, _ in bound if x & (x - 1) == 0})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(color="#eeeeee")
    axes.legend(frameon=False, fontsize=7.5)
    _caption(axes, document)
    return figure


def _sweep_points(
    chosen: Sequence[Document], group: str, name: str, what: str = "seconds"
) -> Iterator[tuple[int, float]]:
    for workload in chosen:
        result = workload["results"].get(name)
        if result is not None and result[what] is not None:
            size = workload["batch"] if group == "batches" else workload["sizes"][0]
            yield size, result[what]["median"] if what == "seconds" else result[what]


def _in_order(found: Iterator[str]) -> list[str]:
    """Names once each, in the order of the list of contestants."""
    names = set(found)
    return [contestant.name for contestant in ALL if contestant.name in names]


def _colour(name: str) -> str:
    return COLOURS.get(name) or COLOURS.get(name.rpartition(" ")[0], OTHER)


def _caption(axes: Axes, document: Document) -> None:
    described = document["machine"]
    axes.annotate(
        f"fastbp {described['fastbp']}, {machine.line(described)}, {described['date'][:10]}",
        (1, 0),
        xytext=(0, -38),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        fontsize=6.5,
        color="#777777",
    )
