"""`fastbp train`: fit a network to a CSV file, from raw cells to a saved model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import text
from . import arguments as kinds
from . import config
from .columns import MISSING_VALUE, Description, Rows, choose_task, learn_column, learn_target
from .errors import CommandError
from .modelfile import METADATA_KEY
from .scores import scores
from .table import Table, read_table, shortened

DESCRIPTION = """\
Fit a neural network to a CSV file. Number columns are standardised, text columns become one input
per value; both are learned from the training rows only and kept in the model file, so that
'fastbp predict' and 'fastbp evaluate' prepare new rows in the same way.

The task follows from the target column: text, or few different whole numbers, are classes; other
numbers are quantities (regression). --task overrules it.
"""
EXAMPLES = """\
examples:
  fastbp train iris.csv --target species
  fastbp train houses.csv --target price --output houses.safetensors --epochs 200
  fastbp train wine.csv --target quality --task regression --hidden 128,64
  fastbp train table.csv --target 4 --no-header --drop 0 --categorical 2
  fastbp train data.csv --target y --hidden none        a linear model
  fastbp train data.csv --target y --early-stopping 20 --validation later.csv
  fastbp train data.csv --config settings.toml          target = "y", hidden = [64, 32], ...
"""


@dataclass(frozen=True)
class Parts:
    """Encoded inputs and targets of the training and the validation rows."""

    train_inputs: npt.NDArray[np.float64]
    train_targets: npt.NDArray[Any]
    validation_inputs: npt.NDArray[np.float64]
    validation_targets: npt.NDArray[Any]


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="fit a network to a CSV file",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE.csv", help="rows with inputs and the right answers")
    parser.add_argument(
        "--target",
        metavar="COL",
        required=True,
        help="column to predict: a name or a number from 0",
    )
    parser.add_argument(
        "--output",
        metavar="MODEL",
        type=kinds.output_path,
        help="model file to write (default: FILE.safetensors in this folder)",
    )
    parser.add_argument(config.OPTION, metavar="FILE", help=config.HELP)
    _add_table_arguments(parser)
    _add_network_arguments(parser)
    _add_fit_arguments(parser)
    parser.set_defaults(run=run)


def _add_table_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the table")
    group.add_argument(
        "--task",
        choices=["auto", "regression", "binary", "multiclass"],
        default="auto",
        help="what to predict (default: auto, from the target column)",
    )
    group.add_argument(
        "--drop",
        metavar="COL,..",
        type=kinds.names,
        default=[],
        help="columns to leave out; a name that has a comma stands in double quotes",
    )
    group.add_argument(
        "--categorical",
        metavar="COL,..",
        type=kinds.names,
        default=[],
        help="number columns to treat as categories, such as postcodes",
    )
    group.add_argument("--no-header", action="store_true", help="the first line is data already")
    group.add_argument(
        "--delimiter",
        type=kinds.delimiter,
        default=",",
        metavar="CHAR",
        help="between the cells; 'tab' for tabs (default: a comma)",
    )
    group.add_argument(
        "--validation-split",
        type=kinds.fraction,
        default=0.2,
        metavar="SHARE",
        help="share of the rows, drawn at random, kept out of training (default: 0.2)",
    )
    group.add_argument(
        "--validation",
        type=kinds.file_or_share,
        metavar="FILE.csv",
        help="rows to validate on, in the place of a share of the others; a number is that share",
    )
    group.add_argument(
        "--missing",
        choices=["error", "fill"],
        default="error",
        help="empty cells: stop and name the first (default), or fill in the column's median, or "
        f"{MISSING_VALUE!r} for a category",
    )


def _add_network_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the network")
    group.add_argument(
        "--hidden",
        type=kinds.widths,
        default=[64, 32],
        metavar="N,..",
        help="widths of the hidden layers, or none (default: 64,32)",
    )
    group.add_argument(
        "--activation",
        default="relu",
        metavar="NAME",
        help="of the hidden layers, such as relu, tanh, gelu, silu (default: relu)",
    )
    kinds.add_device_and_dtype(group)


def _add_fit_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the training")
    group.add_argument("--epochs", type=kinds.positive_int, default=100, help="default: 100")
    group.add_argument(
        "--early-stopping",
        type=kinds.positive_int,
        metavar="N",
        help="stop after N epochs without a lower validation loss, and keep the best",
    )
    group.add_argument("--batch-size", type=kinds.positive_int, default=32, help="default: 32")
    group.add_argument(
        "--optimizer",
        default="adam",
        metavar="NAME",
        help="such as adam, adamw, sgd, rmsprop, adagrad (default: adam)",
    )
    group.add_argument(
        "--learning-rate",
        type=kinds.positive_float,
        metavar="RATE",
        help="step size (default: the optimizer's own)",
    )
    group.add_argument(
        "--seed",
        type=kinds.seed,
        default=0,
        help="of the split, the start and the order of rows: same seed, same result (default: 0)",
    )


def run(arguments: argparse.Namespace) -> int:
    output = _output(arguments)
    table = read_table(
        arguments.file, header=not arguments.no_header, delimiter=arguments.delimiter
    )
    target_index = _target_index(table, arguments.target)
    task = arguments.task if arguments.task != "auto" else choose_task(table, target_index)
    classes = None if task == "regression" else table.cells(target_index, target=True)
    if isinstance(arguments.validation, float):
        arguments.validation_split, arguments.validation = arguments.validation, None
    share = 0.0 if arguments.validation else arguments.validation_split
    training, validation = split(len(table), share, arguments.seed, classes)
    if arguments.early_stopping and not (arguments.validation or len(validation)):
        raise CommandError("--early-stopping needs rows to validate on: --validation FILE.csv")
    description = _learn(table, target_index, training, task, arguments)
    parts = _encode(table, description, target_index, training, validation)
    if arguments.validation:
        parts = _with_validation(parts, description, arguments)
    model = _build(description, arguments)
    _print_summary(table, description, parts, arguments)
    _note_unseen(table, description, validation)
    _fit(model, parts, arguments)
    _print_scores(model, description, parts)
    _save(model, description, output)
    return 0


def _output(arguments: argparse.Namespace) -> Path:
    """Where the model goes."""
    output: Path = arguments.output or Path(Path(arguments.file).stem + ".safetensors")
    kinds.refuse_to_overwrite(output, arguments.file, arguments.validation, arguments.config)
    return output


def _target_index(table: Table, target: str) -> int:
    try:
        return table.index(target)
    except CommandError as error:
        if len(table.names) == 1 and any(mark in table.names[0] for mark in ";\t|"):
            raise CommandError(
                f"{error}\nThe cells may be separated by something other than a comma: "
                "try --delimiter ';' or --delimiter tab"
            ) from None
        raise


def split(
    rows: int, share: float, seed: int, classes: Sequence[str] | None = None
) -> tuple[Rows, Rows]:
    """Row numbers for training and for validation, drawn at random; at least one to train.

    With classes, each has about the same share of both: rows are drawn at equal distances from the
    shuffled rows, sorted by class.
    """
    order = np.random.default_rng(seed).permutation(rows)
    if classes is not None:
        order = order[np.argsort(np.asarray(classes)[order], kind="stable")]
    count = min(round(rows * share), rows - 1)
    chosen = np.zeros(rows, dtype=bool)
    chosen[order[((np.arange(count) + 0.5) * rows / max(count, 1)).astype(np.int64)]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _learn(
    table: Table, target_index: int, training: Rows, task: str, arguments: argparse.Namespace
) -> Description:
    dropped = {table.index(name) for name in arguments.drop}
    categorical = {table.index(name) for name in arguments.categorical}
    positions = [i for i in range(len(table.names)) if i != target_index and i not in dropped]
    if not positions:
        raise CommandError(
            f"{table.path} has no column left to learn from: it has {shortened(table.names)}, "
            f"of which {table.names[target_index]!r} is the target"
        )
    target = learn_target(table, target_index, training, task)
    columns = tuple(
        learn_column(table, i, training, i in categorical, arguments.missing == "fill")
        for i in positions
    )
    return Description(columns, target, table.has_header, tuple(positions))


def _encode(
    table: Table, description: Description, target_index: int, training: Rows, validation: Rows
) -> Parts:
    """Validation rows may hold a category that no training row has: it becomes zeros."""
    inputs = description.encode(table, "zeros")
    targets = description.target.encode(table, target_index)
    return Parts(inputs[training], targets[training], inputs[validation], targets[validation])


def _with_validation(
    parts: Parts, description: Description, arguments: argparse.Namespace
) -> Parts:
    """The rows of --validation in the place of the split's."""
    header, delimiter = not arguments.no_header, arguments.delimiter
    rows = read_table(arguments.validation, header=header, delimiter=delimiter)
    targets = description.target.encode(rows, rows.index(description.target.name))
    return replace(
        parts, validation_inputs=description.encode(rows, "zeros"), validation_targets=targets
    )


def _build(description: Description, arguments: argparse.Namespace) -> Any:
    import fastbp as bp

    target = description.target
    loss = {
        "regression": "mse",
        "binary": "binary_cross_entropy_with_logits",
        "multiclass": "softmax_cross_entropy",
    }[target.task]
    try:
        layers = [bp.Dense(width, activation=arguments.activation) for width in arguments.hidden]
        model = bp.Sequential([*layers, bp.Dense(target.outputs)], seed=arguments.seed)
        model.compile(
            optimizer=_optimizer(arguments),
            loss=loss,
            metrics=[] if target.task == "regression" else ["accuracy"],
            device=arguments.device,
            dtype=arguments.dtype,
        )
        model.build(description.width)
    except (ValueError, TypeError, RuntimeError) as error:
        raise CommandError(str(error)) from error
    return model


def _optimizer(arguments: argparse.Namespace) -> Any:
    from fastbp import optimizers

    optimizer, rate = optimizers.get(arguments.optimizer), arguments.learning_rate
    if rate is not None and isinstance(optimizer, optimizers.LBFGS):
        raise CommandError("--optimizer lbfgs finds its steps itself: leave out --learning-rate")
    return optimizer if rate is None else optimizers.get(optimizer, learning_rate=rate)


def _print_summary(
    table: Table, description: Description, parts: Parts, arguments: argparse.Namespace
) -> None:
    numbers = [column.name for column in description.columns if not column.values]
    categories = [
        f"{column.name} ({len(column.values)})" for column in description.columns if column.values
    ]
    columns = f"{text.plural(len(numbers), 'number column')}: {', '.join(numbers[:8])}" + (
        f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    )
    if categories:
        columns += f"\n{len(categories)} of categories: {', '.join(categories[:8])}"
    text.line("data", f"{table.path}: {text.plural(len(table), 'row')}\n{columns}")
    target = description.target
    classes = f", {len(target.classes)} classes: {shortened(target.classes)}" * bool(target.classes)
    text.line("target", f"{target.name}: {target.task}{classes}")
    text.line(
        "split",
        f"{len(parts.train_inputs)} rows to train, {len(parts.validation_inputs)} to validate",
    )
    sizes = [description.width, *arguments.hidden, target.outputs]
    text.line("network", f"{'-'.join(map(str, sizes))}, {arguments.activation}, {arguments.dtype}")


def _note_unseen(table: Table, description: Description, validation: Rows) -> None:
    """Says which validation rows hold a category that no training row has."""
    for column, index in zip(description.columns, description.positions, strict=True):
        if not column.values:
            continue
        cells = table.cells(index, column.fill)
        unseen = [row for row in validation if cells[row] not in column.values]
        if unseen:
            text.line(
                "note",
                f"{column.name}: {text.plural(len(unseen), 'validation row')} with a value that no "
                "training row has",
            )


def _fit(model: Any, parts: Parts, arguments: argparse.Namespace) -> None:
    from fastbp import EarlyStopping

    validation = (parts.validation_inputs, parts.validation_targets)
    patience = arguments.early_stopping
    stop = EarlyStopping(patience=patience) if patience else None
    try:
        model.fit(
            parts.train_inputs,
            parts.train_targets,
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            validation_data=validation if len(parts.validation_inputs) else None,
            verbose=1,
            callbacks=stop,
        )
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        raise CommandError(str(error)) from error
    if not all(np.isfinite(values).all() for values in model.parameters().values()):
        raise CommandError(
            "training has diverged, and nothing is saved: pass a smaller --learning-rate"
        )
    if stop is not None:
        text.line("epochs", f"{model.epochs_trained}; the best, {stop.best_epoch + 1}, is kept")


def _print_scores(model: Any, description: Description, parts: Parts) -> None:
    target = description.target
    columns = [
        ("training", parts.train_inputs, parts.train_targets),
        ("validation", parts.validation_inputs, parts.validation_targets),
    ]
    measured = {
        name: scores(target, model.predict(inputs), right)
        for name, inputs, right in columns
        if len(inputs)
    }
    names = dict.fromkeys(name for column in measured.values() for name in column)
    rows = [[name, *(_figure(column.get(name)) for column in measured.values())] for name in names]
    print(text.table([["", *measured], *rows]))


def _figure(score: float | None) -> str:
    """A score as text; there is no R2 of answers that are all the same."""
    return "-" if score is None else f"{score:.5g}"


def _save(model: Any, description: Description, path: Path) -> None:
    try:
        model.save(path, metadata={METADATA_KEY: description.to_text()})
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}") from error
    text.line("saved", str(path))
    text.line("next", f"fastbp predict {path} NEW.csv")
