"""`fastbp info`: what fastbp found on this machine and what it uses."""

from __future__ import annotations

import argparse
import json
from typing import Any

from . import text
from .errors import CommandError

DESCRIPTION = """\
Show the version, the processor, the instruction sets that were compiled, that this machine can
run and that is in use, the number of threads, and the environment variables that fastbp reads.
Please add this output to a bug report.
"""
EXAMPLES = """\
examples:
  fastbp info
  fastbp info --json
  FASTBP_ISA=avx2 FASTBP_NUM_THREADS=1 fastbp info
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "info",
        help="show version, processor, instruction set, threads",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    import fastbp as bp

    try:
        found = bp.info()
    except (ValueError, RuntimeError) as error:
        raise CommandError(str(error)) from error
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    build = found["build"]
    text.line("fastbp", f"{found['fastbp']}, {build['compiler']}, {build['build_type']}")
    text.line("python", f"{found['python']}, numpy {found['numpy']}, {found['system']}")
    text.line("processor", f"{found['cpu']}, {_caches(build)}")
    text.line("isa", _isas(found))
    text.line("threads", f"{found['threads']} of {text.plural(found['processors'], 'processor')}")
    text.line("devices", ", ".join(found["devices"]))
    text.line("variables", _variables(found["environment"]))
    return 0


def _caches(build: dict[str, Any]) -> str:
    sizes = [
        f"{level.upper()} {build[f'{level}_bytes'] // 1024} KiB"
        for level in ("l1d", "l2", "l3")
        if build.get(f"{level}_bytes")
    ]
    return ", ".join(sizes) or "caches unknown"


def _isas(found: dict[str, Any]) -> str:
    available, compiled = found["isas_available"], found["isas_compiled"]
    lacking = [name for name in compiled if name not in available]
    return (
        f"{found['isa']} in use; available here: {', '.join(available)}"
        + f"; compiled, but not for this machine: {', '.join(lacking)}" * bool(lacking)
    )


def _variables(environment: dict[str, dict[str, Any]]) -> str:
    """One line each: name, value, whether it is valid and what is expected."""
    rows = []
    for name, found in environment.items():
        state = "unset" if found["value"] is None else found["value"] or "empty"
        verdict = "" if found["valid"] else "NOT VALID: "
        rows.append([name, state, verdict + found["expected"]])
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(f"{r[0]:<{widths[0]}}  {r[1]:<{widths[1]}}  {r[2]}" for r in rows)
