"""A document as pictures: ratio bars, roofline, sweeps. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only: no window, no display

from matplotlib import pyplot

from .. import text
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
    "torch compile": "#8b3a00",
    "torch compile bfloat16": "#8b3a00",
    "jax": "#e6ab02",
    "jax scan": "#8c6d1f",
    "scikit-learn": "#009e73",
    "onnxruntime": "#aa4499",
}
OTHER = "#333333"
SWEEPS = {"widths": "width of the layers (batch 64)", "batches": "rows of a batch (64-64-64-64)"}


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
    if not chosen:
        return None
    places = _bar_places(chosen)
    tall = 0.13 * (places[-1][1] + 2)
    figure, axes = pyplot.subplots(figsize=(8, tall + 0.8))
    for name in _in_order(name for row in chosen for name in row.rivals()):
        bars = [
            (at + row.rivals().index(name), ratio.median)
            for row, at in places
            if name in row.rivals() and (ratio := row.ratio(name))
        ]
        heights, values = [at for at, _ in bars], [value for _, value in bars]
        axes.barh(heights, [v - 1 for v in values], 0.9, left=1, label=name, color=_colour(name))
        for at, value in bars:
            _note(axes, f"{value:.3g}", (max(value, 1), at), (3, 0), fontsize=6, va="center")
    axes.set_xscale("log")
    axes.set_xlim(left=min(0.8, 0.9 * axes.get_xlim()[0]))
    axes.axvline(1, color=COLOURS[OWN], linewidth=2, label="fastbp")
    middles = [at + (len(row.rivals()) - 1) / 2 for row, at in places]
    axes.set_yticks(middles, [_label(row) for row in chosen], fontsize=7.5)
    axes.set_ylim(places[-1][1] + len(chosen[-1].rivals()), -1)
    axes.set_xlabel(f"times as long as fastbp takes ({dtype})")
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1), ncols=8, frameon=False, fontsize=7.5)
    _caption(axes, document)
    return figure


def _bar_places(chosen: Sequence[Row]) -> list[tuple[Row, float]]:
    """Where the bars of each workload begin, one unit each, with a gap after them."""
    places, at = [], 0.0
    for row in chosen:
        places.append((row, at))
        at += max(len(row.rivals()), 3) + 1
    return places


def _table_rows(document: Document, dtype: str) -> list[Row]:
    """Of the standard suite, and random ones; sweeps have pictures of their own."""
    return [
        row
        for row in rows(document, dtype)
        if row.workload["group"] in ("steps", "large", "latency", "jobs", "random")
    ]


def _label(row: Row) -> str:
    return f"{row.workload['name']}\n{text.seconds(row.timing.median)}"


def roofline(document: Document, dtype: str) -> Figure:
    """What training steps reach beside what the machine allows, by arithmetic per byte."""
    chosen = [row for row in _table_rows(document, dtype) if row.workload["kind"] == "train"]
    if dtype not in document["peaks"]["gflops"] or not chosen:
        return None
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    points = [_point(row) for row in chosen]
    limits = (min(min(x for x, _ in points) / 2, 0.1), max(x for x, _ in points) * 3)
    top = _ceilings(axes, document["peaks"], dtype, limits)
    for number, (row, (x, y)) in enumerate(zip(chosen, points, strict=True), start=1):
        key = f"{number}  {row.workload['name']}: {y:.3g}" + (
            "" if row.share is None else f" ({row.share:.0%})"
        )
        axes.plot(x, y, "o", color=COLOURS[OWN], ms=5, label=key)
        _note(axes, str(number), (x, y), (0, -6), fontsize=7.5, va="top", ha="center")
    axes.set(
        xscale="log",
        yscale="log",
        xlim=limits,
        ylim=(min(y for _, y in points) / 3, top * 2),
        xlabel="FLOP per byte that has to be read or written",
        ylabel=f"GFLOP/s, {dtype}",
    )
    axes.legend(
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=7.5,
        title="GFLOP/s (share of the roofline)",
        title_fontsize=7.5,
    )
    _caption(axes, document)
    return figure


def _ceilings(axes: Axes, peaks: Document, dtype: str, limits: tuple[float, float]) -> float:
    """Draws the bandwidths and the peaks; the higher peak."""
    rates = peaks["gflops"][dtype]
    for style, (level, bandwidth) in zip((":", "-.", "--"), peaks["gbytes"].items(), strict=False):
        bend = rates["all"] / bandwidth["all"]
        axes.plot(
            [limits[0], bend],
            [limits[0] * bandwidth["all"], rates["all"]],
            style,
            color="#777777",
            linewidth=1,
            label=f"{level}: {bandwidth['all']:.0f} GB/s",
        )
    for name, threads in (("all", f"{peaks['threads']} threads"), ("one", "one thread")):
        axes.axhline(rates[name], color="#777777", linewidth=1 if name == "all" else 0.5)
        _note(
            axes,
            f"peak of {threads}: {rates[name]:.0f} GFLOP/s",
            (limits[0], rates[name]),
            (3, 3),
            fontsize=7.5,
            color="#555555",
        )
    return float(rates["all"])


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


def _note(
    axes: Axes, words: str, at: tuple[float, float], shift: tuple[float, float], **style: Any
) -> None:
    """Words beside a point of the data, shifted by some typographic points."""
    axes.annotate(words, at, xytext=shift, textcoords="offset points", **style)


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
