"""`fastbp verify`: check this machine's kernels against their NumPy twins."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from .. import text
from .errors import CommandError

if TYPE_CHECKING:
    from ..verify import Report, Result

DESCRIPTION = """\
Run every compiled operation on every instruction set that this machine has, and compare with the
same operation in plain NumPy: activations forward and backward, vector maths, matrix products in
all transposed forms over awkward sizes, dense layers, softmax, losses, optimizer updates, gradients
and training of small networks. Also compares the instruction sets with each other: float32 and
float64 results have the same bits on all of them.

Errors are in ulp (units in the last place), or in eps, relative to the sum of the absolute values
of the terms that were added. Exit status 1 if anything exceeds its allowance or differs in bits.
"""
EXAMPLES = """\
examples:
  fastbp verify --quick                       a few seconds
  fastbp verify                               more sizes and points
  fastbp verify --isa avx2 --dtype float32
  fastbp verify --quick --json > report.json
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "verify",
        help="check the compiled kernels against NumPy",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--isa", nargs="+", metavar="NAME", help="instruction sets (default: all available)"
    )
    parser.add_argument("--dtype", nargs="+", choices=["float32", "float64"], help="default: both")
    parser.add_argument("--quick", action="store_true", help="fewer sizes and points")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from .. import verify

    start = time.perf_counter()
    try:
        report = verify.verify(
            isas=arguments.isa,
            dtypes=arguments.dtype or verify.DTYPES,
            quick=arguments.quick,
            progress=_show_progress if sys.stderr.isatty() else None,
        )
    except ValueError as error:
        raise CommandError(str(error)) from error
    if arguments.json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        print(_as_text(report, time.perf_counter() - start))
    return 0 if report.passed else 1


def _show_progress(done: int, total: int, op: str) -> None:
    line = f"{done}/{total} {op}" if done < total else ""
    print(f"\r{line:<60}" + ("" if line else "\r"), end="", file=sys.stderr, flush=True)


def _as_text(report: Report, duration: float) -> str:
    """One row per operation and dtype, one column per instruction set, then the verdict."""
    rows: dict[tuple[str, str], list[Result]] = {}
    for result in report.results:
        rows.setdefault((result.op, result.dtype), []).append(result)
    body = [["operation", "dtype", *report.isas, "allowed", "", ""]]
    for (op, dtype), results in rows.items():
        worst = max(results, key=lambda result: result.share)
        verdict = "PASS" if all(result.passed for result in results) else "FAIL"
        errors = [f"{result.error:.3g}" for result in results]
        body.append([op, dtype, *errors, f"{worst.allowance:.4g}", worst.unit, verdict])
    lines = [text.table(body, indent=0), ""]
    lines += [
        f"FAIL  {r.op}, {r.dtype}, {r.isa}: {r.error:.4g} {r.unit}, allowed {r.allowance:.4g} "
        f"({r.detail})"
        for r in report.failures
    ]
    lines += [
        f"FAIL  {op}, {dtype}: the bits differ between {', '.join(report.isas)}"
        for op, dtype in report.different_bits
    ]
    return "\n".join([*lines, *_verdict(report, duration)])


def _verdict(report: Report, duration: float) -> list[str]:
    operations = {(result.op, result.dtype) for result in report.results}
    failed = {(result.op, result.dtype) for result in report.failures}
    bits = "one instruction set only: bits not compared"
    if len(report.isas) > 1:
        bits = f"same bits on {', '.join(report.isas)}: " + (
            f"no, {text.plural(len(report.different_bits), 'operation')} differ"
            if report.different_bits
            else "yes, every operation"
        )
    return [
        f"{len(operations) - len(failed)} of {len(operations)} operations within their allowance, "
        f"{report.cases} cases in {text.seconds(duration)}",
        bits,
        "PASS" if report.passed else "FAIL",
    ]
