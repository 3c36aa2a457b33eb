"""Who is timed: one module for each library, and the list of them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module, metadata, util
from types import ModuleType

from ..workloads import Workload

OWN = "fastbp"
BASELINE = "numpy"
REFERENCE = "reference"


@dataclass(frozen=True)
class Contestant:
    """A library in one dtype and one form.

    form "fit": many steps in a call. "step": one call a step. "loop": a loop in Python, as users of
    that library write it. "scan": JAX's loop in one call. "compile": the loop in Python, with a
    network that PyTorch has compiled.
    """

    library: str
    module: str
    form: str
    dtype: str = "float32"
    kinds: tuple[str, ...] = ("train",)
    packages: tuple[str, ...] = ()  # distributions whose versions are recorded
    needs: tuple[str, ...] = ()  # modules without which it does not run
    lacks: tuple[str, ...] = ()  # activations and optimizers that it does not have

    @property
    def name(self) -> str:
        """fastbp, fastbp step, jax scan, torch bfloat16, ..."""
        form = f" {self.form}" if self.form in ("step", "scan", "compile") else ""
        return f"{self.library}{form}" + f" {self.dtype}" * (self.dtype != "float32")

    @property
    def starts_slowly(self) -> bool:
        """Half a minute for each workload: it takes part only where that is asked for."""
        return self.form == "compile"

    @property
    def is_peer(self) -> bool:
        return self.library not in (OWN, BASELINE, REFERENCE)

    def takes(self, workload: Workload) -> bool:
        lacking = {workload.activation, workload.optimizer} & set(self.lacks)
        return workload.kind in self.kinds and not lacking

    def installed(self) -> bool:
        return all(util.find_spec(name) is not None for name in self.needs)

    def load(self) -> ModuleType:
        return import_module(f"{__name__}.{self.module}")


ALL = (
    Contestant(OWN, "ours", "fit", kinds=("train", "predict", "matmul", "job")),
    Contestant(OWN, "ours", "step"),
    Contestant(OWN, "ours", "fit", "bfloat16"),
    Contestant(OWN, "ours", "fit", "float64"),
    Contestant(
        BASELINE, "numpy_loop", "loop", "float32", ("train", "predict", "matmul", "job"), ("numpy",)
    ),
    Contestant(BASELINE, "numpy_loop", "loop", "float64", ("train",), ("numpy",)),
    Contestant(
        "torch",
        "torch_eager",
        "loop",
        "float32",
        ("train", "predict", "matmul", "job"),
        ("torch",),
        ("torch",),
    ),
    Contestant("torch", "torch_eager", "loop", "bfloat16", ("train",), ("torch",), ("torch",)),
    Contestant("torch", "torch_eager", "compile", "float32", ("train",), ("torch",), ("torch",)),
    Contestant("torch", "torch_eager", "compile", "bfloat16", ("train",), ("torch",), ("torch",)),
    Contestant(
        "jax", "jax_jit", "loop", "float32", ("train", "predict"), ("jax", "jaxlib"), ("jax",)
    ),
    Contestant("jax", "jax_jit", "scan", "float32", ("train", "job"), ("jax", "jaxlib"), ("jax",)),
    Contestant(
        "scikit-learn",
        "sklearn_mlp",
        "fit",
        "float32",
        ("train", "predict", "job"),
        ("scikit-learn",),
        ("sklearn",),
        ("gelu_tanh", "adamw", "sgd"),
    ),
    Contestant(
        "onnxruntime",
        "onnx_session",
        "loop",
        "float32",
        ("predict",),
        ("onnxruntime", "onnx"),
        ("onnxruntime", "onnx"),
    ),
)


def field(*, peers: bool, dtypes: Sequence[str], slow_starters: bool = False) -> list[Contestant]:
    """Those that a run starts with: installed, of the dtypes asked for, peers if wanted, and of
    these such as start slowly."""
    return [
        contestant
        for contestant in ALL
        if contestant.dtype in dtypes
        and (peers or not contestant.is_peer)
        and (slow_starters or not contestant.starts_slowly)
        and contestant.installed()
    ]


def named(name: str) -> Contestant:
    """The contestant of that name; the float64 reference has none of its own."""
    if name == REFERENCE:
        return Contestant(REFERENCE, "numpy_loop", "loop", "float64")
    return next(contestant for contestant in ALL if contestant.name == name)


def versions(contestants: Sequence[Contestant]) -> dict[str, str]:
    """By package, of all packages that the contestants run on."""
    packages = {package for contestant in contestants for package in contestant.packages}
    return {package: metadata.version(package) for package in sorted(packages)}
