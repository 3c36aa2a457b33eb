"""PyTorch's state_dict of an nn.Sequential, in and out.

nn.Linear keeps its weight as (outputs, inputs), the transpose of Dense's kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import Array
from ..errors import describe
from ..layers import Activation
from .foreign import Block, Part, owners, parts_of, put

if TYPE_CHECKING:
    from ..layers import Layer
    from ..model import Sequential

PARTS = {"Dense": (Part("kernel", "weight", transposed=True), Part("bias", "bias"))}


def load(model: Sequential, state: Mapping[str, Any]) -> None:
    """Sequential.load_torch_state_dict; see there."""
    given: object = state
    if not isinstance(given, Mapping):
        raise TypeError(f"the state must be a dict from name to tensor; got {describe(state)}")
    if isinstance(state.get("state_dict"), Mapping):  # a checkpoint: the state and what was beside
        state = state["state_dict"]
    blocks: dict[str, dict[str, Array]] = {}
    for name, value in state.items():
        prefix, _, last = name.rpartition(".")
        blocks.setdefault(prefix, {})[last] = _array(name, value)
    put(model, [Block(*item) for item in blocks.items()], PARTS, "the state")


def _array(name: str, value: Any) -> Array:
    """A tensor or array as a NumPy array; bfloat16, which NumPy lacks, as float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name!r} must be a tensor of numbers; got {describe(value)}")
    return array


def dump(model: Sequential, as_numpy: bool) -> dict[str, Any]:
    """Sequential.to_torch_state_dict; see there."""
    places = _places(model.layers)
    values: dict[str, Array] = {}
    parameters = model.parameters()
    for index, layer in owners(model):
        for part in parts_of(layer, PARTS):
            array = part.here(parameters[f"{index}.{part.ours}"])
            values[f"{places[index]}.{part.theirs}"] = np.array(array, order="C")
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


def _places(layers: tuple[Layer, ...]) -> list[int]:
    """Where each layer stands in an nn.Sequential, whose activations are modules of their own."""
    places, place = [], 0
    for layer in layers:
        places.append(place)
        fused = getattr(layer, "activation", None)
        place += 2 if isinstance(fused, Activation) and fused.name != "identity" else 1
    return places
