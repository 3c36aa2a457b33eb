"""Transferable: what a model holds, taken out and put in: parameters, files, other frameworks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import arrays, checks, freezing, network
from .arrays import Array
from .chain import Chain
from .errors import describe, unknown_name

if TYPE_CHECKING:
    from .layers import Layer


class Transferable(Chain):
    """What Sequential is before it is trained and used: see there."""

    def parameters(self) -> dict[str, Array]:
        """Live views of the parameters by name: "0.kernel", "0.bias", by the layer's place.

        kernel is (inputs, units), bias (units,). Writing to a view changes the model. Compiling for
        another dtype or device makes new arrays. Raises RuntimeError before the model is built.
        """
        engine = self._require_built()
        return network.views(self._layers, engine, engine.parameters)

    def set_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Overwrites the named parameters, all or none; the others and the optimizer's state stay.

        Raises ValueError for unknown names, other shapes, NaN and infinity; TypeError for other
        kinds.
        """
        given: object = parameters
        if not isinstance(given, Mapping):
            raise TypeError(
                f"parameters must be a dict from name to array; got {describe(parameters)}"
            )
        views = self.parameters()
        ready = {}
        for name, value in parameters.items():
            if name not in views:
                raise unknown_name("parameter", name, views)
            ready[name] = arrays.parameter(name, value, views[name].shape, self._dtype)
            if any(np.may_share_memory(ready[name], view) for view in views.values()):
                ready[name] = ready[name].copy()  # of another's, which may be written before
        for name, array in ready.items():
            views[name][...] = array

    def state(self) -> dict[str, Array]:
        """Live views of what training changes besides parameters: "1.moving_mean" of a BatchNorm.

        Saved with the model. Raises RuntimeError before the model is built.
        """
        return network.state(self._layers, self._require_built())

    def __getstate__(self) -> dict[str, Any]:
        from . import copies

        return copies.state(self)

    def __setstate__(self, kept: dict[str, Any]) -> None:
        from . import copies

        copies.restore(self, kept)

    @property
    def frozen(self) -> tuple[int, ...]:
        """Places of the layers that are not trained."""
        return tuple(sorted(self._frozen))

    def freeze(self, upto: int | None = None, *, layers: Iterable[int] | None = None) -> None:
        """From now on trains all layers but the first `upto`, or but those at the places `layers`.

        What is frozen keeps its parameters, running statistics and optimizer state bit for bit, and
        costs no gradient; a frozen BatchNorm uses its moving statistics in training too.
        freeze(0) trains everything again.

        Raises ValueError for places that do not exist, TypeError unless exactly one of the two is
        given.
        """
        freezing.freeze(self, upto, layers)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        """Writes the model to one file, from which `fastbp.load` makes it again, bit for bit.

        It holds layers, parameters, and if the model is compiled all that further training depends
        on: loss, metrics, optimizer with its state, step and epoch count, seed; and while a fit has
        not come to its end the state of that run, for fit(resume=path). The file has the
        safetensors layout. It appears under its name only when it is complete and on the disk; an
        error leaves a file that was there untouched. While fit trains the model in another thread
        the file is of a moment between two steps; fit pauses for as long as a copy takes. The
        states that stateful layers hold between calls are not in it: a model begins with 0.

        Args:
            path: the file to write.
            metadata: more text by name to keep beside `self.metadata`.

        Raises RuntimeError if the model is not built, OSError if the file cannot be written.
        """
        from . import files

        files.save(self, path, {**self.metadata, **(metadata or {})})

    def load_torch_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over the weights of PyTorch layers: the state_dict of an nn.Sequential, or alike.

        Layers correspond in order, whatever their names; weights are transposed. A model that is
        not built is built. Also takes a checkpoint {"state_dict": ...} and NumPy arrays.

        Raises ValueError where layers or shapes do not correspond; the model is then as it was.
        """
        from .transfer import torch_state

        torch_state.load(self, state)

    def to_torch_state_dict(self, as_numpy: bool = False) -> dict[str, Any]:
        """Copies of the parameters under the names of the nn.Sequential with the same modules.

        There an activation is a module of its own: Dense(8, "relu"), Dense(3) is Linear, ReLU,
        Linear, whose names begin with 0 and 2. Values are PyTorch tensors, or NumPy arrays with
        as_numpy=True. Raises ImportError without PyTorch.
        """
        from .transfer import torch_state

        return torch_state.dump(self, as_numpy)

    def load_keras_weights(self, path: str | os.PathLike[str]) -> None:
        """Takes over the weights of a Keras model of the same layers; needs h5py.

        The file is what Keras' save_weights or save wrote: .weights.h5, .keras, or the older .h5.
        Normalize takes the numbers of a Normalization.
        Raises ValueError where layers or shapes do not correspond; the model is then as it was.
        """
        from .transfer import keras_weights

        keras_weights.load(self, path)

    def export_onnx(
        self, path: str | os.PathLike[str], probabilities: bool = False, lengths: bool = False
    ) -> None:
        """Writes the network as an ONNX file, input "x" (rows, inputs), output "y"; needs onnx.

        Numbers are those of the model's dtype. The output is predict's; with probabilities=True
        predict_proba's. With recurrent layers "x" is (rows, steps, inputs), of which all steps
        count, or with lengths=True those that the second input says, "lengths" (rows,) int64;
        outputs at every step mean nothing behind the ends. Raises ValueError for a layer that has
        no form there, and for lengths of a network that reads no sequences.
        """
        from .transfer import onnx_graph

        onnx_graph.export(
            self,
            path,
            checks.boolean("probabilities", probabilities),
            checks.boolean("lengths", lengths),
        )

    def replace_head(self, units: int) -> None:
        """Puts a new last Dense layer of `units` outputs in the old one's place, for a new task.

        It has the old one's activation and initializers and starts anew; all other parameters stay.
        The optimizer's state starts afresh. Raises ValueError where the loss cannot be trained with
        so many outputs.
        """
        from .transfer import heads

        heads.replace_head(self, units)

    def append(self, layer: Layer) -> None:
        """Puts a layer on top of the network, built or not; parameters there stay as they are.

        The optimizer's state starts afresh. Raises ValueError and TypeError as `add`.
        """
        from .transfer import heads

        heads.append(self, layer)
