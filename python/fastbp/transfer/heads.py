"""A trained network made ready for another task: another head, or layers on top."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import checks, losses, network
from ..errors import describe
from ..layers import Dense, Layer
from ..structure import owning, require_order

if TYPE_CHECKING:
    from ..transferable import Transferable


def replace_head(model: Transferable, units: int) -> None:
    """Sequential.replace_head; see there."""
    model._turns.require_idle("replace_head")
    units = checks.integer("units", units)
    layers = list(model.layers)
    dense = [index for index, layer in enumerate(layers) if isinstance(layer, Dense)]
    if not dense:
        raise ValueError("replace_head replaces the last Dense layer; this network has none")
    place = dense[-1]
    layers[place] = Dense(**{**layers[place].config(), "units": units})
    _continue_as(model, layers, place)


def append(model: Transferable, layer: Layer) -> None:
    """Sequential.append; see there."""
    model._turns.require_idle("append")
    if not isinstance(layer, Layer):
        raise TypeError(f"append takes a layer object such as Dense(10); got {describe(layer)}")
    taken = set(map(id, owning(model.layers)))
    if any(id(owner) in taken for owner in owning([layer])):
        raise ValueError(f"{layer!r} is in the model already: make a new object")
    require_order([*model.layers, layer])
    _continue_as(model, [*model.layers, layer], len(model.layers))


def _continue_as(model: Transferable, layers: Sequence[Layer], fresh: int) -> None:
    """Gives the model these layers; all parameters stay but those of layer `fresh`."""
    compiled, outputs = model._compiled, network.outputs(layers)
    frozen = model._frozen - {fresh}
    if compiled is not None:
        last = network.last_activation(layers)
        warning = losses.check_outputs(compiled.loss, outputs, last)
        if warning:
            warnings.warn(warning, UserWarning, stacklevel=4)
    if model._engine is not None:
        assert model._backend is not None and model.inputs is not None
        backend, seed = model._backend, model.seed
        engine = network.make_engine(layers, model.inputs, backend, model.dtype, seed, frozen)
        network.initialize(layers, engine, backend, seed)
        kept = model.parameters() | model.state()
        views = network.views(layers, engine, engine.parameters) | network.state(layers, engine)
        for name, view in views.items():
            if not name.startswith(f"{fresh}."):
                view[...] = kept[name]
        if compiled is not None:
            network.compile_engine(layers, engine, compiled)
        model._use(engine)
    if layers[fresh].carries():
        model._carried = None  # which have none of its own
    model._layers[:] = layers
    model._reads_sequences = network.reads_sequences(layers)
    model._frozen = frozen
    model._outputs = outputs
