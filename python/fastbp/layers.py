"""Layers: descriptions that a Sequential turns into a network. They hold no parameters.

In what follows a batch has n rows; z is what reaches an activation, y what leaves it, elementwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from . import checks, initializers, regularizers
from .errors import describe, lookup
from .registry import ACTIVATIONS, PARAMETERS
from .spec import Spec

if TYPE_CHECKING:
    from .arrays import Array

_SOFTMAX = (
    "leave the last layer without an activation (logits), train with "
    "loss='softmax_cross_entropy', and read probabilities from model.predict_proba(X); for shares "
    "elsewhere add the layer Softmax()"
)
_HINTS = {
    "softmax": _SOFTMAX,
    "log_softmax": _SOFTMAX,
    "linear": "use 'identity', or no activation",
    "none": "use 'identity', or no activation",
    "swish": "use 'silu', the same function",
    "logistic": "use 'sigmoid', the same function",
    "hard_sigmoid": "use 'sigmoid'",
    "leakyrelu": "use 'leaky_relu'",
    "relu6": "use 'relu'",
    "gelu_new": "use 'gelu_tanh'",
}


class Layer(Spec):
    """One step of a chain of layers; rows go in, rows come out.

    draws: whether parameters start at random.
    owns_state: whether steps change more of it than its parameters.
    owns_constants: whether it brings numbers of its own, which take the state's place.
    couples_rows: whether what it makes of a row in training depends on the batch's others.
    """

    draws: ClassVar[bool] = False
    owns_state: ClassVar[bool] = False
    owns_constants: ClassVar[bool] = False
    couples_rows: ClassVar[bool] = False

    @property
    def owns_parameters(self) -> bool:
        """Whether the layer has parameters. An object that does stands in one place only."""
        return False

    @property
    def reads_sequences(self) -> bool:
        """Whether it needs all steps of a sequence; others take a step for a row."""
        return False

    @property
    def stateful(self) -> bool:
        """Whether its states go on from one call to the next."""
        return False

    @property
    def looks_ahead(self) -> bool:
        """Whether its output at a step depends on later ones."""
        return False

    def carries(self) -> dict[str, int]:
        """Width by name of the states that it takes from step to step."""
        return {}

    def specs(self) -> list[tuple[Any, ...]]:
        """The entries that the engine's constructor takes, each a kind and its arguments."""
        raise NotImplementedError

    def title(self) -> str:
        """What a summary calls the layer."""
        return str(self)

    def outputs(self, inputs: int | None) -> int | None:
        """Number of output columns for that many inputs; None where it cannot be told yet."""
        return inputs

    def gives_sequences(self, reads: bool) -> bool:
        """Whether it puts out all steps, given whether it reads sequences."""
        return reads

    def parameter_shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter by name, in the order in which the engine's block holds them."""
        return {}

    def initialize(
        self, parameters: Mapping[str, Array], sources: tuple[initializers.Source, ...]
    ) -> None:
        """Writes the start of each parameter; one source is for the first, one for the second."""

    def state_shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        """Shape of each array by name that steps change besides parameters, in order."""
        return {}

    def constants(self, inputs: int) -> dict[str, Array]:
        """The layer's own numbers by name, (inputs,) each, in the engine's order."""
        return {}

    def initialize_state(self, state: Mapping[str, Array]) -> None:
        """Writes the start of each."""

    def regularizer(self, parameter: str) -> regularizers.Regularizer | None:
        """The penalty on the parameter of that name; None for none."""
        return None

    def column_limit(self, parameter: str) -> float | None:
        """The largest norm of a column of the parameter of that name; None for any."""
        return None


class Activation(Layer):
    """y = f(z), elementwise, by name: Activation("relu"), Activation("leaky_relu", 0.2).

    Args:
        name: one of fastbp.registry.ACTIVATIONS.
        param: the one number that f may have (slope of leaky_relu, alpha of elu), not negative, so
            that the derivative can be told from y; None for the usual value.

    Raises ValueError for an unknown name, a negative parameter, or a parameter where f has none.
    """

    def __init__(self, name: str, param: float | None = None) -> None:
        default = lookup("activation", name, ACTIVATIONS, _HINTS)["default_param"]
        if param is not None and name not in PARAMETERS and default == 0:
            raise ValueError(f"activation {name!r} has no parameter; got {describe(param)}")
        value = default if param is None else checks.real(PARAMETERS.get(name, "param"), param, 0)
        self._set(name=name, param=value)

    name: str
    param: float

    def specs(self) -> list[tuple[Any, ...]]:
        return [("activation", self.name, self.param)]

    def config(self) -> dict[str, Any]:
        """The constructor arguments by name; a parameter that f does not have is left out."""
        return {
            "name": self.name,
            **({"param": self.param} if ACTIVATIONS[self.name]["default_param"] else {}),
        }

    @classmethod
    def packed_class(cls) -> str:
        return "Activation"

    def __repr__(self) -> str:
        return f"Activation({', '.join(repr(value) for value in self.config().values())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Activation) and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        return hash((self.name, self.param))


class Identity(Activation):
    """y = z."""

    def __init__(self) -> None:
        super().__init__("identity")


class ReLU(Activation):
    """y = max(z, 0); the derivative at 0 is 0."""

    def __init__(self) -> None:
        super().__init__("relu")


class LeakyReLU(Activation):
    """y = z for z > 0, negative_slope * z otherwise (Maas, Hannun and Ng 2013)."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__("leaky_relu", negative_slope)


class Sigmoid(Activation):
    """y = 1 / (1 + exp(-z))."""

    def __init__(self) -> None:
        super().__init__("sigmoid")


class Tanh(Activation):
    """y = tanh(z)."""

    def __init__(self) -> None:
        super().__init__("tanh")


class Softplus(Activation):
    """y = log(1 + exp(z))."""

    def __init__(self) -> None:
        super().__init__("softplus")


class ELU(Activation):
    """y = z for z > 0, alpha * (exp(z) - 1) otherwise.

    Clevert, Unterthiner and Hochreiter 2015.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__("elu", alpha)


class GELU(Activation):
    """y = z * Phi(z), Phi the normal distribution function (Hendrycks and Gimpel 2016).

    approximate="tanh" uses Phi(z) = (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))) / 2, as "gelu_tanh"
    does.
    """

    def __init__(self, approximate: str = "none") -> None:
        names = {"none": "gelu", "tanh": "gelu_tanh"}
        super().__init__(lookup("approximate", approximate, names))


class SiLU(Activation):
    """y = z / (1 + exp(-z)), also called swish (Elfwing, Uchibe and Doya 2017)."""

    def __init__(self) -> None:
        super().__init__("silu")


class Mish(Activation):
    """y = z * tanh(log(1 + exp(z))) (Misra 2019)."""

    def __init__(self) -> None:
        super().__init__("mish")


class Softmax(Layer):
    """y = exp(z) / sum exp(z) of each row, or of each step of sequences: shares that add up to 1.

    For shares within a network, or that another loss than the cross-entropy compares: of classes
    softmax_cross_entropy takes the logits, without this layer, and predict_proba gives the shares.
    A row whose elements are all -inf gives NaN, as in PyTorch.
    """

    def __init__(self) -> None:
        self._set()

    def specs(self) -> list[tuple[Any, ...]]:
        return [("softmax",)]

    def title(self) -> str:
        return "Softmax"


class Dense(Layer):
    """y = f(x @ kernel + bias).

    x is (n, inputs), kernel (inputs, units), bias (units,), y (n, units).

    Args:
        units: number of outputs, at least 1.
        activation: f, by name or as an activation layer; None for the identity.
        use_bias: False leaves the bias out.
        kernel_initializer, bias_initializer: where the parameters start, by name or as an
            initializer object (fastbp.initializers).
        kernel_regularizer: a penalty on the kernel that is added to the loss, such as L2(1e-4)
            (fastbp.regularizers); None for none.
        max_norm: the largest Euclidean norm of a unit's incoming weights kernel[:, j], above 0:
            after each update a column that is longer is scaled down to it, as torch.renorm does
            (Srebro and Shraibman 2005; with dropout Srivastava et al. 2014). None for any norm.
            Biases are free; a frozen layer keeps its weights.

    Raises ValueError for unknown names, units < 1 and max_norm <= 0, TypeError for wrong kinds.
    """

    draws = True
    units: int
    activation: Activation | None
    use_bias: bool
    kernel_initializer: initializers.Initializer
    bias_initializer: initializers.Initializer
    kernel_regularizer: regularizers.Regularizer | None
    max_norm: float | None

    def __init__(
        self,
        units: int,
        activation: str | Activation | None = None,
        use_bias: bool = True,
        kernel_initializer: str | initializers.Initializer = "glorot_uniform",
        bias_initializer: str | initializers.Initializer = "zeros",
        kernel_regularizer: str | regularizers.Regularizer | None = None,
        max_norm: float | None = None,
    ) -> None:
        if max_norm is not None:
            max_norm = checks.real("max_norm", max_norm, 0, open_low=True)
        if isinstance(activation, Softmax):
            raise ValueError(f"Softmax() is a layer of its own, not elementwise: {_SOFTMAX}")
        if not (activation is None or isinstance(activation, Activation)):
            activation = Activation(activation)
        self._set(
            units=checks.integer("units", units),
            activation=activation,
            use_bias=checks.boolean("use_bias", use_bias),
            kernel_initializer=initializers.get(kernel_initializer, "kernel_initializer"),
            bias_initializer=initializers.get(bias_initializer, "bias_initializer"),
            kernel_regularizer=regularizers.get(kernel_regularizer),
            max_norm=max_norm,
        )

    def config(self) -> dict[str, Any]:
        """The constructor arguments by name; a regularizer or a limit that is None is left out."""
        own = super().config()
        for name in ("kernel_regularizer", "max_norm"):
            if own[name] is None:
                del own[name]
        return own

    def regularizer(self, parameter: str) -> regularizers.Regularizer | None:
        return self.kernel_regularizer if parameter == "kernel" else None

    def column_limit(self, parameter: str) -> float | None:
        return self.max_norm if parameter == "kernel" else None

    def specs(self) -> list[tuple[Any, ...]]:
        dense = ("dense", self.units, self.use_bias)
        return [dense] if self.activation is None else [dense, *self.activation.specs()]

    @property
    def owns_parameters(self) -> bool:
        return True

    def title(self) -> str:
        return "Dense" + (f" {self.activation.name}" if self.activation else "")

    def outputs(self, inputs: int | None) -> int:
        return self.units

    def parameter_shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        bias = {"bias": (self.units,)} if self.use_bias else {}
        return {"kernel": (inputs, self.units), **bias}

    def initialize(
        self, parameters: Mapping[str, Array], sources: tuple[initializers.Source, ...]
    ) -> None:
        kernel = parameters["kernel"]
        fans = (kernel.shape[0], kernel.shape[1])
        self.kernel_initializer.fill(kernel, *fans, sources[0])
        if self.use_bias:
            self.bias_initializer.fill(parameters["bias"], *fans, sources[1])


class Dropout(Layer):
    """In training y = x / (1 - rate), or 0 with probability `rate`; otherwise y = x.

    What is left out follows from the model's seed, the step, the layer, the row's place in the
    batch and the column: the same on every device and for any number of threads, and another in
    every step. Srivastava et al. 2014, scaled in training ("inverted") as Keras and PyTorch do.

    Args:
        rate: share of the elements that are left out, 0 <= rate < 1; counts in steps of 2^-23.

    Raises ValueError for a rate outside, TypeError for no number.
    """

    rate: float

    def __init__(self, rate: float) -> None:
        self._set(rate=checks.real("rate", rate, 0, 1, open_high=True))

    def specs(self) -> list[tuple[Any, ...]]:
        return [("dropout", self.rate)]
