"""What `predict` and `evaluate` share: the model file, its description of columns, the rows."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import numpy.typing as npt

from . import arguments as kinds
from .columns import Description
from .errors import CommandError
from .table import Table, read_table

Outputs = npt.NDArray[Any]
METADATA_KEY = "fastbp_table"  # in Sequential.metadata


def add_table_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--delimiter",
        type=kinds.delimiter,
        default=",",
        metavar="CHAR",
        help="between the cells; 'tab' for tabs (default: a comma)",
    )
    parser.add_argument(
        "--unknown",
        choices=["error", "zeros"],
        default="error",
        help="a category never seen in training: stop (default), or treat as none of the known",
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu or reference")


def load_model(path: str, device: str) -> tuple[Any, Description]:
    """The model and the description of its columns. Raises CommandError."""
    model = open_model(path, device)
    description = Description.from_text(model.metadata.get(METADATA_KEY), path)
    wanted, found = (description.width, description.target.outputs), (model.inputs, model.outputs)
    if found != wanted:
        raise CommandError(
            f"{path}: its network takes {found[0]} inputs to {found[1]} outputs, but its "
            f"description of the columns asks for {wanted[0]} and {wanted[1]}: its layers were "
            f"changed since 'fastbp train'. Use it from Python: fastbp.load({path!r}).predict(X)"
        )
    return model, description


def open_model(path: str, device: str) -> Any:
    """Any saved model. Raises CommandError."""
    import fastbp as bp

    try:
        return bp.load(path, device=device)
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, TypeError, RuntimeError) as error:
        raise CommandError(f"cannot load {path}: {error}") from error


def read_rows(arguments: argparse.Namespace, description: Description) -> Table:
    return read_table(arguments.file, header=description.has_header, delimiter=arguments.delimiter)


def model_outputs(model: Any, description: Description, table: Table, unknown: str) -> Outputs:
    """(rows, outputs) for the rows of a table. Raises CommandError where one is not finite."""
    outputs: Outputs = model.predict(description.encode(table, unknown))
    wrong = np.flatnonzero(~np.isfinite(outputs).all(axis=1))
    if wrong.size:
        raise CommandError(
            f"{table.path}, line {table.lines[wrong[0]]}: the network's output is not finite. A "
            "number in this row is far from all that the network was trained on"
        )
    return outputs
