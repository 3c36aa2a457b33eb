"""The `fastbp` command: `main` parses the arguments and runs one command.

Exit status: 0 success, 1 a check failed (`verify`, `bench`), 2 a mistake in the arguments or the
data (one message on stderr), 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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
        argv = config.expanded(argv)
        _refuse_lost_values(argv)
        arguments = parser.parse_args(argv)
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
        if arguments.command != "predict" and isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a report; predictions are data
        with _warnings_as_lines(arguments.command):
            status: int = arguments.run(arguments)
        if sys.stdout is not None:  # which it is where the caller closed it
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
    except (OSError, MemoryError, UnicodeEncodeError) as error:
        print(f"fastbp {arguments.command}: {_of_the_system(error)}", file=sys.stderr)
        return 2


def _of_the_system(error: OSError | MemoryError | UnicodeEncodeError) -> str:
    """In words, what files, memory or the terminal refused."""
    if isinstance(error, UnicodeEncodeError):
        return (
            f"the encoding of the output, {error.encoding}, has no "
            f"{error.object[error.start]!a}: set PYTHONUTF8=1, or write to a file"
        )
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{error.filename}: "
        return f"{where}{error.strerror or error}"
    return "there is not enough memory for this: take a smaller network, batch or table"


@contextmanager
def _warnings_as_lines(command: str) -> Iterator[None]:
    """Python's warnings as messages of the command, without the places in the source."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"fastbp {command}: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _check_environment() -> None:
    """Raises CommandError where FASTBP_ISA, FASTBP_NUM_THREADS or FASTBP_DEVICE is not valid."""
    try:
        fastbp.get_num_threads()
        devices.resolve("auto")
        _core.isas()
    except (ValueError, RuntimeError) as error:
        raise CommandError(str(error)) from error


def _refuse_lost_values(argv: Sequence[str]) -> None:
    """Raises CommandError for --option=-- where argparse drops the value, as in Python 3.12.1."""
    lost = [argument for argument in argv if re.fullmatch("--[^=]+=--", argument)]
    if not lost:
        return
    trial = argparse.ArgumentParser()
    trial.add_argument("--option")
    if trial.parse_args(["--option=--"]).option != "--":
        raise CommandError(
            f"{lost[0]}: this version of Python takes '--' for the end of the options, not for a "
            "value; name a column by its number from 0"
        )


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
