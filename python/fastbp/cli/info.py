"""`fastbp info`: what fastbp found on this machine and what it uses."""

from __future__ import annotations

import argparse
import json
from typing import Any

from .. import text

DESCRIPTION = """\
Show the version, the processor, the instruction sets that were compiled, that this machine can
run and that is in use, the number of threads, the CUDA library and its devices or why there are
none, and the environment variables that fastbp reads.
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
    from fastbp.about import cuda_text

    found = bp.info(probe_devices=True)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    build = found["build"]
    text.line("fastbp", f"{found['fastbp']}, {build['compiler']}, {build['build_type']}")
    text.line("python", f"{found['python']}, numpy {found['numpy']}, {found['system']}")
    text.line("processor", f"{found['cpu']}, {_caches(build)}")
    text.line("isa", _isas(found))
    text.line("bfloat16", _bfloat16(found))
    threads = found["threads"] or "not known: FASTBP_NUM_THREADS is not valid"
    text.line("threads", f"{threads}; this process may use {_processors(found)}")
    text.line("devices", ", ".join(found["devices"]))
    text.line("cuda", cuda_text(found["cuda"]))
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
    if found["isa"] is None:
        return "not known: FASTBP_ISA is not valid"
    available, compiled = found["isas_available"], found["isas_compiled"]
    lacking = [name for name in compiled if name not in available]
    return (
        f"{found['isa']} in use; this machine can run {', '.join(available)}"
        + f"; also compiled: {', '.join(lacking)}" * bool(lacking)
    )


def _bfloat16(found: dict[str, Any]) -> str:
    if found["bfloat16"]:
        return "matrix products may use it: dtype='bfloat16'"
    return f"not available: {found['bfloat16_problem'] or 'FASTBP_ISA is not valid'}"


def _processors(found: dict[str, Any]) -> str:
    return text.plural(found["processors"], "processor")


def _variables(environment: dict[str, dict[str, Any]]) -> str:
    """One line each: name, value, and what is wrong with it."""
    rows = []
    for name, found in environment.items():
        state = "not set" if found["value"] is None else f"{found['value']!r}"
        rows.append(
            [name, state + (f"  NOT VALID: {found['problem']}" if found["problem"] else "")]
        )
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {state}" for name, state in rows)
