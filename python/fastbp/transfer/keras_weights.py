"""Weights that Keras saved: .weights.h5 and .keras of Keras 3, .h5 of Keras 2; through h5py.

Only arrays are read. They have the layout of this library, but for the two biases of a GRU, which
are rows of one array there. Keras 3 names layers by kind ("dense", "dense_1", "gru"), so that the
order is known among those of one kind alone: the second Dense here gets "dense_1".
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..layers import Layer
from ..recurrent import GRU
from .foreign import Block, Part, owners, parts_of, put

if TYPE_CHECKING:
    from ..transferable import Transferable

_RECURRENT = ("kernel", "recurrent_kernel", "bias", "recurrent_bias")
_NAMES = {
    "Dense": ("kernel", "bias"),
    "Embedding": ("embeddings",),
    "BatchNorm": ("gamma", "beta", "moving_mean", "moving_variance"),
    "LayerNorm": ("gamma", "beta"),
    **dict.fromkeys(("SimpleRNN", "LSTM", "GRU"), _RECURRENT),
}
PARTS = {kind: tuple(Part(name, name) for name in names) for kind, names in _NAMES.items()}
# What Keras 3 calls the layers of each kind in its files.
_THEIRS = {
    "Dense": "dense",
    "Embedding": "embedding",
    "BatchNorm": "batch_normalization",
    "LayerNorm": "layer_normalization",
    "SimpleRNN": "simple_rnn",
    "LSTM": "lstm",
    "GRU": "gru",
}
MEMBER = "model.weights.h5"  # of a .keras file, which is a zip archive


def load(model: Transferable, path: str | os.PathLike[str]) -> None:
    """Sequential.load_keras_weights; see there."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError("reading Keras' files needs h5py: pip install 'fastbp[keras]'") from error
    name = os.fspath(path)
    with Path(path).open("rb") as file:
        source: Any = file
        if zipfile.is_zipfile(file):
            source = _member(file, name)
        try:
            with h5py.File(source, "r") as content:
                blocks = _blocks(content, owners(model))
        except OSError as error:
            raise ValueError(f"{name!r} is no HDF5 file: {error}") from error
    if not blocks:
        raise ValueError(f"{name!r} holds no layers with weights in a layout of Keras 2 or 3")
    named = zip(blocks, owners(model), strict=False)
    given = [_named(block, layer) for block, (_, layer) in named]
    put(model, given + blocks[len(given) :], PARTS, repr(name))


def _member(file: Any, name: str) -> io.BytesIO:
    with zipfile.ZipFile(file) as archive:
        if MEMBER not in archive.namelist():
            raise ValueError(f"{name!r} is an archive without {MEMBER}")
        return io.BytesIO(archive.read(MEMBER))


Owners = list[tuple[str, Layer]]


def _blocks(content: Any, targets: Owners) -> list[Block]:
    """The layers with weights, in the order of `targets`; arrays by their numbers."""
    content = content.get("model_weights", content)  # a whole model of Keras 2
    if "layer_names" not in content.attrs:
        return _by_kind(content.get("layers", {}), targets)
    named = [(_text(name), content[_text(name)]) for name in content.attrs["layer_names"]]
    found = [(name, [group[w] for w in group.attrs["weight_names"]]) for name, group in named]
    return [_block(name, weights) for name, weights in found if weights]


def _block(name: str, weights: Iterable[Any]) -> Block:
    return Block(name, {str(i): np.asarray(array) for i, array in enumerate(weights)})


def _by_kind(groups: Any, targets: Owners) -> list[Block]:
    """Of Keras 3: each target gets the next layer of its kind. What is left comes behind them."""
    left = {name: weights for name in _in_order(groups) if (weights := _weights(groups[name]))}
    found = []
    for _, layer in targets:
        stem = _THEIRS.get(type(layer).__name__)
        own = (name for name in left if re.sub(r"_\d+$", "", name) == stem)
        name = next(own, None)
        if name is not None:
            found.append(_block(name, left.pop(name)))
    return found + [_block(name, weights) for name, weights in left.items()]


def _weights(group: Any) -> list[Any]:
    """The arrays of one layer; those of a recurrent one are its cell's."""
    own = group.get("vars", {})
    if not len(own):  # an empty group counts as true
        own = group.get("cell", {}).get("vars", {})
    return [own[key] for key in _in_order(own)]


def _named(block: Block, layer: Layer) -> Block:
    """The block with the names of the layer's parts, where it has as many arrays."""
    arrays = list(block.arrays.values())
    if isinstance(layer, GRU) and layer.use_bias and arrays and arrays[-1].ndim == 2:
        arrays[-1:] = list(arrays[-1])  # of one row for the input and one for the state
    names = [part.theirs for part in parts_of(layer, PARTS)]
    if len(names) != len(arrays):
        return block
    return Block(block.name, dict(zip(names, arrays, strict=True)))


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _in_order(group: Any) -> list[str]:
    """Names as Keras counts them: dense, dense_1, ..., dense_10."""

    def place(name: str) -> tuple[str, int]:
        match = re.fullmatch(r"(.*?)_?(\d*)", name)
        assert match is not None
        return match[1], int(match[2] or 0)

    return sorted(group, key=place)
