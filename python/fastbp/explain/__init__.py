"""One training step laid out as it would be calculated by hand.

All numbers are those of the reference engine in float64, which takes the step that the model would
take next: forward z and a, the loss, backward delta = dL/dz, dW, db, and the update that the
model's optimizer makes of them, with what Dropout leaves out in that step and the penalties of
regularizers. Nothing is calculated here (steps.py reads, layout.py writes), and the model itself is
not changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import devices, network
from ..arrays import Array
from ..reference import ops as formulas
from . import given
from .steps import (
    ActivationStep,
    AddStep,
    CellStep,
    DenseStep,
    DropoutStep,
    EmbeddingStep,
    NormalizeStep,
    NormStep,
    RecurrentStep,
    SplitStep,
    Step,
    Way,
    short_title,
    steps_of,
)

if TYPE_CHECKING:
    from ..model import Sequential

__all__ = [
    "ActivationStep",
    "AddStep",
    "CellStep",
    "DenseStep",
    "DropoutStep",
    "EmbeddingStep",
    "Explanation",
    "NormStep",
    "NormalizeStep",
    "RecurrentStep",
    "SplitStep",
    "Step",
    "Way",
    "explain",
]


@dataclass
class Explanation:
    """All numbers of a step; `str` lays them out.

    Attributes:
        x, y: the row and its target, float64 (class numbers int64); of a batch all rows, of a
            sequence all steps.
        steps: objects of the kinds above from input to output.
        loss, dx: the loss, and its gradient by x.
        penalty: the part of the loss that regularizers add.
        probabilities: the link's, where the loss is about classes and takes logits; or None.
        gradients: those of all parameters by name, as Sequential.gradients has them; 0 where
            frozen.
        after: the parameters by name after the update, and the state ("1.moving_mean"), float64;
            nothing with an optimizer that makes no single steps.
        frozen: the names of the parameters that are not trained.
        rows: what the rows of arrays are: "row" of a batch or "step" of a sequence.
        title, loss_name, link, optimizer: texts for the layout.
    """

    x: Array
    y: Array
    steps: list[Step]
    loss: float
    penalty: float
    probabilities: Array | None
    dx: Array
    gradients: dict[str, Array]
    after: dict[str, Array]
    frozen: frozenset[str]
    rows: str
    title: str
    loss_name: str
    link: str | None
    optimizer: str

    @property
    def dense(self) -> list[DenseStep]:
        """The steps of Dense layers."""
        return [step for step in self.steps if isinstance(step, DenseStep)]

    def __str__(self) -> str:
        from .layout import lines

        return "\n".join(lines(self))


def explain(model: Sequential, x: Any, y: Any) -> Explanation:
    """Sequential.explain; see there."""
    compiled = model._require_compiled()
    samples, y64 = given.checked(model, x, y)
    twin = _twin(model)
    loss, gradient, run = twin.trace(samples, y64)
    steps = steps_of(model.layers, twin, run, gradient)
    gradients = {name: g.copy() for name, g in network.views(model.layers, twin, gradient).items()}
    penalty = network.penalty(model.layers, twin, model._frozen)
    output = run.values[-1]
    after: dict[str, Array] = {}
    if compiled.optimizer.by_steps:
        later = _twin(model)  # another: the steps hold views of the first one's parameters
        later.step(samples, y64)
        after = network.views(model.layers, later, later.parameters)
        after |= network.state(model.layers, later)
    return Explanation(
        x=_plain(run.values[0]),
        y=_plain(y64) if y64.ndim > 1 else y64,
        steps=steps,
        loss=loss,
        penalty=penalty,
        probabilities=_probabilities(model, output),
        dx=_plain(run.gradients[0]),
        gradients=gradients,
        after=after,
        frozen=frozenset(name for name in gradients if int(name.split(".")[0]) in model._frozen),
        rows="step" if model._reads_sequences else "row",
        title=f"{model.inputs} inputs, " + ", ".join(map(short_title, model.layers)),
        loss_name=compiled.loss.name,
        link=compiled.loss.traits.link,
        optimizer=repr(compiled.optimizer),
    )


def _plain(array: Array) -> Array:
    """The one row or sequence itself; of several rows all."""
    return array[0] if len(array) == 1 else array


def _probabilities(model: Sequential, output: Array) -> Array | None:
    link = model._require_compiled().loss.traits.link
    if link == "softmax":
        rows: Array = formulas.softmax(output.reshape(-1, output.shape[-1]))
        return _plain(rows.reshape(output.shape))
    return _plain(formulas.sigmoid(output)) if link == "sigmoid" else None


def _twin(model: Sequential) -> Any:
    """The reference engine in float64 where the model's stands."""
    engine, compiled = model._require_built(), model._require_compiled()
    backend = devices.backend("reference")
    twin = network.make_engine(
        model.layers, engine.inputs, backend, "float64", model.seed, model._frozen
    )
    changed = compiled.optimizer.changed
    network.compile_engine(model.layers, twin, compiled)
    twin.parameters[...] = engine.parameters
    kept = network.state(model.layers, engine)
    for name, view in network.state(model.layers, twin).items():
        view[...] = kept[name]
    for mine, theirs in zip(twin.optimizer_state, engine.optimizer_state, strict=True):
        mine[...] = theirs
    twin.steps = engine.steps
    network.apply_rules(model.layers, twin, compiled.optimizer)
    compiled.optimizer.changed = changed  # what the twin was told, the engine may not know yet
    return twin
