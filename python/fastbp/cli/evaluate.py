"""`fastbp evaluate`: how well a model written by `fastbp train` does on a CSV file."""

from __future__ import annotations

import argparse
import json
from typing import Any

from .. import text
from .modelfile import add_table_options, load_model, model_outputs, read_rows
from .scores import by_class, class_report, confusion, scores

DESCRIPTION = """\
Compare a model's predictions with the target column of a CSV file. Classes: accuracy and loss;
precision, recall and F1 of each class; the confusion matrix. Regression: root mean square error,
mean absolute error and R2, in the target's own units.
"""
EXAMPLES = """\
examples:
  fastbp evaluate iris.safetensors held_out.csv
  fastbp evaluate iris.safetensors held_out.csv --target true_species
  fastbp evaluate iris.safetensors held_out.csv --json
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure a model on a CSV file",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="file written by fastbp train")
    parser.add_argument("file", metavar="FILE.csv", help="rows with the right answers")
    parser.add_argument(
        "--target", metavar="COL", help="the column with the right answers (default: as trained)"
    )
    parser.add_argument("--json", action="store_true", help="print the scores as JSON")
    add_table_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    model, description = load_model(arguments.model, arguments.device)
    rows = read_rows(arguments, description)
    target = description.target
    right = target.encode(rows, rows.index(arguments.target or target.name))
    outputs = model_outputs(model, description, rows, arguments.unknown)
    measured = scores(target, outputs, right)
    if arguments.json:
        report = {"rows": len(rows), "task": target.task, **measured}
        if target.task != "regression":
            report["classes"], report["macro_average"] = by_class(target, outputs, right)
        print(json.dumps(report, indent=2))
        return 0
    text.line("data", f"{arguments.file}: {text.plural(len(rows), 'row')}, target {target.name}")
    print(text.table([[name, f"{value:.6g}"] for name, value in measured.items()], indent=0))
    if target.task != "regression":
        print(class_report(target, outputs, right))
    if target.task != "regression" and len(target.classes) <= 12:
        print(confusion(target, outputs, right))
    return 0
