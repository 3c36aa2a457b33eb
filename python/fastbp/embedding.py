"""Embedding: a table of vectors, one for each number of a category, learned with the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import checks, initializers
from .arrays import as_numbers
from .layers import Layer
from .sequences import Sequences

if TYPE_CHECKING:
    from .arrays import Array

MOST = 2**24  # integers that float32 holds


class Embedding(Layer):
    """y = the entries table[x_0], table[x_1], ... of a row x of integers, side by side.

    First in a network. X is (n, columns) integers from 0 to input_dim - 1 (words of a text of fixed
    length, categories coded alike), y (n, columns * output_dim); a Dense layer sees the same as
    behind Keras' Embedding and Flatten. In front of recurrent layers X is (n, steps), or
    (n, steps, columns) for several integers a step.

    The table is the parameter "embeddings", (input_dim, output_dim). Its gradient is summed in the
    order of the rows; entries that a batch does not read have the gradient 0, and optimizers with
    momentum or weight decay move them all the same, as PyTorch's with sparse=False.

    Args:
        input_dim: number of entries, up to 2^24.
        output_dim: length of each.
        embeddings_initializer: where the table starts; uniform from -0.05 to 0.05, as in Keras
            (PyTorch: RandomNormal(stddev=1.0)).

    Raises TypeError and ValueError for wrong arguments. Data with other numbers raise ValueError,
    naming the first one's row and column.
    """

    draws = True
    input_dim: int
    output_dim: int
    embeddings_initializer: initializers.Initializer

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: str | initializers.Initializer = "random_uniform",
    ) -> None:
        self._set(
            input_dim=checks.integer("input_dim", input_dim, 1, MOST),
            output_dim=checks.integer("output_dim", output_dim),
            embeddings_initializer=initializers.get(
                embeddings_initializer, "embeddings_initializer"
            ),
        )

    @property
    def owns_parameters(self) -> bool:
        return True

    def specs(self) -> list[tuple[Any, ...]]:
        return [("embedding", self.input_dim, self.output_dim)]

    def title(self) -> str:
        return "Embedding"

    def outputs(self, inputs: int | None) -> int | None:
        return None if inputs is None else inputs * self.output_dim

    def parameter_shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        return {"embeddings": (self.input_dim, self.output_dim)}

    def initialize(
        self, parameters: Mapping[str, Array], sources: tuple[initializers.Source, ...]
    ) -> None:
        table = parameters["embeddings"]
        self.embeddings_initializer.fill(table, self.input_dim, self.output_dim, sources[0])


def check_entries(x: Array, layer: Embedding, name: str) -> None:
    """Raises ValueError unless all of x are integers from 0 to input_dim - 1."""
    with np.errstate(invalid="ignore"):
        right = (x >= 0) & (x < layer.input_dim) & (x == np.floor(x))
    if right.all():
        return
    index = np.unravel_index(int(np.argmin(right)), x.shape)
    names = ("row", "step", "column") if x.ndim == 3 else ("row", "column")
    place = ", ".join(f"{what} {at}" for what, at in zip(names, index, strict=True))
    raise ValueError(
        f"{name} has {x[index].item()!r} at {place}; {layer!r} takes the integers 0 to "
        f"{layer.input_dim - 1}"
    )


def one_a_step(name: str, x: Any) -> Any:
    """Sequences of one integer a step, (n, steps), as the engine reads them: (n, steps, 1)."""
    if isinstance(x, Sequences):
        return x.like(x.values[:, :, None]) if x.values.ndim == 2 else x
    array = as_numbers(name, x) if isinstance(x, (list, tuple)) else x
    return array[:, :, None] if isinstance(array, np.ndarray) and array.ndim == 2 else x
