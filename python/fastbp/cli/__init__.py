"""The `fastbp` command: `main` parses the arguments and runs one command.

Exit status: 0 success, 1 a check failed (`verify`, `bench`), 2 a mistake in the arguments or the
data (one message on stderr), 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import fastbp

from .. import _core, devices
from . import bench, config, demo, evaluate, explain, info, predict, train, verify
from .errors import CommandError

__all__ = ["main"]

EXAMPLES = """\
start here:
  fastbp demo                                  train on handwritten digits, compare with NumPy
  fastbp train iris.csv --target species       train on your own table
  fastbp predict iris.safetensors new.csv      use what was trained
  fastbp explain s0_4.3_two_layers             a training step as a hand calculation
  fastbp verify --quick                        check this machine's kernels against NumPy
  fastbp bench --quick                         time this machine beside NumPy

'fastbp COMMAND --help' explains a command and gives examples.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (sys.argv[1:] when `argv` is None) and return the exit status."""
    parser = _parser()
    argv = sys.argv[1:] if argv is None else argv
    try:
        arguments = parser.parse_args(config.expanded(argv))
    except CommandError as error:
        print(f"fastbp: {error}", file=sys.stderr)
        return 2
    except SystemExit as stop:  # argparse has printed the help, the version or the usage error
        return stop.code if isinstance(stop.code, int) else 2
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        if arguments.command != "info":  # which shows what is wrong
            _check_environment()
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except (CommandError, fastbp.DeviceNotAvailableError) as error:
        print(f"fastbp {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nfastbp {arguments.command}: stopped by Ctrl-C", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as in `fastbp info | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _check_environment() -> None:
    """Raises CommandError where FASTBP_ISA, FASTBP_NUM_THREADS or FASTBP_DEVICE is not valid."""
    try:
        fastbp.get_num_threads()
        devices.resolve("auto")
        _core.isas()
    except (ValueError, RuntimeError) as error:
        raise CommandError(str(error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastbp",
        description="Train and use neural networks by backpropagation, fast.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fastbp {fastbp.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for module in (demo, train, predict, evaluate, explain, info, verify, bench):
        module.add_parser(commands)
    return parser
