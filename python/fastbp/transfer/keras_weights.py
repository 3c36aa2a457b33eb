"""Weights that Keras saved: .weights.h5 and .keras of Keras 3, .h5 of Keras 2; through h5py.

Only arrays are read. They have the layout of this library, but for the two biases of a GRU, which
are rows of one array there, and the two ways of a Bidirectional, each a layer of its own there.
Keras 3 names layers by kind ("dense", "dense_1", "gru"), so that the order is known among those of
one kind alone: the second Dense here gets "dense_1". A Normalization that was adapted is known by
its three arrays, mean, variance and count, and goes to a Normalize.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import network
from ..layers import Layer
from ..normalization import Normalize
from ..recurrent import GRU
from ..structure import leaves
from ..wrappers import Bidirectional, TimeDistributed
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
    "Bidirectional": (*_RECURRENT, "backward_recurrent_kernel", "backward_recurrent_bias"),
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
    "Bidirectional": "bidirectional",
}
_AT_EVERY_STEP = "time_distributed"
# What else than its own arrays a layer's group may hold arrays in.
_INSIDE = ("cell", "layer", "forward_layer", "backward_layer")
_LEAST = 1e-7  # what Keras divides by at least
MEMBER = "model.weights.h5"  # of a .keras file, which is a zip archive

# What h5py and zipfile raise where the bytes make no sense, beside OSError.
_DAMAGE = (RuntimeError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)


def load(model: Transferable, path: str | os.PathLike[str]) -> None:
    """Sequential.load_keras_weights; see there."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError("reading Keras' files needs h5py: pip install 'fastbp[keras]'") from error
    name = os.fspath(path)
    with Path(path).open("rb") as file:
        try:
            source: Any = _member(file, name) if zipfile.is_zipfile(file) else file
            with h5py.File(source, "r") as content:
                blocks = _blocks(content, _targets(model))
        except OSError as error:
            raise ValueError(f"{name!r} is no HDF5 file: {error}") from error
        except _DAMAGE as error:
            raise ValueError(f"{name!r} is damaged, or not of Keras: {error}") from error
    if not blocks:
        raise ValueError(f"{name!r} holds no layers with weights in a layout of Keras 2 or 3")
    statistics = [block for block in blocks if _is_normalization(block)]
    blocks = [block for block in blocks if not _is_normalization(block)]
    with _normalized(model, statistics, repr(name)):
        named = zip(blocks, owners(model), strict=False)
        given = [_named(block, layer) for block, (_, layer) in named]
        put(model, given + blocks[len(given) :], PARTS, repr(name))


def _is_normalization(block: Block) -> bool:
    shapes = [array.shape for array in block.arrays.values()]
    return len(shapes) == 3 and len(shapes[0]) == 1 and shapes[1:] == [shapes[0], ()]


@contextmanager
def _normalized(model: Transferable, statistics: list[Block], source: str) -> Iterator[None]:
    """Gives the Normalize layers their numbers, of which the other layers are built; they are as
    they were after an error. Raises ValueError unless there are as many."""
    layers = [layer for _, layer in leaves(model.layers) if isinstance(layer, Normalize)]
    if statistics and len(statistics) != len(layers):
        raise ValueError(
            f"{source} has {len(statistics)} Normalization layers, the model {len(layers)} of "
            "Normalize: put bp.Normalize() where they stand"
        )
    before = [(layer, layer.center, layer.scale) for layer in layers]
    try:
        for layer, block in zip(layers, statistics, strict=False):
            mean, variance, _ = (array.astype(np.float64) for array in block.arrays.values())
            deviation = np.maximum(np.sqrt(variance), _LEAST)
            layer._set(center=tuple(mean.tolist()), scale=tuple(deviation.tolist()))
        if statistics and model._engine is not None:
            network.check_constants(model.layers, model._engine)
        yield
        if statistics:
            network.write_constants(model.layers, model._require_built())
    except BaseException:
        for layer, center, scale in before:
            layer._set(center=center, scale=scale)
        raise


def _member(file: Any, name: str) -> io.BytesIO:
    with zipfile.ZipFile(file) as archive:
        if MEMBER not in archive.namelist():
            raise ValueError(f"{name!r} is an archive without {MEMBER}")
        return io.BytesIO(archive.read(MEMBER))


Targets = list[tuple[str, bool]]  # what Keras calls the kind; whether it is in a TimeDistributed


def _targets(model: Transferable) -> Targets:
    wrapped = {name for name, layer in leaves(model.layers) if isinstance(layer, TimeDistributed)}
    return [(_THEIRS.get(type(own).__name__, ""), name in wrapped) for name, own in owners(model)]


def _blocks(content: Any, targets: Targets) -> list[Block]:
    """The layers with weights, in the order of `targets`; arrays by their numbers."""
    content = content.get("model_weights", content)  # a whole model of Keras 2
    if "layer_names" not in content.attrs:
        return _by_kind(content.get("layers", {}), targets)
    named = [(_text(name), content[_text(name)]) for name in content.attrs["layer_names"]]
    found = [(name, [group[w] for w in group.attrs["weight_names"]]) for name, group in named]
    return [_block(name, weights) for name, weights in found if weights]


def _block(name: str, weights: Iterable[Any]) -> Block:
    return Block(name, {str(i): _numbers(array) for i, array in enumerate(weights)})


def _numbers(dataset: Any) -> Any:
    """A stored array; bfloat16, which HDF5 lacks, as float32."""
    array = np.asarray(dataset)
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return array


def _by_kind(groups: Any, targets: Targets) -> list[Block]:
    """Of Keras 3: each target gets the next layer of its kind. What is left comes behind them."""
    for name in groups:
        if "layers" in groups[name]:
            raise ValueError(
                f"{name!r} is a model within the model, and the file does not say in which place: "
                "save a flat one, such as keras.Sequential([*body.layers, head])"
            )
    left = {name: weights for name in _in_order(groups) if (weights := _weights(groups[name]))}
    found = []
    for kind, wrapped in targets:
        # A layer of rows is at every step of sequences with and without a TimeDistributed.
        stems = (_AT_EVERY_STEP, kind) if wrapped else (kind, _AT_EVERY_STEP)
        own = (n for stem in stems for n in left if re.sub(r"_\d+$", "", n) == stem)
        name = next(own, None)
        if name is not None:
            found.append(_block(name, left.pop(name)))
    return found + [_block(name, weights) for name, weights in left.items()]


def _weights(group: Any) -> list[Any]:
    """The arrays of one layer: a recurrent one's are its cell's, a wrapper's its layers'."""
    found = [group["vars"][key] for key in _in_order(group.get("vars", {}))]
    return found or [a for part in _INSIDE if part in group for a in _weights(group[part])]


def _named(block: Block, layer: Layer) -> Block:
    """The block with the names of the layer's parts, where it has as many arrays."""
    arrays = list(block.arrays.values())
    if isinstance(layer, Bidirectional):
        return Block(block.name, _both_ways(layer, arrays) or block.arrays)
    if isinstance(layer, GRU) and layer.use_bias and len(arrays) == 3:
        if arrays[-1].ndim != 2:
            raise ValueError(
                f"{block.name or 'a GRU'} has one bias only, as with reset_after=False, where the "
                "reset gate acts in front of the product: no layer here computes that"
            )
        arrays[-1:] = list(arrays[-1])  # of one row for the input and one for the state
    names = [part.theirs for part in parts_of(layer, PARTS)]
    if len(names) != len(arrays):
        return block
    return Block(block.name, dict(zip(names, arrays, strict=True)))


def _both_ways(layer: Bidirectional, arrays: list[Any]) -> dict[str, Any]:
    """The arrays of both ways by our names; nothing where they are not those of two such layers."""
    half = len(arrays) // 2
    ahead, back = (
        _named(_block("", own), layer.layer).arrays for own in (arrays[:half], arrays[half:])
    )
    if set(ahead) != set(back) or "recurrent_kernel" not in ahead:
        return {}
    joined = {n: np.concatenate([ahead[n], back[n]], -1) for n in ("kernel", "bias") if n in ahead}
    own = {name: array for name, array in ahead.items() if name.startswith("recurrent")}
    return {**joined, **own, **{f"backward_{name}": back[name] for name in own}}


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _in_order(group: Any) -> list[str]:
    """Names as Keras counts them: dense, dense_1, ..., dense_10."""

    def place(name: str) -> tuple[str, int]:
        match = re.fullmatch(r"(.*?)_?(\d*)", name)
        assert match is not None
        return match[1], int(match[2] or 0)

    return sorted(group, key=place)
