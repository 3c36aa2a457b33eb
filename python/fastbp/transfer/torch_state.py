"""PyTorch's state_dict of an nn.Sequential, or of modules that follow on each other, in and out.

nn.Linear keeps its weight as (outputs, inputs), the transpose of Dense's kernel. BatchNorm and
LayerNorm are nn.BatchNorm1d and nn.LayerNorm, Embedding is nn.Embedding with nn.Flatten behind it.
What a Residual holds is named as in

    class Residual(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import Array
from ..embedding import Embedding
from ..errors import describe
from ..layers import Activation
from ..structure import Masking, Residual, leaves
from . import torch_recurrent
from .foreign import Block, Part, inner, owners, parts_of, put

if TYPE_CHECKING:
    from ..layers import Layer
    from ..transferable import Transferable

_NORM = (Part("gamma", "weight"), Part("beta", "bias"))
_MOVING = (Part("moving_mean", "running_mean"), Part("moving_variance", "running_var"))
PARTS = {
    "Dense": (Part("kernel", "weight", transposed=True), Part("bias", "bias")),
    "LayerNorm": _NORM,
    "BatchNorm": (*_NORM, *_MOVING),
    "Embedding": (Part("embeddings", "weight"),),
    **torch_recurrent.PARTS,
}
STEPS = "num_batches_tracked"  # counted by nn.BatchNorm1d, which uses it only without a momentum


def load(model: Transferable, state: Mapping[str, Any]) -> None:
    """Sequential.load_torch_state_dict; see there."""
    given: object = state
    if not isinstance(given, Mapping):
        raise TypeError(f"the state must be a dict from name to tensor; got {describe(state)}")
    if isinstance(state.get("state_dict"), Mapping):  # a checkpoint: the state and what was beside
        state = state["state_dict"]
    blocks: dict[str, dict[str, Array]] = {}
    for name, value in state.items():
        key: object = name
        if not isinstance(key, str):
            raise TypeError(f"the state must have tensors under names; got {describe(key)}")
        prefix, _, last = name.rpartition(".")
        if last != STEPS:
            blocks.setdefault(prefix, {})[last] = _array(name, value)
    found = [layer for item in blocks.items() for layer in torch_recurrent.layers_of(Block(*item))]
    targets = owners(model)
    if len(targets) == len(found):  # otherwise put() says what is missing
        for place, (name, layer) in enumerate(targets):
            if torch_recurrent.is_recurrent(layer):
                found[place] = torch_recurrent.to_ours(name, layer, found[place])
    put(model, found, PARTS, "the state")


def _array(name: str, value: Any) -> Array:
    """A tensor or array as a NumPy array; bfloat16, which NumPy lacks, as float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name!r} must be a tensor of numbers; got {describe(value)}")
    return array


def dump(model: Transferable, as_numpy: bool) -> dict[str, Any]:
    """Sequential.to_torch_state_dict; see there."""
    for name, layer in leaves(model.layers):
        if layer.owns_constants:
            raise ValueError(
                f"layer {name}, a {type(layer).__name__}, has no counterpart in PyTorch: prepare "
                "the data there as its center and scale say, and leave the layer out here"
            )
    names, steps = _names(model.layers), model._require_built().steps
    values: dict[str, Array] = {}
    kept = model.parameters() | model.state()
    for name, layer in owners(model):
        if torch_recurrent.is_recurrent(layer):
            own = {array: kept[f"{name}.{array}"] for array in layer.parameter_shapes(1)}
            for theirs, array in torch_recurrent.to_torch(layer, own).items():
                values[f"{names[name]}.{theirs}"] = np.array(array, order="C")
            continue
        for part in parts_of(layer, PARTS):
            array = part.here(kept[f"{name}.{part.ours}"])
            values[f"{names[name]}.{part.theirs}"] = np.array(array, order="C")
        if layer.state_shapes(1):
            values[f"{names[name]}.{STEPS}"] = np.array(steps, np.int64)
    if as_numpy:
        return values
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "to_torch_state_dict makes PyTorch tensors, and PyTorch cannot be imported "
            f"({error}); as_numpy=True gives NumPy arrays"
        ) from error
    return {name: torch.from_numpy(array) for name, array in values.items()}


def _names(layers: tuple[Layer, ...], ours: str = "", theirs: str = "") -> dict[str, str]:
    """The name in an nn.Sequential of each layer, whose activations are modules of their own."""
    names, place = {}, 0
    for index, layer in enumerate(layers):
        names[f"{ours}{index}"] = f"{theirs}{place}"
        if isinstance(layer, Residual):
            names |= _names(layer.layers, f"{ours}{index}.", f"{theirs}{place}.")
        fused = getattr(inner(layer), "activation", None)
        two = isinstance(fused, Activation) and fused.name != "identity"
        if not isinstance(layer, Masking):  # for which nn has no module
            place += 2 if two or isinstance(layer, Embedding) else 1
    return names
