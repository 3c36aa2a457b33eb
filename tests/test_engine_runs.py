"""A run of epochs in pieces: stopped after any step and taken up again, the bits are the same.

Compared with == throughout: parameters, losses, metrics, and the outputs that a run keeps.
"""

from typing import Any

import numpy as np
import pytest

import sweeps
from fastbp import _core, reference

ENGINES = {"cpu": _core.Engine, "reference": reference.Engine}
LAYERS = [("dense", 6, True), ("activation", "tanh", 0.0), ("dense", 3, True)]
METRICS = ["accuracy", "class_counts", "mse"]
WIDTH = 1 + 1 + 9 + 1  # the loss, and of each of 3 classes 3 counts
N, BATCH, EPOCHS, SEED = 23, 5, 3, 9
STEPS = -(-N // BATCH) * EPOCHS


def make(device: str, loss: str = "softmax_cross_entropy", inputs: int = 4) -> Any:
    engine = ENGINES[device](inputs, LAYERS, "float32")
    engine.parameters[...] = sweeps.normal(3, "float32", engine.parameters.size)
    engine.compile(
        loss, 0.0, "adam", {"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8}
    )
    return engine


def data(loss: str = "softmax_cross_entropy", rows: int = N) -> tuple[Any, Any]:
    x = sweeps.normal(1, "float32", rows, 4)
    if loss == "softmax_cross_entropy":
        return x, (np.arange(rows) * 7 % 3).astype(np.int64)
    return x, sweeps.normal(2, "float32", rows, 3)


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "mse", "half_sse"])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("piece", [1, 2, 4, 7, STEPS])
def test_pieces_are_the_whole(device: str, piece: int, shuffle: bool, loss: str) -> None:
    x, y = data(loss)
    whole, engine = make(device, loss), make(device, loss)
    losses, values = whole.train(x, y, BATCH, EPOCHS, 2, shuffle, SEED, METRICS)
    position, record = np.zeros(2, np.int64), np.zeros((EPOCHS, WIDTH))
    for taken in range(0, STEPS, piece):
        arguments = (x, y, BATCH, EPOCHS, 2, shuffle, SEED, METRICS)
        engine.train(*arguments, position=position, record=record, steps=piece)
        done = min(taken + piece, STEPS)
        epoch, batch = divmod(done, STEPS // EPOCHS)
        assert position.tolist() == [epoch, min(batch * BATCH, N)]
        assert engine.steps == done
        # Nothing of a run is kept elsewhere: another engine can go on.
        other = make(device, loss)
        other.parameters[...] = engine.parameters
        for mine, theirs in zip(other.optimizer_state, engine.optimizer_state, strict=True):
            mine[...] = theirs
        other.steps = engine.steps
        engine = other
    assert (engine.parameters == whole.parameters).all()
    assert (record == np.column_stack([losses, values])).all()


def test_an_order_in_between_is_forgotten(device: str) -> None:
    x, y = data()
    whole, engine = make(device), make(device)
    whole.train(x, y, BATCH, 1, 0, True, SEED, [])
    position, record = np.zeros(2, np.int64), np.zeros((1, 1))
    arguments = (x, y, BATCH, 1, 0, True)
    engine.train(*arguments, SEED, [], position=position, record=record, steps=2)
    kept = engine.parameters.copy(), [slot.copy() for slot in engine.optimizer_state]
    engine.train(*arguments, SEED + 1, [])
    engine.train(x[:7], y[:7], BATCH, 1, 0, True, SEED, [])
    engine.parameters[...] = kept[0]
    for slot, values in zip(engine.optimizer_state, kept[1], strict=True):
        slot[...] = values
    engine.steps = 2
    engine.train(*arguments, SEED, [], position=position, record=record)
    assert (engine.parameters == whole.parameters).all()


def test_batches_by_themselves_add_up_to_an_epoch(device: str) -> None:
    x, y = data()
    whole, engine = make(device), make(device)
    outputs, seen = np.empty((N, 3), np.float32), np.empty((N, 3), np.float32)
    losses, values = whole.train(x, y, BATCH, 1, 0, True, SEED, METRICS, outputs=outputs)
    order = reference.random.permutation(N, SEED, 0)
    sums = np.zeros(WIDTH)
    for at in range(0, N, BATCH):
        rows = order[at : at + BATCH]
        expected = np.empty((len(rows), 3), np.float32)
        engine.predict(x[rows], expected)
        engine.train_batch(x[rows], y[rows], METRICS, sums, outputs=seen[at : at + BATCH])
        assert (seen[at : at + BATCH] == expected).all()  # as they were before the step
    assert (engine.parameters == whole.parameters).all()
    sums[[0, 1, -1]] /= N  # counts stay
    assert sums == pytest.approx([losses[0], *values[0]], rel=1e-15)
    assert sums[2:-1].reshape(3, 3).sum(axis=1)[1:].tolist() == [N, N]  # taken, and of the class
    assert (outputs == seen).all()


@pytest.mark.parametrize("rows", [1, 257, 4096])
def test_outputs_are_those_of_predict(rows: int) -> None:
    """By parts of a batch and by threads too."""
    x, y = data(rows=rows)
    engine = make("cpu")
    outputs, expected = np.empty((rows, 3), np.float32), np.empty((rows, 3), np.float32)
    engine.predict(x, expected)
    engine.evaluate(x, y, 100, METRICS, outputs=outputs)
    assert (outputs == expected).all()
    outputs[...] = np.nan
    engine.train(x, y, rows, 1, 0, False, SEED, [], outputs=outputs)
    assert (outputs == expected).all()


@pytest.mark.parametrize("position", [[-1, 0], [4, 0], [3, 1], [0, N], [0, -1]])
def test_a_position_outside_the_run_is_refused(position: list[int]) -> None:
    x, y = data()
    with pytest.raises(ValueError, match="position: expected at most 3"):
        make("cpu").train(
            x, y, BATCH, EPOCHS, 0, True, SEED, [], position=np.array(position, np.int64)
        )
    engine = make("cpu")
    for wrong in ({"record": np.zeros((3, 2))}, {"outputs": np.zeros((N, 3))}):
        with pytest.raises((ValueError, TypeError), match="expected"):
            engine.train(x, y, BATCH, EPOCHS, 0, True, SEED, [], **wrong)
    with pytest.raises(ValueError, match=r"sums: expected shape \(1,\)"):
        engine.train_batch(x, y, [], np.zeros(2))
