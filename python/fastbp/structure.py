"""Layers that change how values flow: Residual, Flatten, Reshape, Masking."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from . import checks
from .arrays import as_numbers
from .embedding import Embedding
from .errors import describe
from .layers import Layer
from .sequences import Sequences


class Residual(Layer):
    """y = x + f(x), where f is a chain of layers with as many outputs as inputs (He et al. 2015).

    Parameters are named by their place inside: "2.0.kernel" is the kernel of the first layer of a
    Residual in place 2. What comes behind, such as an activation, is a layer of its own.

    Args:
        layers: the chain, at least one layer; Residual among them is allowed.

    Raises TypeError if `layers` holds anything but layers, ValueError if there are none, or if one
    with parameters stands there twice; ValueError when the widths are known and differ.
    """

    layers: tuple[Layer, ...]

    def __init__(self, layers: Iterable[Layer]) -> None:
        if isinstance(layers, Layer) or not isinstance(layers, Iterable):
            raise TypeError(f"layers must be a list: write Residual([...]); got {layers!r}")
        chain = tuple(layers)
        for layer in chain:
            if not isinstance(layer, Layer):
                raise TypeError(f"layers must be layer objects; got {describe(layer)}")
            if isinstance(layer, (Flatten, Reshape)):
                kind = type(layer).__name__
                raise ValueError(f"{kind} stands first in a network, not inside a Residual")
        if not chain:
            raise ValueError("Residual needs at least one layer; got none")
        self._set(layers=chain)
        owners = list(owning(chain))
        if len(owners) != len(set(map(id, owners))):
            raise ValueError(
                "the same object appears twice in a Residual; layers share no weights here: make "
                "one object for each"
            )

    def specs(self) -> list[tuple[Any, ...]]:
        inside = [spec for layer in self.layers for spec in layer.specs()]
        return [*inside, ("add", len(inside))]

    def outputs(self, inputs: int | None) -> int | None:
        width = inputs
        for layer in self.layers:
            width = layer.outputs(width)
        if inputs is not None and width != inputs:
            raise ValueError(
                f"Residual adds its {inputs} inputs to what its layers make of them, which has "
                f"{width} columns: end it in Dense({inputs})"
            )
        return width

    def title(self) -> str:
        return "Residual"

    @property
    def reads_sequences(self) -> bool:
        return any(layer.reads_sequences for layer in self.layers)

    @property
    def stateful(self) -> bool:
        return any(layer.stateful for layer in self.layers)

    @property
    def looks_ahead(self) -> bool:
        return any(layer.looks_ahead for layer in self.layers)

    def gives_sequences(self, reads: bool) -> bool:
        if sequences_behind(self.layers, reads) != reads:
            raise ValueError(
                "Residual adds its input, with all steps, to what its layers make of it, which is "
                "the last step only: give the recurrent layer in it return_sequences=True"
            )
        return reads


class Flatten(Layer):
    """Takes rows of any shape as rows of numbers: X (n, 28, 28) as (n, 784), in C order.

    First in a network, or behind an Embedding, whose entries lie side by side already: there it
    changes nothing. No parameters, no copy where X is C-contiguous.
    """

    def specs(self) -> list[tuple[Any, ...]]:
        return []

    def gives_sequences(self, reads: bool) -> bool:
        if reads:
            raise ValueError(
                "Flatten makes one row of what recurrent layers read step by step: leave it out"
            )
        return reads


class Reshape(Layer):
    """Takes rows of numbers in another shape: X (n, 64) as (n, 8, 8), in C order.

    First in a network. (steps, features) is what recurrent layers read; one number is a row of so
    many, as Flatten makes it. No parameters, no copy where X is C-contiguous. Where sequences have
    lengths of their own give X as (n, steps, features) instead.

    Args:
        target_shape: that of a row, one or two integers; one of them may be -1.

    Raises TypeError and ValueError for another shape.
    """

    target_shape: tuple[int, ...]

    def __init__(self, target_shape: Iterable[int]) -> None:
        given: object = target_shape
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise TypeError(f"target_shape must be integers; got {describe(target_shape)}")
        shape = tuple(checks.integer("target_shape", size, -1) for size in target_shape)
        if not 1 <= len(shape) <= 2 or 0 in shape or shape.count(-1) > 1:
            raise ValueError(
                "target_shape must be (columns,) or (steps, features), one of which may be -1; got "
                f"{shape}"
            )
        self._set(target_shape=shape)

    def specs(self) -> list[tuple[Any, ...]]:
        return []

    def rows(self, x: Any, name: str, sequences: bool) -> Any:
        """x, (n, ...), with its rows in the layer's shape, for layers that read sequences or not.

        Raises ValueError where that is not their shape, or x has not as many numbers.
        """
        if sequences != (len(self.target_shape) == 2):
            wanted = "(steps, features)" if sequences else "(columns,)"
            raise ValueError(f"the layers behind {self!r} read rows of {wanted}")
        array = as_numbers(name, x)
        try:
            return array.reshape(len(array), *self.target_shape)
        except (ValueError, TypeError):
            raise ValueError(
                f"{name} has shape {array.shape}; {self!r} cannot make rows of its rows"
            ) from None


class Masking(Layer):
    """Takes steps of which every number is mask_value for padding behind the end of a sequence.

    First in a network, whose X then is (n, steps, features): each sequence ends behind its last
    step that is no padding, as with `lengths`, and so do targets of every step. No parameters.
    Where X has lengths of its own (Sequences, or lengths=), these count.

    Keras' Masking leaves steps out anywhere; here padding stands at the end, and ValueError names a
    sequence with a step of mask_value in front of others, or with none else.

    Raises TypeError and ValueError where mask_value is no finite number.
    """

    mask_value: float

    def __init__(self, mask_value: float = 0.0) -> None:
        self._set(mask_value=checks.real("mask_value", mask_value))

    @property
    def reads_sequences(self) -> bool:
        return True

    def specs(self) -> list[tuple[Any, ...]]:
        return []

    def sequences(self, x: Any, name: str) -> Any:
        """x (n, steps, features) with the ends found; of another shape as it is, to be refused."""
        values = as_numbers(name, x)
        if values.ndim != 3 or 0 in values.shape:
            return values
        counts = (values != self.mask_value).any(axis=2)
        lengths = counts.shape[1] - counts[:, ::-1].argmax(axis=1)
        for row in np.flatnonzero(counts.sum(axis=1) != lengths)[:1]:
            if not counts[row].any():
                raise ValueError(f"every step of {name}[{row}] is {self.mask_value:g}: no sequence")
            step = int(counts[row].argmin())
            raise ValueError(
                f"{name}[{row}] has step {step} of {self.mask_value:g} in front of others: padding "
                "stands behind the end of a sequence"
            )
        return Sequences(values, lengths)


def require_order(layers: Sequence[Layer]) -> None:
    """Raises ValueError where a layer that stands first in a network does not."""
    for name, layer in leaves(layers):
        if isinstance(layer, (Reshape, Masking)) and name != "0":
            raise ValueError(f"{type(layer).__name__} stands first in a network")
        if isinstance(layer, Flatten) and name != "0" and not _behind_embedding(layers, name):
            raise ValueError(
                "Flatten stands first in a network, or behind an Embedding: rows are flat elsewhere"
            )
        before = layers[: int(name.split(".")[0])]
        first = "." not in name and all(isinstance(other, Flatten) for other in before)
        if isinstance(layer, Embedding) and not first:
            raise ValueError(
                "Embedding stands first in a network: what it reads are numbers of entries"
            )


def _behind_embedding(layers: Sequence[Layer], name: str) -> bool:
    return "." not in name and isinstance(layers[int(name) - 1], Embedding)


def leaves(layers: Iterable[Layer], prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """Every layer by its name, those inside of others ("2.0") after the layer that holds them."""
    for place, layer in enumerate(layers):
        name = f"{prefix}{place}"
        yield name, layer
        if isinstance(layer, Residual):
            yield from leaves(layer.layers, f"{name}.")


def owning(layers: Iterable[Layer]) -> Iterator[Layer]:
    """Those with parameters or state, inside of others too."""
    for _, layer in leaves(layers):
        if layer.owns_parameters or layer.owns_state:
            yield layer


def sequences_behind(layers: Iterable[Layer], sequences: bool) -> bool:
    """Whether the last of the layers puts out all steps, given whether the first reads sequences.

    Raises ValueError where a layer needs sequences and the one before puts out the last step only.
    """
    for index, layer in enumerate(layers):
        if layer.reads_sequences and not sequences:
            raise ValueError(
                f"layer {index}, {layer.title()}, reads sequences, but what stands before it puts "
                "out the last step only: give the recurrent layer before it return_sequences=True"
            )
        sequences = layer.gives_sequences(sequences)
    return sequences
