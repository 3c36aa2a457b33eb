"""fastbp: neural networks by backpropagation, fast on any processor, the same bits on all.

    import fastbp as bp
    model = bp.Sequential([bp.Dense(64, activation="relu"), bp.Dense(10)], seed=0)
    model.compile(optimizer="adam", loss="softmax_cross_entropy", metrics=["accuracy"])
    history = model.fit(X, y, epochs=10, validation_split=0.2)
    model.save("net.safetensors")

`fastbp.ops` has the kernels as functions on arrays, `fastbp.reference` the same in plain NumPy,
`fastbp.info()` says what is in use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _core, metrics
from .custom import CustomActivation, CustomLoss
from .devices import get_num_threads, set_num_threads
from .embedding import Embedding
from .errors import DeviceNotAvailableError, MemberError, ModelFileError
from .initializers import (
    Constant,
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    LecunNormal,
    LecunUniform,
    Ones,
    Orthogonal,
    RandomNormal,
    RandomUniform,
    Zeros,
)
from .layers import (
    ELU,
    GELU,
    Activation,
    Dense,
    Dropout,
    Identity,
    LeakyReLU,
    Mish,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from .losses import Loss
from .model import Sequential, load
from .normalization import BatchNorm, LayerNorm, Normalize
from .optimizers import LBFGS, SGD, Adagrad, Adam, AdamW, RMSprop
from .recurrent import GRU, LSTM, SimpleRNN
from .regularizers import L1, L1L2, L2
from .schedules import (
    CosineDecay,
    ExponentialDecay,
    LinearDecay,
    OneCycle,
    PiecewiseConstant,
    StepDecay,
    WarmUp,
)
from .sequences import Sequences
from .structure import Flatten, Masking, Reshape, Residual
from .wrappers import Bidirectional, TimeDistributed

if TYPE_CHECKING:
    from .callbacks import (
        Callback,
        CSVLogger,
        EarlyStopping,
        LambdaCallback,
        LearningRateScheduler,
        ModelCheckpoint,
        ReduceLROnPlateau,
        TensorBoard,
        TerminateOnNaN,
    )
    from .ensemble import Ensemble
    from .history import History
    from .quantization import Quantized, load_quantized, quantize

__version__: str = _core.build_info()["version"]

_LAZY_MODULES = ("callbacks", "model_selection", "ops", "reference", "sklearn")
_LAZY_NAMES = {
    "Callback": "callbacks",
    "CSVLogger": "callbacks",
    "EarlyStopping": "callbacks",
    "LambdaCallback": "callbacks",
    "LearningRateScheduler": "callbacks",
    "ModelCheckpoint": "callbacks",
    "ReduceLROnPlateau": "callbacks",
    "TensorBoard": "callbacks",
    "TerminateOnNaN": "callbacks",
    "Ensemble": "ensemble",
    "History": "history",
    "Quantized": "quantization",
    "load_quantized": "quantization",
    "quantize": "quantization",
    "MLPClassifier": "sklearn",  # which needs scikit-learn
    "MLPRegressor": "sklearn",
    "SequenceClassifier": "sklearn",
    "SequenceRegressor": "sklearn",
}


def info(*, probe_devices: bool = False) -> dict[str, Any]:
    """What is installed and in use: versions, compiler, instruction sets, threads, environment.

    Returns plain data (JSON has a form for it); `print(fastbp.info())` shows it as a table.
    `probe_devices` starts the NVIDIA driver to list its devices, if that has not been done: it
    takes a moment, and processes forked afterwards cannot use CUDA.
    """
    from .about import collect

    return collect(probe_devices=probe_devices)


def __getattr__(name: str) -> Any:
    """What not every program needs is imported when it is first named."""
    from importlib import import_module

    if name in _LAZY_MODULES:
        return import_module(f".{name}", __name__)
    if name in _LAZY_NAMES:
        return getattr(import_module(f".{_LAZY_NAMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What there is for users: other submodules are imported by now, but are no part of it."""
    own = {name for name in globals() if name.startswith("__")}
    return sorted({*own, *__all__, *_LAZY_MODULES, *_LAZY_NAMES})


__all__ = [
    "ELU",
    "GELU",
    "GRU",
    "L1",
    "L1L2",
    "L2",
    "LBFGS",
    "LSTM",
    "SGD",
    "Activation",
    "Adagrad",
    "Adam",
    "AdamW",
    "BatchNorm",
    "Bidirectional",
    "CSVLogger",
    "Callback",
    "Constant",
    "CosineDecay",
    "CustomActivation",
    "CustomLoss",
    "Dense",
    "DeviceNotAvailableError",
    "Dropout",
    "EarlyStopping",
    "Embedding",
    "Ensemble",
    "ExponentialDecay",
    "Flatten",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "History",
    "Identity",
    "LambdaCallback",
    "LayerNorm",
    "LeakyReLU",
    "LearningRateScheduler",
    "LecunNormal",
    "LecunUniform",
    "LinearDecay",
    "Loss",
    "Masking",
    "MemberError",
    "Mish",
    "ModelCheckpoint",
    "ModelFileError",
    "Normalize",
    "OneCycle",
    "Ones",
    "Orthogonal",
    "PiecewiseConstant",
    "Quantized",
    "RMSprop",
    "RandomNormal",
    "RandomUniform",
    "ReLU",
    "ReduceLROnPlateau",
    "Reshape",
    "Residual",
    "Sequences",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SimpleRNN",
    "Softmax",
    "Softplus",
    "StepDecay",
    "Tanh",
    "TensorBoard",
    "TerminateOnNaN",
    "TimeDistributed",
    "WarmUp",
    "Zeros",
    "__version__",
    "get_num_threads",
    "info",
    "load",
    "load_quantized",
    "metrics",
    "ops",
    "quantize",
    "reference",
    "set_num_threads",
]
