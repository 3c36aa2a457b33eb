"""Layers around one other layer: both directions of a recurrent one; any other at every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import initializers, regularizers
from .errors import describe, lookup
from .layers import Layer
from .recurrent import Recurrent, SequenceLayer
from .structure import Flatten, Reshape, Residual

if TYPE_CHECKING:
    from .arrays import Array


class Bidirectional(SequenceLayer):
    """A recurrent layer from first step to last, and another like it from last to first.

    Parameters: kernel (f, 2 w) and bias (2 w,), where w are the columns of the layer's own, those
    of the way forward first; recurrent_kernel, and recurrent_bias of a GRU, of the way forward, and
    the same with "backward_" of the other. Schuster and Paliwal 1997.

    Args:
        layer: a SimpleRNN, LSTM or GRU: the way forward; it says everything but the direction.
        merge_mode: "concat" puts the outputs of both ways side by side (2 units), "sum" adds them.

    Raises TypeError for another layer, ValueError for one with go_backwards or stateful, or an
    unknown merge_mode.
    """

    layer: Recurrent
    merge_mode: str
    draws = True

    def __init__(self, layer: Recurrent, merge_mode: str = "concat") -> None:
        if not isinstance(layer, Recurrent):
            raise TypeError(
                f"layer must be a recurrent layer such as LSTM(32); got {describe(layer)}"
            )
        if layer.go_backwards or layer.stateful:
            raise ValueError(
                "Bidirectional takes a layer without go_backwards and stateful: it has both "
                f"directions, and one of them begins at the end; got {layer!r}"
            )
        lookup("merge_mode", merge_mode, dict.fromkeys(("concat", "sum")))
        self._set(layer=layer, merge_mode=merge_mode)

    @property
    def looks_ahead(self) -> bool:
        return True

    def specs(self) -> list[tuple[Any, ...]]:
        return self.layer.specs(self.merge_mode)

    def carries(self) -> dict[str, int]:
        own = self.layer.carries()
        return {**own, **{f"backward_{name}": width for name, width in own.items()}}

    def title(self) -> str:
        return f"Bidirectional {self.layer.title()}"

    def outputs(self, inputs: int | None) -> int | None:
        return self.layer.units * (2 if self.merge_mode == "concat" else 1)

    def gives_sequences(self, reads: bool) -> bool:
        return self.layer.return_sequences

    def parameter_shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        own = self.layer.parameter_shapes(inputs)
        first = {n: (*s[:-1], 2 * s[-1]) for n, s in own.items() if not n.startswith("recurrent")}
        one_way = {name: shape for name, shape in own.items() if name.startswith("recurrent")}
        return {**first, **one_way, **{f"backward_{n}": shape for n, shape in one_way.items()}}

    def initialize(
        self, parameters: Mapping[str, Array], sources: tuple[initializers.Source, ...]
    ) -> None:
        wide = parameters["kernel"].shape[1] // 2
        for way, prefix in enumerate(("", "backward_")):
            columns = {
                name: parameters[name][..., way * wide : (way + 1) * wide]
                for name in ("kernel", "bias")
                if name in parameters
            }
            copies = {name: view.copy() for name, view in columns.items()}  # C-contiguous
            own = {
                name: parameters[prefix + name]
                for name in ("recurrent_kernel", "recurrent_bias")
                if name in parameters
            }
            more = tuple(source.another(2) for source in sources)
            self.layer.initialize({**copies, **own}, more if way else sources)
            for name, view in columns.items():
                view[...] = copies[name]


class TimeDistributed(SequenceLayer):
    """Another layer at every step of sequences: TimeDistributed(Dense(8)).

    Beside recurrent layers any layer does that without it; it says so, and makes a network without
    them one of sequences.

    Raises TypeError for anything but a layer, ValueError for layers that read sequences themselves,
    Residual and Flatten.
    """

    layer: Layer

    def __init__(self, layer: Layer) -> None:
        if not isinstance(layer, Layer):
            raise TypeError(f"layer must be a layer such as Dense(8); got {describe(layer)}")
        if layer.reads_sequences or isinstance(layer, (Residual, Flatten, Reshape)):
            raise ValueError(f"TimeDistributed takes a layer of rows; got {layer!r}")
        self._set(layer=layer)

    @property
    def draws(self) -> bool:  # type: ignore[override]
        return self.layer.draws

    @property
    def owns_state(self) -> bool:  # type: ignore[override]
        return self.layer.owns_state

    @property
    def owns_constants(self) -> bool:  # type: ignore[override]
        return self.layer.owns_constants

    @property
    def couples_rows(self) -> bool:  # type: ignore[override]
        return self.layer.couples_rows

    @property
    def owns_parameters(self) -> bool:
        return self.layer.owns_parameters

    def specs(self) -> list[tuple[Any, ...]]:
        return self.layer.specs()

    def title(self) -> str:
        return f"TimeDistributed {self.layer.title()}"

    def outputs(self, inputs: int | None) -> int | None:
        return self.layer.outputs(inputs)

    def parameter_shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        return self.layer.parameter_shapes(inputs)

    def initialize(
        self, parameters: Mapping[str, Array], sources: tuple[initializers.Source, ...]
    ) -> None:
        self.layer.initialize(parameters, sources)

    def regularizer(self, parameter: str) -> regularizers.Regularizer | None:
        return self.layer.regularizer(parameter)

    def column_limit(self, parameter: str) -> float | None:
        return self.layer.column_limit(parameter)

    def state_shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        return self.layer.state_shapes(inputs)

    def constants(self, inputs: int) -> dict[str, Array]:
        return self.layer.constants(inputs)

    def initialize_state(self, state: Mapping[str, Array]) -> None:
        self.layer.initialize_state(state)
