"""`fastbp predict`: apply a model written by `fastbp train` to the rows of a CSV file."""

from __future__ import annotations

import argparse
import csv
import sys
from typing import IO, Any

from .. import text
from . import arguments as kinds
from .arguments import refuse_to_overwrite
from .modelfile import add_table_options, load_model, model_outputs, read_rows
from .scores import predictions

DESCRIPTION = """\
Predict the target of every row of a CSV file with a model written by 'fastbp train'. The columns
are found by name and prepared as they were in training; other columns are ignored. Classes come
with one probability each.
"""
EXAMPLES = """\
examples:
  fastbp predict iris.safetensors new.csv                       to the screen
  fastbp predict iris.safetensors new.csv --output labels.csv   to a file
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "predict",
        help="predict the rows of a CSV file",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="file written by fastbp train")
    parser.add_argument("file", metavar="FILE.csv", help="rows to predict")
    parser.add_argument(
        "--output",
        metavar="OUT.csv",
        type=kinds.output_path,
        help="where to write the predictions (default: the screen)",
    )
    add_table_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.output is not None:
        refuse_to_overwrite(arguments.output, arguments.model, arguments.file)
    model, description = load_model(arguments.model, arguments.device)
    rows = read_rows(arguments, description)
    outputs = model_outputs(model, description, rows, arguments.unknown)
    header, lines = predictions(description.target, outputs)
    if arguments.output is None:
        _write(sys.stdout, header, lines)
    else:
        with arguments.output.open("w", newline="", encoding="utf-8") as file:
            _write(file, header, lines)
        text.line("saved", f"{text.plural(len(rows), 'prediction')} to {arguments.output}")
    return 0


def _write(file: IO[str], header: list[str], lines: list[list[str]]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
