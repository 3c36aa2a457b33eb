"""Recurrent layers: SimpleRNN, LSTM, GRU. They read sequences (batch, steps, features).

In what follows f are the features of a step and u the units. A layer's gates are blocks of u
columns of its parameters, in Keras' order. Sequences start from states of 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from . import checks, initializers
from .errors import lookup
from .layers import Layer

if TYPE_CHECKING:
    from .arrays import Array


MAX_UNITS = checks.LARGEST // 8  # four gates, two ways


class SequenceLayer(Layer):
    """A layer with parameters that needs all steps of a sequence."""

    @property
    def owns_parameters(self) -> bool:
        return True

    @property
    def reads_sequences(self) -> bool:
        return True


class Recurrent(SequenceLayer):
    """What the recurrent layers share.

    Args:
        units: width of the state and of the output, at least 1.
        return_sequences: True gives the output at every step (batch, steps, units), False that
            behind the last one (batch, units).
        go_backwards: True takes the steps from the last to the first; outputs stay at their steps.
        use_bias: False leaves the bias out.
        dropout: share of each sequence's inputs that is left out in training, the same at all steps
            (Gal and Ghahramani 2016), the others scaled by 1 / (1 - dropout).
        recurrent_dropout: the same of the state on its way into the product with recurrent_kernel.
        stateful: True lets a call of predict or step begin with the states that the last one left,
            row by row, and in fit a batch with those of the batch before; see
            Sequential.reset_states. An epoch begins with states of 0. All layers of a network with
            states are stateful, or none.
        truncate: truncated backpropagation through time: no gradient flows back across a step whose
            number is a multiple of it; 0 lets it flow through all.
        kernel_initializer, recurrent_initializer, bias_initializer: where kernel, recurrent_kernel
            and biases start, by name or as an initializer object.

    Raises ValueError for unknown names, units < 1 and rates outside 0 <= rate < 1; TypeError for
    wrong kinds.
    """

    draws = True
    gates: ClassVar[int] = 1
    two_biases: ClassVar[bool] = False
    states: ClassVar[tuple[str, ...]] = ("h",)

    units: int
    return_sequences: bool
    go_backwards: bool
    use_bias: bool
    dropout: float
    recurrent_dropout: float
    stateful: bool = False
    truncate: int
    kernel_initializer: initializers.Initializer
    recurrent_initializer: initializers.Initializer
    bias_initializer: initializers.Initializer

    def __init__(
        self,
        units: int,
        return_sequences: bool = False,
        go_backwards: bool = False,
        use_bias: bool = True,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        stateful: bool = False,
        truncate: int = 0,
        kernel_initializer: str | initializers.Initializer = "glorot_uniform",
        recurrent_initializer: str | initializers.Initializer = "orthogonal",
        bias_initializer: str | initializers.Initializer = "zeros",
    ) -> None:
        self._set(
            units=checks.integer("units", units, 1, MAX_UNITS),
            return_sequences=checks.boolean("return_sequences", return_sequences),
            go_backwards=checks.boolean("go_backwards", go_backwards),
            use_bias=checks.boolean("use_bias", use_bias),
            dropout=checks.real("dropout", dropout, 0, 1, open_high=True),
            recurrent_dropout=checks.real(
                "recurrent_dropout", recurrent_dropout, 0, 1, open_high=True
            ),
            stateful=checks.boolean("stateful", stateful),
            truncate=checks.integer("truncate", truncate, 0),
            kernel_initializer=initializers.get(kernel_initializer, "kernel_initializer"),
            recurrent_initializer=initializers.get(recurrent_initializer, "recurrent_initializer"),
            bias_initializer=initializers.get(bias_initializer, "bias_initializer"),
        )

    def cell(self) -> str:
        """The name of the layer's cell in the engine."""
        raise NotImplementedError

    def specs(self, ways: str = "one") -> list[tuple[Any, ...]]:
        wide = self.gates * self.units * (1 if ways == "one" else 2)
        scan = (self.cell(), self.units, self.use_bias, self.return_sequences, self.go_backwards)
        more = (ways, self.truncate, self.recurrent_dropout)
        inputs = [("dropout", self.dropout, True)] if self.dropout else []
        return [*inputs, ("dense", wide, self.use_bias), ("scan", *scan, *more)]

    def carries(self) -> dict[str, int]:
        return dict.fromkeys(self.states, self.units)

    @property
    def looks_ahead(self) -> bool:
        return self.go_backwards

    def title(self) -> str:
        return type(self).__name__

    def outputs(self, inputs: int | None) -> int | None:
        return self.units

    def gives_sequences(self, reads: bool) -> bool:
        return self.return_sequences

    def parameter_shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        wide = self.gates * self.units
        shapes: dict[str, tuple[int, ...]] = {"kernel": (inputs, wide)}
        if self.use_bias:
            shapes["bias"] = (wide,)
        shapes["recurrent_kernel"] = (self.units, wide)
        if self.use_bias and self.two_biases:
            shapes["recurrent_bias"] = (wide,)
        return shapes

    def initialize(
        self, parameters: Mapping[str, Array], sources: tuple[initializers.Source, ...]
    ) -> None:
        kernel, recurrent = parameters["kernel"], parameters["recurrent_kernel"]
        fans = kernel.shape[0], kernel.shape[1]
        self.kernel_initializer.fill(kernel, *fans, sources[0])
        self.recurrent_initializer.fill(recurrent, self.units, fans[1], sources[0].another())
        for name, source in (("bias", sources[1]), ("recurrent_bias", sources[1].another())):
            if name in parameters:
                self.bias_initializer.fill(parameters[name], *fans, source)


class SimpleRNN(Recurrent):
    """h = f(x W + h U + b): W (f, u) kernel, U (u, u) recurrent_kernel, b (u,) bias. Elman 1990.

    Args, besides those of Recurrent:
        activation: f, "tanh" or "relu".
    """

    activation: str

    def __init__(self, units: int, activation: str = "tanh", **arguments: Any) -> None:
        super().__init__(units, **arguments)
        lookup("activation", activation, dict.fromkeys(("tanh", "relu")))
        self._set(activation=activation)

    def cell(self) -> str:
        return f"rnn_{self.activation}"


class LSTM(Recurrent):
    """c = f c + i g and h = o tanh(c), with gates i f g o of x W + h U + b.

    i, f, o are sigmoids, g is a tanh. W (f, 4 u) kernel, U (u, 4 u) recurrent_kernel, b (4 u,)
    bias. Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 1999.

    Args, besides those of Recurrent:
        unit_forget_bias: True lets the bias of the forget gate start at 1 (Jozefowicz et al. 2015),
            as Keras does.
    """

    gates: ClassVar[int] = 4
    states: ClassVar[tuple[str, ...]] = ("h", "c")
    unit_forget_bias: bool

    def __init__(self, units: int, unit_forget_bias: bool = True, **arguments: Any) -> None:
        super().__init__(units, **arguments)
        self._set(unit_forget_bias=checks.boolean("unit_forget_bias", unit_forget_bias))

    def cell(self) -> str:
        return "lstm"

    def initialize(
        self, parameters: Mapping[str, Array], sources: tuple[initializers.Source, ...]
    ) -> None:
        super().initialize(parameters, sources)
        if self.use_bias and self.unit_forget_bias:
            parameters["bias"][self.units : 2 * self.units] = 1


class GRU(Recurrent):
    """h = z h + (1 - z) n, with gates z r n; z, r are sigmoids of x W + b + h U + d.

    n = tanh(x W + b + r (h U + d)) in its columns: the reset gate acts behind the product, as in
    PyTorch, cuDNN and Keras' reset_after. W (f, 3 u) kernel, U (u, 3 u) recurrent_kernel, b (3 u,)
    bias, d (3 u,) recurrent_bias. Cho et al. 2014.
    """

    gates: ClassVar[int] = 3
    two_biases: ClassVar[bool] = True

    def cell(self) -> str:
        return "gru"
