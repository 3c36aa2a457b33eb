"""`fastbp bench`: how fast this machine trains, beside NumPy and what else is installed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..arrays import PROCESSOR_DTYPES
from . import arguments as kinds
from .errors import CommandError

DESCRIPTION = """\
Time training steps, single calls and a whole job on this machine: beside a NumPy loop and, with
--peers, beside PyTorch, JAX, scikit-learn and ONNX Runtime where they are installed. Prints the
machine, its probed peaks, each time with its spread, the share of the roofline (what the machine's
arithmetic and memory allow), and how many times as long the others take.

Every contestant runs in a process of its own; the rounds alternate, and while one is timed the
others lie stopped. All start from the same parameters and train on the same batches; a result that
is not the float64 reference's is refused. A row during which the machine slowed down is timed once
more and then marked with '?'.
"""
EXAMPLES = """\
examples:
  fastbp bench --quick                           a minute
  fastbp bench --peers --json run.json           beside everything that is installed
  fastbp bench --only 784-128 --peers
  fastbp bench --random 30 --seed 7 --peers --dtype float32
  fastbp bench --report run.json --plots figures --markdown run.md
  fastbp bench --compare old.json new.json --fail-above 1.1
  fastbp bench --device cuda --peers             the goals for a GPU, its times, PyTorch's
  fastbp bench --energy                          joules a step, by the processor's counters

Nothing else should run on the machine meanwhile.
Plots need matplotlib: pip install 'fastbp[bench]'.
"""
QUICK = (3, 0.03)  # rounds, seconds of each contestant in each round
FULL = (7, 0.1)


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "bench",
        help="time this machine beside NumPy and other libraries",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_what(parser)
    _add_outputs(parser)
    parser.set_defaults(run=run)


def _add_what(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what is timed")
    what.add_argument("--peers", action="store_true", help="time the installed peers, too")
    what.add_argument(
        "--torch-compile",
        action="store_true",
        help="with --peers: also PyTorch's compiled network, half a minute more for each step; "
        "needs a C++ compiler",
    )
    what.add_argument("--only", metavar="TEXT", default="", help="workloads whose name has TEXT")
    what.add_argument("--large", action="store_true", help="also 2048x4 and 4096x4 networks")
    what.add_argument(
        "--sweep", action="store_true", help="also widths 8 to 1024, batches 1 to 1024, odd shapes"
    )
    what.add_argument(
        "--random",
        metavar="COUNT",
        type=kinds.positive_int,
        default=0,
        help="instead: training steps of random shapes, activations and optimizers",
    )
    what.add_argument(
        "--seed", metavar="N", type=kinds.seed, default=0, help="of --random; default: 0"
    )
    what.add_argument(
        "--dtype",
        nargs="+",
        choices=PROCESSOR_DTYPES,
        default=["float32", "bfloat16"],
        help="default: float32, and bfloat16 where fastbp offers it on this processor",
    )
    what.add_argument(
        "--device",
        choices=["cpu", "cuda"],
        default="cpu",
        help="default: cpu; cuda prints the goals for a GPU beside what this machine's takes",
    )
    what.add_argument(
        "--energy",
        action="store_true",
        help="instead of times: joules a step, where the processor's counters can be read",
    )
    what.add_argument("--repeats", metavar="N", type=kinds.positive_int, help="default: 7")
    what.add_argument(
        "--quick", action="store_true", help="3 short rounds, and nothing above 1 GFLOP a step"
    )


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    out = parser.add_argument_group("what becomes of the figures")
    out.add_argument("--json", metavar="FILE", type=kinds.output_path, help="save all figures")
    out.add_argument(
        "--markdown",
        metavar="FILE",
        nargs="+",
        type=kinds.output_path,
        default=[],
        help="write the tables; in a file with benchmark marks, between them, without the sweeps",
    )
    out.add_argument("--plots", metavar="FOLDER", type=Path, help="draw them, with matplotlib")
    out.add_argument("--plot-format", choices=["png", "svg"], default="png", help="default: png")
    out.add_argument(
        "--report",
        metavar="FILE",
        nargs="+",
        type=Path,
        help="time nothing: take the figures of saved runs, joined",
    )
    out.add_argument(
        "--compare",
        metavar=("OLD", "NEW"),
        nargs=2,
        type=Path,
        help="time nothing: show what changed between two saved runs",
    )
    out.add_argument(
        "--fail-above",
        metavar="X",
        type=kinds.positive_float,
        help="with --compare: exit status 1 if anything became more than X times as slow",
    )


def run(arguments: argparse.Namespace) -> int:
    from ..benchmark.document import DocumentError
    from ..benchmark.pool import WorkerError

    if arguments.fail_above is not None and not arguments.compare:
        raise CommandError("--fail-above needs --compare OLD NEW")
    if arguments.torch_compile and not arguments.peers:
        raise CommandError("--torch-compile needs --peers")
    if arguments.device == "cuda":
        return _cuda(arguments)
    if arguments.energy:
        return _energy(arguments.quick)
    if arguments.plots:
        _check_plots(arguments.plots)
    try:
        if arguments.compare:
            return _compare(arguments)
        return _write(arguments, _saved(arguments) if arguments.report else _measured(arguments))
    except (DocumentError, WorkerError) as error:
        raise CommandError(str(error)) from error


def _cuda(arguments: argparse.Namespace) -> int:
    """Prints and writes the goals for a GPU beside its times."""
    from .. import about, cuda_library
    from ..benchmark import cuda
    from ..errors import DeviceNotAvailableError

    try:
        name = cuda_library.open_device(0).name
        there = name != "emulated"
    except DeviceNotAvailableError as error:
        name, there = f"no GPU: {error}", False
    goals = cuda.chosen(arguments.only)
    if not goals:
        raise CommandError(f"no goal has {arguments.only!r} in its name")
    rows = []
    for goal in goals:
        rows.append(cuda.measured(goal, peers=arguments.peers) if there else cuda.Row(goal))
        _say(" | ".join(rows[-1].cells()))
    table = cuda.as_markdown(rows, name)
    print(table)
    for path in arguments.markdown:
        cuda.write_markdown(path, table)
    if arguments.json:
        found = about.collect(probe_devices=True)["cuda"]
        versions = {word: found[word] for word in ("version", "cuda", "driver", "architectures")}
        versions["cublaslt"] = found["cublaslt"]["version"]
        cuda.write_json(arguments.json, rows, name, versions)
    return 0


def _energy(quick: bool) -> int:
    from ..benchmark import energy

    print(energy.report(seconds=0.5 if quick else 2.0))
    return 0


def _check_plots(folder: Path) -> None:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise CommandError(
            "--plots needs matplotlib, which is not installed: pip install 'fastbp[bench]'"
        )
    folder.mkdir(parents=True, exist_ok=True)


def _compare(arguments: argparse.Namespace) -> int:
    from ..benchmark import compare, document

    before, after = map(document.read, arguments.compare)
    found = compare.changes(before, after)
    if not found:
        raise CommandError("the two files have no workload in common that can be compared")
    print(compare.as_text(found))
    if arguments.fail_above is None:
        return 0
    slower = compare.slower_than(found, arguments.fail_above)
    for change in slower:
        print(f"FAIL: {change.workload}, {change.contestant}: {change.factor:.2f} times as long")
    return 1 if slower else 0


def _saved(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..benchmark import document

    return document.joined([document.read(path) for path in arguments.report])


def _measured(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..benchmark import machine, runner, workloads

    chosen = workloads.chosen(
        only=arguments.only,
        large=arguments.large,
        sweep=arguments.sweep,
        quick=arguments.quick,
        random=arguments.random,
        seed=arguments.seed,
    )
    if not chosen:
        raise CommandError(f"no workload has {arguments.only!r} in its name")
    for warning in machine.warnings():
        print(f"warning: {warning}", file=sys.stderr)
    repeats, seconds = QUICK if arguments.quick else FULL
    options = runner.Options(
        chosen,
        peers=arguments.peers,
        dtypes=arguments.dtype,
        repeats=arguments.repeats or repeats,
        seconds=seconds,
        slow_starters=arguments.torch_compile,
    )
    return runner.run(options, _say)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _write(arguments: argparse.Namespace, document: dict[str, Any]) -> int:
    """Prints and writes; exit status 1 where fastbp or the NumPy loop gave no right result."""
    from ..benchmark import document as documents
    from ..benchmark import report, runner

    print(report.as_text(document))
    written = []
    if arguments.json:
        documents.write(arguments.json, document)
        written.append(arguments.json)
    for path in arguments.markdown:
        report.write_markdown(path, document)
        written.append(path)
    if arguments.plots:
        from ..benchmark import plots

        written += plots.draw(document, arguments.plots, arguments.plot_format)
    if written:
        print(f"\nwritten: {', '.join(map(str, written))}")
    failures = runner.failures(document)
    for failure in failures:
        print(f"FAIL: {failure}")
    return 1 if failures else 0
