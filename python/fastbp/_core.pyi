"""The compiled extension. Arrays reach it validated (fastbp.arrays); it checks layout and range
once more.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[Any]  # float32 or float64; one dtype per call
DTypeName = Literal["float32", "float64", "bfloat16"]
LayerSpec = tuple[Any, ...]  # a kind and its arguments

class ActivationEntry(TypedDict):
    name: str
    saves: Literal["none", "input", "output"]
    default_param: float

class LossEntry(TypedDict):
    name: str
    parameter: str
    default_param: float
    param_high: float
    targets: tuple[float, float]

class OptimizerEntry(TypedDict):
    name: str
    slots: int
    hyper: list[str]

class Isas(TypedDict):
    compiled: list[str]
    available: list[str]
    active: str

# An array of rows or sequences; of these also (sequences, lengths), (sequences, lengths, states) or
# an object with those three as values, lengths, states.
Rows = Any

class Engine:
    def __init__(
        self,
        inputs: int,
        layers: Sequence[LayerSpec],
        dtype: str,
        seed: int = 0,
        sequences: bool = False,
    ) -> None: ...
    @property
    def inputs(self) -> int: ...
    @property
    def carried_width(self) -> int: ...
    @property
    def state_shapes(self) -> list[tuple[int, int, int]]: ...
    @property
    def state(self) -> FloatArray: ...
    def set_trainable(self, layers: Sequence[bool]) -> None: ...
    @property
    def parameter_shapes(self) -> list[tuple[int, int, int, bool]]: ...
    @property
    def parameters(self) -> FloatArray: ...
    @property
    def gradients_(self) -> FloatArray: ...
    @property
    def optimizer_state(self) -> list[FloatArray]: ...
    @property
    def steps(self) -> int: ...
    @steps.setter
    def steps(self, value: int) -> None: ...
    def compile(
        self, loss: str, loss_param: float, optimizer: str, hyper: dict[str, float]
    ) -> None: ...
    def set_hyper(self, hyper: dict[str, float]) -> None: ...
    def set_rules(self, rules: dict[str, Any]) -> None: ...
    def train(
        self,
        x: Rows,
        y: NDArray[Any],
        batch_size: int,
        epochs: int,
        first_epoch: int,
        shuffle: bool,
        seed: int,
        metrics: list[str],
        position: NDArray[np.int64] | None = None,
        record: NDArray[np.float64] | None = None,
        steps: int = -1,
        outputs: FloatArray | None = None,
        weights: FloatArray | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
    def train_batch(
        self,
        x: Rows,
        y: NDArray[Any],
        metrics: list[str],
        sums: NDArray[np.float64],
        outputs: FloatArray | None = None,
        weights: FloatArray | None = None,
    ) -> None: ...
    def step(self, x: Rows, y: NDArray[Any], weights: FloatArray | None = None) -> float: ...
    def gradients(self, x: Rows, y: NDArray[Any], weights: FloatArray | None = None) -> float: ...
    def input_gradient(
        self, x: Rows, y: NDArray[Any], weights: FloatArray | None = None
    ) -> tuple[float, FloatArray]: ...
    def evaluate(
        self,
        x: Rows,
        y: NDArray[Any],
        batch_size: int,
        metrics: list[str],
        outputs: FloatArray | None = None,
        weights: FloatArray | None = None,
    ) -> tuple[float, list[float]]: ...
    def predict(self, x: Rows, out: FloatArray, training: bool = False) -> None: ...
    # Quick calls: None (accepts: or False) unless every argument is right as it is.
    def quick_step(self, x: Any, y: Any, /) -> float | None: ...
    def quick_predict(self, x: Any, /) -> FloatArray | None: ...
    def accepts(self, x: Any, y: Any, /) -> bool | None: ...

def matmul(
    a: FloatArray,
    b: FloatArray,
    bias: FloatArray | None,
    activation: str | None,
    param: float,
    out: FloatArray,
    bfloat16: bool = False,
) -> None: ...
def activation_forward(name: str, x: Rows, out: FloatArray, param: float) -> None: ...
def activation_backward(
    name: str, saved: FloatArray, dy: FloatArray, out: FloatArray, param: float
) -> None: ...
def vector_functions() -> list[str]: ...
def vector_math(name: str, x: Rows, out: FloatArray) -> None: ...
def softmax(x: Rows, out: FloatArray) -> None: ...
def column_sum(x: Rows, out: FloatArray) -> None: ...
def loss(name: str, y: FloatArray, t: NDArray[Any], dy: FloatArray, param: float) -> float: ...
def update(
    name: str,
    w: FloatArray,
    g: FloatArray,
    states: list[FloatArray],
    hyper: dict[str, float],
    step: int,
) -> None: ...

# Quick calls: None unless every argument is right as it is (csrc/bindings/quick_ops.cpp).
_Names = tuple[str, ...]
_Args = tuple[Any, ...]
_Kwargs = dict[str, Any]

def quick_matmul(
    a: Any, b: Any, transpose_a: Any, transpose_b: Any, bias: Any, activation: Any, out: Any, /
) -> Any: ...
def quick_vector_function(name: str, names: _Names, args: _Args, kwargs: _Kwargs, /) -> Any: ...
def quick_activation(name: Any, names: _Names, args: _Args, kwargs: _Kwargs, /) -> Any: ...
def quick_activation_backward(
    name: Any, dy: Any, z: Any, y: Any, param: Any, out: Any, /
) -> FloatArray | None: ...
def quick_softmax(x: Any, out: Any, /) -> FloatArray | None: ...
def quick_dense_forward(
    x: Any, kernel: Any, bias: Any, activation: Any, param: Any, /
) -> tuple[FloatArray, FloatArray] | None: ...
def quick_dense_backward(
    x: Any,
    kernel: Any,
    saved: Any,
    dy: Any,
    activation: Any,
    param: Any,
    use_bias: Any,
    input_gradient: Any,
    /,
) -> tuple[FloatArray | None, FloatArray, FloatArray | None] | None: ...
def quick_loss(
    name: str, names: _Names, args: _Args, kwargs: _Kwargs, /
) -> tuple[float, FloatArray] | None: ...
def quick_update(arrays: _Args, spec: object, step: Any, /) -> bool | None: ...
def optimizer_spec(name: str, hyper: dict[str, float]) -> object: ...
def all_finite(x: Rows) -> int: ...
def random_uniform(
    out: FloatArray, low: float, high: float, seed: int, stream: int, purpose: int
) -> None: ...
def random_normal(
    out: FloatArray, mean: float, stddev: float, seed: int, stream: int, purpose: int
) -> None: ...
def permutation(n: int, seed: int, epoch: int) -> NDArray[np.int64]: ...
def activations() -> list[ActivationEntry]: ...
def losses() -> list[LossEntry]: ...
def optimizers() -> list[OptimizerEntry]: ...

class CudaDriver(TypedDict):
    found: bool
    version: int
    problem: str

class CudaDevice(TypedDict):
    name: str
    capability: int
    memory: int

class CudaNetwork:
    """As Engine, but for the flat arrays, which are on the device: read() and write() copy them."""

    steps: int

    def __init__(
        self, inputs: int, layers: list[tuple[Any, ...]], dtype: str, seed: int, device: int
    ) -> None: ...
    @property
    def parameter_shapes(self) -> list[tuple[int, int, int, bool]]: ...
    @property
    def parameter_count(self) -> int: ...
    @property
    def replays(self) -> int: ...
    def read(self, array: int, out: FloatArray) -> None: ...
    def write(self, array: int, from_: FloatArray) -> None: ...
    def set_stream(self, stream: int) -> None: ...
    def compile(
        self, loss: str, loss_param: float, optimizer: str, hyper: dict[str, float]
    ) -> None: ...
    def set_hyper(self, hyper: dict[str, float]) -> None: ...
    def train(
        self,
        x: FloatArray,
        y: NDArray[Any],
        batch_size: int,
        epochs: int,
        first_epoch: int,
        shuffle: bool,
        seed: int,
        metrics: list[str],
        position: NDArray[np.int64] | None = None,
        record: NDArray[np.float64] | None = None,
        steps: int = -1,
        outputs: FloatArray | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
    def train_batch(
        self,
        x: FloatArray,
        y: NDArray[Any],
        metrics: list[str],
        sums: NDArray[np.float64],
        outputs: FloatArray | None = None,
    ) -> None: ...
    def step(self, x: FloatArray, y: NDArray[Any]) -> float: ...
    def gradients(self, x: FloatArray, y: NDArray[Any]) -> float: ...
    def input_gradient(self, x: FloatArray, y: NDArray[Any]) -> tuple[float, FloatArray]: ...
    def evaluate(
        self,
        x: FloatArray,
        y: NDArray[Any],
        batch_size: int,
        metrics: list[str],
        outputs: FloatArray | None = None,
    ) -> tuple[float, list[float]]: ...
    def predict(self, x: FloatArray, out: FloatArray, training: bool = False) -> None: ...

def cuda_load(path: bytes) -> None: ...
def cuda_library_path() -> str: ...
def cuda_build_info() -> str: ...
def cuda_driver() -> CudaDriver: ...
def cuda_driver_devices() -> list[CudaDevice]: ...
def cuda_emulated_devices() -> list[CudaDevice]: ...
def cuda_require_usable() -> None: ...
def cuda_matmul(
    dtype: str,
    activation: str | None,
    param: float,
    sizes: tuple[int, int, int],
    a: tuple[int, int, int],
    b: tuple[int, int, int],
    bias: int,
    c: tuple[int, int],
    stream: int,
) -> None: ...
def cuda_activation(
    dtype: str, name: str, param: float, n: int, x: int, saved: int, out: int, stream: int
) -> None: ...
def cuda_synchronize(stream: int) -> None: ...
def isas() -> Isas: ...
def bfloat16_problem() -> str: ...
def set_isa(name: str) -> None: ...
def get_num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def set_parallel_threshold(flop: float) -> None: ...
def get_parallel_threshold() -> float: ...
def build_info() -> dict[str, Any]: ...
def probe_peak(dtype: str, threads: int, seconds: float) -> float: ...
def arena_statistics() -> tuple[int, int]: ...
