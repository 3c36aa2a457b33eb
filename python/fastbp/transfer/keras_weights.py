"""Weights that Keras saved: .weights.h5 and .keras of Keras 3, .h5 of Keras 2; through h5py.

Only arrays are read. Keras' Dense keeps its kernel as (inputs, units), as here.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .foreign import Block, Part, put

if TYPE_CHECKING:
    from ..model import Sequential

PARTS = {"Dense": (Part("kernel", "0"), Part("bias", "1"))}
MEMBER = "model.weights.h5"  # of a .keras file, which is a zip archive


def load(model: Sequential, path: str | os.PathLike[str]) -> None:
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
                blocks = _blocks(content)
        except OSError as error:
            raise ValueError(f"{name!r} is no HDF5 file: {error}") from error
    if not blocks:
        raise ValueError(f"{name!r} holds no layers with weights in a layout of Keras 2 or 3")
    put(model, blocks, PARTS, repr(name))


def _member(file: Any, name: str) -> io.BytesIO:
    with zipfile.ZipFile(file) as archive:
        if MEMBER not in archive.namelist():
            raise ValueError(f"{name!r} is an archive without {MEMBER}")
        return io.BytesIO(archive.read(MEMBER))


def _blocks(content: Any) -> list[Block]:
    """The layers with weights, from input to output."""
    content = content.get("model_weights", content)  # a whole model of Keras 2
    if "layer_names" in content.attrs:
        named = [(_text(name), content[_text(name)]) for name in content.attrs["layer_names"]]
        found = [(name, [group[w] for w in group.attrs["weight_names"]]) for name, group in named]
    else:
        groups = content.get("layers", {})
        found = [
            (name, [groups[name]["vars"][key] for key in _in_order(groups[name].get("vars", {}))])
            for name in _in_order(groups)
        ]
    return [
        Block(name, {str(i): np.asarray(array) for i, array in enumerate(arrays)})
        for name, arrays in found
        if arrays
    ]


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _in_order(group: Any) -> list[str]:
    """Names as Keras counts them: dense, dense_1, ..., dense_10."""

    def place(name: str) -> tuple[str, int]:
        match = re.fullmatch(r"(.*?)_?(\d*)", name)
        assert match is not None
        return match[1], int(match[2] or 0)

    return sorted(group, key=place)
