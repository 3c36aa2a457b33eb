"""`fastbp explain`: one training step as a hand calculation."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import arguments as kinds
from .errors import CommandError
from .modelfile import add_table_options, load_model, open_model, read_rows

DESCRIPTION = """\
Lay out one training step as one would calculate it by hand: every z and a, the loss, delta, dW and
db of every layer, and the weights after the update; means and variances of norms, the gates of
recurrent layers step by step. For the worked examples of the source articles, for a model of
'fastbp train' and rows of its CSV file, or for any saved model with --x and --y. Nothing is
changed; the arithmetic is float64 in plain NumPy.
"""
EXAMPLES_TEXT = """\
examples:
  fastbp explain                                       lists the worked examples
  fastbp explain s0_4.3_two_layers
  fastbp explain iris.safetensors iris.csv --row 3     row 1 is the first below the header
  fastbp explain iris.safetensors iris.csv --row 3-6   as one batch
  fastbp explain net.safetensors --x=-1,2 --y 0        = is for a minus in front
  fastbp explain net.safetensors --x "1,2;3,4" --y "0;1"
                                   two rows; of recurrent layers one sequence of two steps
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "explain",
        help="one training step as a hand calculation",
        description=DESCRIPTION,
        epilog=EXAMPLES_TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", metavar="EXAMPLE|MODEL", nargs="?", help="what to explain")
    parser.add_argument("file", metavar="FILE.csv", nargs="?", help="rows with the right answers")
    parser.add_argument(
        "--row",
        metavar="N[-M]",
        type=kinds.row_range,
        default=range(1, 2),
        help="of FILE.csv, or several as a batch; default: 1",
    )
    parser.add_argument("--x", metavar="N,..[;..]", type=kinds.rows, help="the inputs")
    parser.add_argument("--y", metavar="N,..[;..]", type=kinds.rows, help="the targets")
    add_table_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from ..worked_examples import EXAMPLES

    if arguments.what is None:
        for name, example in EXAMPLES.items():
            print(f"{name:<21} {example.about}")
        return 0
    if arguments.what in EXAMPLES:
        example = EXAMPLES[arguments.what]
        model, x, y = example.model(), list(example.x), list(example.y)
    elif Path(arguments.what).exists():
        model, x, y = _of_model(arguments)
    else:
        raise CommandError(
            f"{arguments.what} is no file and no worked example; those are: {', '.join(EXAMPLES)}"
        )
    try:
        print(model.explain(x, y))
    except (ValueError, TypeError, RuntimeError) as error:
        raise CommandError(str(error)) from error
    return 0


def _of_model(arguments: argparse.Namespace) -> tuple[Any, Any, Any]:
    """The saved model, inputs and targets."""
    if arguments.x is not None or arguments.y is not None:
        if arguments.x is None or arguments.y is None or arguments.file is not None:
            raise CommandError("give --x and --y together, or a CSV file")
        y = arguments.y
        if isinstance(y[0], list) and len(y[0]) == 1:
            y = [row[0] for row in y]  # a number, or the number of a class, for each
        return open_model(arguments.what, arguments.device), arguments.x, y
    if arguments.file is None:
        raise CommandError("give a CSV file with rows, or --x and --y")
    model, description = load_model(arguments.what, arguments.device)
    rows = read_rows(arguments, description)
    last = arguments.row[-1]
    if last > len(rows):
        raise CommandError(f"--row {last}: {arguments.file} has {len(rows)} rows")
    places = slice(arguments.row[0] - 1, last)
    inputs = description.encode(rows, arguments.unknown)[places]
    targets = description.target.encode(rows, rows.index(description.target.name))[places]
    return (model, inputs[0], targets[0]) if len(inputs) == 1 else (model, inputs, targets)
