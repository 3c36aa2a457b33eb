"""What a user does with sequences: lengths, states from call to call, streams, wrappers, files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fastbp as bp
from fastbp.layers import Layer

Array = NDArray[Any]


def made(
    layers: list[Layer], loss: str = "mse", device: str = "cpu", **settings: Any
) -> bp.Sequential:
    model = bp.Sequential(layers, seed=3)
    model.compile(optimizer="adam", loss=loss, device=device, **settings)
    return model


def ragged(n: int = 40, steps: int = 9) -> tuple[list[Array], Array]:
    """Arrays of random length, of two values a step, and their lengths."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, steps + 1, n)
    lengths[0] = steps
    return [rng.normal(size=(m, 2)).astype(np.float32) for m in lengths], lengths


def test_lists_arrays_and_lengths_are_the_same(device: str) -> None:
    parts, lengths = ragged()
    x, y = bp.Sequences(parts), np.array([[p.sum()] for p in parts])
    results = []
    for given in ({"X": x}, {"X": x.values, "lengths": lengths}):
        model = made([bp.LSTM(6, return_sequences=True), bp.GRU(4), bp.Dense(1)], device=device)
        model.fit(**given, y=y, epochs=2, batch_size=16, validation_split=0.25, verbose=0)
        measured = model.evaluate(**given, y=y)["loss"]
        results.append([model.predict(**given), measured, *model.history.history["val_loss"]])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_sequence_does_not_see_how_long_the_others_are() -> None:
    parts, _ = ragged()
    model = made([bp.Bidirectional(bp.LSTM(6)), bp.Dense(1)])
    whole = model.predict(bp.Sequences(parts))
    for i in (0, 5, 17):
        np.testing.assert_array_equal(model.predict(parts[i][None]), whole[i : i + 1])


def test_one_of_many_and_some_of_many() -> None:
    parts, lengths = ragged()
    x = bp.Sequences(parts)
    model = made([bp.GRU(5), bp.Dense(2)])
    whole = model.predict(x)
    for i in (7, -1, np.int64(3)):
        one = x[i]
        assert len(one) == 1 and one.lengths[0] == lengths[i]
        np.testing.assert_array_equal(model.predict(one)[0], whole[i])
    for rows in (slice(3, 30, 4), lengths > 4, np.array([8, 2, 2])):
        np.testing.assert_array_equal(model.predict(x[rows]), whole[rows])
    with pytest.raises(IndexError):
        x[40]


def test_outputs_at_every_step_count_as_far_as_the_inputs_do(device: str) -> None:
    """Whatever y and X hold behind the ends; the loss is the mean over all steps that count."""
    parts, lengths = ragged(30)
    x = bp.Sequences(parts)
    y = [part.sum(axis=1, keepdims=True) for part in parts]
    padded = np.full((30, 9, 1), np.nan, np.float32)
    values = np.full((30, 9, 2), np.inf, np.float32)
    for i, part in enumerate(parts):
        padded[i, : lengths[i]], values[i, : lengths[i]] = y[i], part
    layers = [bp.GRU(5, return_sequences=True), bp.Dense(1)]
    results = []
    for features, target in ((x, y), (bp.Sequences(values, lengths), padded)):
        model = made(layers, device=device, metrics=["mae"], dtype="float64")
        model.fit(features, target, epochs=2, batch_size=16, verbose=0)
        results.append((model.evaluate(features, target, batch_size=7), model.predict(x)))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])
    errors = np.concatenate([p[: len(t)] - t for p, t in zip(results[0][1], y, strict=True)])
    assert results[0][0]["loss"] == pytest.approx(np.square(errors).mean(), rel=1e-6)
    assert results[0][0]["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-6)


def test_class_numbers_behind_the_ends_may_be_anything() -> None:
    parts, _ = ragged()
    x = bp.Sequences(parts)
    y = np.where(x.running(), 1, -100)
    model = made([bp.GRU(5, return_sequences=True), bp.Dense(2)], "softmax_cross_entropy")
    model.fit(x, y, epochs=60, verbose=0)
    assert (model.predict_class(x)[x.running()] == 1).all()
    with pytest.raises(ValueError, match="-100"):
        model.fit(x.values, y, verbose=0)


def test_sample_weights_of_sequences_of_different_lengths(device: str) -> None:
    parts, _ = ragged(12)
    x = bp.Sequences(parts)
    y = [part[:, :1] for part in parts]
    kept = np.arange(12) < 7
    weighted = made([bp.GRU(5, return_sequences=True), bp.Dense(1)], device=device, dtype="float64")
    alone = made([bp.GRU(5, return_sequences=True), bp.Dense(1)], device=device, dtype="float64")
    loss, gradient = weighted.gradients(x, y, sample_weight=kept.astype(float))
    same, expected = alone.gradients(x[kept], y[:7])
    np.testing.assert_allclose(loss, same, rtol=1e-12)
    for name, value in gradient.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-9, atol=1e-12)


def test_augmented_sequences() -> None:
    parts, _ = ragged()
    x, y = bp.Sequences(parts), np.ones((40, 1))
    shapes = set()

    def noise(values: Array, rng: np.random.Generator) -> Array:
        shapes.add(values.shape[1:])
        return values + rng.normal(size=values.shape)

    model = made([bp.GRU(5), bp.Dense(1)])
    model.fit(x, y, epochs=2, batch_size=16, augment=noise, verbose=0)
    assert shapes == {(9, 2)}


def test_augmented_sequences_may_have_anything_behind_their_ends(device: str) -> None:
    parts, _ = ragged()
    zeros, y = bp.Sequences(parts), np.ones((40, 1))
    nothing = bp.Sequences(
        np.where(zeros.running()[:, :, None], zeros.values, np.nan), zeros.lengths
    )
    results = []
    for x in (zeros, nothing):
        model = made([bp.GRU(5), bp.Dense(1)], device=device)
        model.fit(x, y, batch_size=16, augment=lambda values, rng: 2 * values, verbose=0)
        results.append(model.predict(zeros).tobytes())
    assert results[0] == results[1]
    with pytest.raises(ValueError, match="what augment returned has NaN"):
        model.fit(zeros, y, augment=lambda values, rng: values * np.nan, verbose=0)


def test_augmentation_and_streams_know_an_embeddings_entries(device: str) -> None:
    """As predict and fit do: other numbers are refused, and change nothing."""
    layers = [bp.Embedding(5, 3), bp.GRU(4, return_sequences=True), bp.Dense(2)]
    model = made(layers, device=device)
    x = np.random.default_rng(0).integers(0, 5, (6, 4))
    before = model.predict(x)
    with pytest.raises(ValueError, match="takes the integers 0 to 4"):
        model.fit(x, np.zeros((6, 4, 2)), augment=lambda batch, rng: batch + 1, verbose=0)
    stream = model.stream()
    for step, number in enumerate(x[0]):
        for wrong in (5, -1, 1.5, 1e30):
            with pytest.raises(ValueError, match="takes the integers 0 to 4"):
                stream.step([wrong])
        np.testing.assert_allclose(stream.step([number]), before[0, step], rtol=1e-5)
    np.testing.assert_array_equal(model.predict(x), before)


CELLS = [bp.SimpleRNN, bp.LSTM, bp.GRU]


@pytest.mark.parametrize("layer", CELLS)
def test_states_from_call_to_call(layer: type[Layer], device: str) -> None:
    """The states behind one half, given to the other: the bits of the whole."""
    dtype = "float32" if device == "cpu" else "float64"
    x = np.random.default_rng(0).normal(size=(5, 8, 3))
    layers = [layer(7, return_sequences=True), bp.LSTM(4, return_sequences=True), bp.Dense(2)]
    model = made(layers, device=device, dtype=dtype)
    whole, end = model.predict(x, return_state=True)
    first, state = model.predict(x[:, :3], return_state=True)
    second, last = model.predict(x[:, 3:], initial_state=state, return_state=True)
    np.testing.assert_array_equal(np.concatenate([first, second], axis=1), whole)
    assert {name: value.shape for name, value in end.items()} == {
        **{f"0.{name}": (5, 7) for name in ("h", "c")[: 1 + (layer is bp.LSTM)]},
        "1.h": (5, 4),
        "1.c": (5, 4),
    }
    for name, value in end.items():
        np.testing.assert_array_equal(last[name], value)


def test_states_behind_the_end_of_each_sequence() -> None:
    parts, _ = ragged()
    model = made([bp.LSTM(6), bp.Dense(1)])
    _, state = model.predict(bp.Sequences(parts), return_state=True)
    for i in (0, 3, 11):
        _, own = model.predict(parts[i][None], return_state=True)
        for name, value in own.items():
            np.testing.assert_array_equal(value[0], state[name][i])


@pytest.mark.parametrize("layer", CELLS)
def test_a_stream_is_predict_step_by_step(layer: type[Layer]) -> None:
    x = np.random.default_rng(0).normal(size=(3, 8, 2)).astype(np.float32)
    model = made([layer(7, return_sequences=True), bp.Dense(2)])
    whole = model.predict(x)
    stream = model.stream(batch=3)
    np.testing.assert_array_equal(np.stack([stream.step(x[:, t]) for t in range(8)], 1), whole)
    stream.reset()
    np.testing.assert_array_equal(stream.step(x[:, 0]), whole[:, 0])
    kept = stream.state
    second = stream.step(x[:, 1])
    stream.state = kept
    with pytest.raises(ValueError, match="NaN"):
        stream.step(np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match=r"x must have shape \(3, 2\)"):
        stream.step(x[0])
    np.testing.assert_array_equal(stream.step(x[:, 1]), second)
    one = model.stream()
    np.testing.assert_array_equal(one.step([*x[0, 0]]), whole[0, 0])


def test_streams_that_cannot_be() -> None:
    for layer in (bp.Bidirectional(bp.LSTM(2)), bp.GRU(2, go_backwards=True)):
        model = made([layer, bp.Dense(1)])
        model.build(2)
        with pytest.raises(ValueError, match="needs the steps that are still to come"):
            model.stream()
    model = made([bp.Dense(1)])
    with pytest.raises(ValueError, match="the network has none"):
        model.stream()


def test_stateful_layers_go_on_where_they_were(device: str) -> None:
    dtype = "float32" if device == "cpu" else "float64"
    x = np.random.default_rng(0).normal(size=(4, 6, 2))
    layers = [bp.GRU(5, stateful=True, return_sequences=True), bp.Dense(1)]
    model = made(layers, device=device, dtype=dtype)
    plain = made(
        [bp.GRU(5, return_sequences=True), bp.Dense(1)], device=device, dtype=dtype
    ).predict(x)
    parts = [model.predict(x[:, at : at + 2]) for at in (0, 2, 4)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), plain)
    assert not np.array_equal(model.predict(x[:, :2]), parts[0])
    model.reset_states()
    np.testing.assert_array_equal(model.predict(x[:, :2]), parts[0])
    with pytest.raises(ValueError, match="hold the states of 4 sequences; got 2"):
        model.predict(x[:2])


def test_stateful_training_is_steps_with_carried_states(device: str) -> None:
    """fit without shuffling, and `step` batch by batch: the same, and every epoch begins anew."""
    x = np.random.default_rng(0).normal(size=(12, 3, 2))
    y = x.sum(axis=(1, 2))[:, None]
    layers = [bp.LSTM(5, stateful=True), bp.Dense(1)]
    run, steps = (made(layers, device=device, dtype="float64") for _ in range(2))
    run.fit(x, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
    for _ in range(2):
        steps.reset_states()
        for at in (0, 4, 8):
            steps.step(x[at : at + 4], y[at : at + 4])
    for name, value in run.parameters().items():
        np.testing.assert_array_equal(value, steps.parameters()[name])
    with pytest.raises(ValueError, match="give shuffle=False"):
        run.fit(x, y, batch_size=4, verbose=0)
    with pytest.raises(ValueError, match="a batch_size that divides 12 rows"):
        run.fit(x, y, batch_size=5, shuffle=False, verbose=0)


@pytest.mark.parametrize("layer", [bp.LSTM, bp.GRU, bp.SimpleRNN])
def test_gradients_are_of_the_step_that_carried_states_begin(device: str, layer: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 1))
    model = made([layer(5, stateful=True), bp.Dense(1)], device=device, dtype="float64")
    model.compile(loss="mse", optimizer=bp.SGD(1.0), device=device, dtype="float64")
    for _ in range(2):
        model.predict(x)
        loss, gradients = model.gradients(x, y)
        at_x = model.input_gradient(x, y)[1]
        moved = x.copy()
        moved[1, 0, 1] += 1e-6
        difference = (model.gradients(moved, y)[0] - loss) / 1e-6
        np.testing.assert_allclose(at_x[1, 0, 1], difference, rtol=1e-3, atol=1e-6)
        before = {name: value.copy() for name, value in model.parameters().items()}
        assert model.step(x, y) == loss
        for name, value in model.parameters().items():
            np.testing.assert_allclose(before[name] - value, gradients[name], rtol=0, atol=1e-14)


def test_a_call_that_fails_leaves_the_states() -> None:
    model = made([bp.LSTM(5, stateful=True), bp.Dense(1)])
    x = np.random.default_rng(0).normal(size=(4, 3, 2))
    model.predict(x)
    second = model.predict(x)
    model.reset_states()
    model.predict(x)
    with pytest.raises(
        ValueError, match=r"NaN at row 0, step 0, .*isfinite\(X\).all\(axis=\(1, 2\)\)"
    ):
        model.step(np.full((4, 3, 2), np.nan), np.zeros((4, 1)))
    np.testing.assert_array_equal(model.predict(x), second)


def test_numbers_that_float32_cannot_hold_are_named() -> None:
    x = np.zeros((4, 3, 2))
    x[1, 1, 0] = x[2, 2, 0] = 1e300
    model = made([bp.GRU(5), bp.Dense(1)])
    with pytest.raises(
        ValueError, match=r"X has 1e\+300 at row 1, step 1, column 0, which float32"
    ):
        model.step(x, np.zeros((4, 1)), lengths=[3, 2, 2, 2])
    model.step(x, np.zeros((4, 1)), lengths=[3, 1, 2, 2])


def test_states_that_are_refused_do_not_build_the_model() -> None:
    model = made([bp.GRU(5), bp.Dense(1)])
    x = np.zeros((4, 3, 2))
    for bad in ({"0.h": np.zeros((3, 5))}, {"0.c": np.zeros((4, 5))}):
        with pytest.raises(ValueError):
            model.predict(x, initial_state=bad)
    assert model.inputs is None
    model.predict(x[:, :, :1], initial_state={"0.h": np.ones((4, 5))})


def test_a_stateful_model_goes_on_as_its_copies_and_from_no_row(device: str) -> None:
    x = np.random.default_rng(0).normal(size=(4, 3, 2))
    model = made([bp.GRU(5, stateful=True), bp.Dense(1)], device=device)
    assert model.predict(x[:0]).shape == (0, 1)
    model.predict(x)
    assert model.predict(x[:0]).shape == (0, 1)
    seen = model.forward(x, training=True)
    other = copy.copy(model)
    np.testing.assert_array_equal(model.predict(x), seen)
    np.testing.assert_array_equal(other.predict(x), seen)


def test_a_copy_made_in_fit_keeps_the_states_of_then() -> None:
    x = np.random.default_rng(0).normal(size=(6, 3, 2))
    model = made([bp.GRU(5, stateful=True, return_sequences=True), bp.Dense(1)])
    copies: list[tuple[bp.Sequential, bytes]] = []

    def keep(epoch: int, logs: object) -> None:
        copies.append((copy.copy(model), model._carried.tobytes()))

    watcher = bp.LambdaCallback(on_epoch_end=keep)
    fit = {"epochs": 2, "batch_size": 3, "shuffle": False, "verbose": 0}
    model.fit(x, np.zeros((6, 3, 1)), callbacks=watcher, **fit)
    assert copies[0][1] != copies[1][1]
    assert all(one._carried.tobytes() == then for one, then in copies)


def test_a_stateful_layer_on_top_begins_with_zero() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3, 2))
    model = made([bp.Dense(2), bp.GRU(5, stateful=True, return_sequences=True), bp.Dense(1)])
    model.predict(x)
    model.append(bp.GRU(1, stateful=True))
    assert model.predict(x, return_state=True)[1]["3.h"].shape == (4, 1)


def test_wrappers_and_options_are_saved(tmp_path: Path) -> None:
    parts, _ = ragged()
    x, y = bp.Sequences(parts), np.ones((40, 1))
    layers = [
        bp.TimeDistributed(bp.Dense(4, activation="tanh")),
        bp.Bidirectional(bp.GRU(3, return_sequences=True, dropout=0.1), merge_mode="sum"),
        bp.TimeDistributed(bp.LayerNorm()),
        bp.Bidirectional(bp.LSTM(3, recurrent_dropout=0.2, truncate=4)),
        bp.Dense(1),
    ]
    model = made(layers)
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / "model.safetensors")
    again = bp.load(tmp_path / "model.safetensors")
    assert again.layers == model.layers
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    for one in (model, again):
        one.fit(x, y, verbose=0)
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    shapes = {name: value.shape for name, value in model.parameters().items()}
    assert shapes["3.kernel"] == (3, 24) and shapes["3.bias"] == (24,)
    assert shapes["1.backward_recurrent_bias"] == (9,) == shapes["1.recurrent_bias"]
    recurrent = made(layers[3:])
    recurrent.build(3)
    one, other = (recurrent.parameters()[f"0.{way}recurrent_kernel"] for way in ("", "backward_"))
    np.testing.assert_allclose(other @ other.T, np.eye(3), atol=1e-5)
    assert not np.allclose(one, other)


def test_bidirectional_is_two_layers(device: str) -> None:
    x = np.random.default_rng(0).normal(size=(6, 5, 3))
    both = made([bp.Bidirectional(bp.LSTM(4, return_sequences=True))], device=device)
    both.build(3)
    theirs = both.parameters()
    outputs = []
    for way, prefix in enumerate(("", "backward_")):
        one = made([bp.LSTM(4, return_sequences=True, go_backwards=way == 1)], device=device)
        one.build(3)
        columns = slice(16 * way, 16 * (way + 1))
        one.set_parameters(
            {
                "0.kernel": theirs["0.kernel"][:, columns],
                "0.bias": theirs["0.bias"][columns],
                "0.recurrent_kernel": theirs[f"0.{prefix}recurrent_kernel"],
            }
        )
        outputs.append(one.predict(x))
    np.testing.assert_array_equal(both.predict(x), np.concatenate(outputs, axis=-1))


def test_time_distributed_makes_a_network_of_sequences() -> None:
    x = np.random.default_rng(0).normal(size=(6, 5, 3))
    model = made([bp.TimeDistributed(bp.Dense(4, activation="relu")), bp.Dense(2)])
    out = model.predict(x)
    rows = made([bp.Dense(4, activation="relu"), bp.Dense(2)])
    rows.build(3)
    rows.set_parameters(model.parameters())
    np.testing.assert_array_equal(rows.predict(x.reshape(30, 3)), out.reshape(30, 2))
    model.fit(x, out, verbose=0)


def test_dropout_leaves_out_the_same_at_all_steps() -> None:
    """With an input of ones the states of an untrained linear chain tell what was left out."""
    layer = bp.SimpleRNN(1, activation="relu", return_sequences=True, dropout=0.5, use_bias=False)
    model = made([layer])
    model.build(1)
    model.set_parameters({"0.kernel": [[1.0]], "0.recurrent_kernel": [[0.0]]})
    seen = model.forward(np.ones((200, 4, 1)), training=True)[..., 0]
    assert set(np.unique(seen)) == {0.0, 2.0}
    np.testing.assert_array_equal(seen, np.repeat(seen[:, :1], 4, axis=1))
    assert 60 < (seen[:, 0] == 0).sum() < 140


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: bp.Sequences(np.zeros(3)), ValueError, "sequences, steps, features"),
    (lambda: made([bp.LSTM(2)]).predict(bp.Sequences(np.zeros((2, 3)))), ValueError, "columns"),
    (lambda: bp.Sequences(np.zeros((2, 3, 1)), [0, 3]), ValueError, r"lengths\[0\] = 0"),
    (lambda: bp.Sequences(np.zeros((2, 3, 1)), [3, 4]), ValueError, r"lengths\[1\] = 4"),
    (lambda: bp.Sequences(np.zeros((2, 3, 1)), [3]), ValueError, "one number for each of 2"),
    (lambda: bp.Sequences(np.zeros((2, 3, 1)), [1.0, 2.0]), TypeError, "must be integers"),
    (lambda: bp.Sequences([]), ValueError, "no sequences"),
    (lambda: bp.Sequences([np.zeros((2, 1)), np.zeros((0, 1))]), ValueError, "without a step"),
    (lambda: bp.Sequences([np.zeros((2, 1)), np.zeros((2, 2))]), ValueError, "same features"),
    (lambda: bp.Bidirectional(bp.Dense(2)), TypeError, "a recurrent layer such as"),
    (lambda: bp.Bidirectional(bp.LSTM(2, go_backwards=True)), ValueError, "both directions"),
    (lambda: bp.Bidirectional(bp.LSTM(2), merge_mode="mul"), ValueError, "merge_mode"),
    (lambda: bp.TimeDistributed(bp.LSTM(2)), ValueError, "takes a layer of rows"),
    (lambda: bp.TimeDistributed("dense"), TypeError, "a layer such as Dense"),
    (lambda: bp.LSTM(2, dropout=1.0), ValueError, "dropout"),
    (lambda: bp.LSTM(2, truncate=-1), ValueError, "truncate"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_descriptions(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_bad_states_and_lengths_of_calls() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3, 2))
    model = made([bp.LSTM(5), bp.Dense(1)])
    model.build(2)
    before = {name: value.copy() for name, value in model.parameters().items()}
    good = {"0.h": np.zeros((4, 5)), "0.c": np.zeros((4, 5))}
    for state, message in (
        ({"0.h": np.zeros((4, 5))}, "states lack '0.c'"),
        ({**good, "1.h": 0}, "1.h"),
        ({**good, "0.h": np.zeros((4, 6))}, r"0.h has shape \(4, 5\); got shape \(4, 6\)"),
        ({**good, "0.h": np.full((4, 5), np.nan)}, "0.h has NaN .*: fill or drop such rows first$"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict(x, initial_state=state)
    with pytest.raises(TypeError, match="states must be a dict"):
        model.predict(x, initial_state=[np.zeros((4, 5))])
    with pytest.raises(ValueError, match=r"lengths\[3\] = 4 is not a length from 1 to 3"):
        model.fit(x, np.zeros((4, 1)), lengths=[1, 2, 3, 4], verbose=0)
    with pytest.raises(ValueError, match="lengths of its own"):
        model.predict(bp.Sequences(x), lengths=[1, 2, 3, 3])
    dense = made([bp.Dense(1)])
    with pytest.raises(ValueError, match="no layer of the network reads sequences"):
        dense.predict(bp.Sequences(x))
    with pytest.raises(ValueError, match="the network has none"):
        dense.predict(np.zeros((2, 2)), return_state=True)
    for name, value in model.parameters().items():
        np.testing.assert_array_equal(value, before[name])


def test_integers_of_an_embedding_need_no_third_axis() -> None:
    words = np.random.default_rng(0).integers(0, 9, (12, 5))
    model = made([bp.Embedding(9, 4), bp.LSTM(3), bp.Dense(1)])
    model.fit(words, np.ones((12, 1)), epochs=1, verbose=0)
    whole = model.predict(words[:, :, None])
    np.testing.assert_array_equal(model.predict(words), whole)
    np.testing.assert_array_equal(model.predict(words.tolist()), whole)
    lengths = np.array([5, 3, 1] * 4)
    ends = model.predict(words[:, :, None], lengths=lengths)
    parts = bp.Sequences([row[:n] for row, n in zip(words, lengths, strict=True)])
    np.testing.assert_array_equal(model.predict(parts), ends)
    with pytest.raises(ValueError, match="takes the integers 0 to 8"):
        model.predict(words + 1)


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("value", [0.0, -1.5])
def test_masking_finds_the_lengths(device: str, value: float, every: bool) -> None:
    """Every result is that of lengths, of a loaded model too."""
    parts, lengths = ragged()
    x = bp.Sequences(parts).values
    x[np.arange(x.shape[1]) >= lengths[:, None]] = value
    y = np.random.default_rng(1).normal(size=(*x.shape[: 1 + every], 1)).astype(np.float32)
    layers: list[Layer] = [bp.LSTM(6, return_sequences=every), bp.Dense(1)]
    plain = made(layers, device=device)
    masks = made([bp.Masking(value), *copy.deepcopy(layers)], device=device)
    for model in (plain, masks):
        model.build(2)
    for array, other in zip(masks.parameters().values(), plain.parameters().values(), strict=True):
        array[...] = other
    results = []
    for model, more in ((plain, {"lengths": lengths}), (masks, {})):
        loss, gradients = model.gradients(x, y, **more)
        said: list[Any] = [loss, *gradients.values(), model.step(x, y, **more)]
        fit = model.fit(x, y, batch_size=16, validation_split=0.25, verbose=0, **more)
        said += [fit.history["val_loss"], model.evaluate(x, y, **more)["loss"]]
        results.append([*said, model.input_gradient(x, y, **more)[1], model.predict(x, **more)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_masking_keeps_its_value_and_lengths_count_before_it(tmp_path: Path) -> None:
    x, lengths = np.ones((3, 4, 2)), np.array([4, 1, 2])
    model = made([bp.Masking(1.5), bp.GRU(3), bp.Dense(1)])
    unmasked = model.predict(x)
    model.save(tmp_path / "model")
    x[np.arange(4) >= lengths[:, None]] = 1.5
    for one in (model, bp.load(tmp_path / "model"), copy.deepcopy(model)):
        assert one.layers[0] == bp.Masking(1.5)
        np.testing.assert_array_equal(one.predict(x), model.predict(x, lengths=lengths))
    assert not np.array_equal(model.predict(x), unmasked)
    np.testing.assert_array_equal(model.predict(x, lengths=[4, 4, 4])[0], unmasked[0])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([[1, 1], [0, 0]], r"every step of X\[1\] is 0: no sequence"),
        ([[1, 1], [0, 1]], r"X\[1\] has step 0 of 0 in front of others"),
    ],
)
def test_masking_refuses_padding_elsewhere(wrong: Any, said: str, device: str) -> None:
    model = made([bp.Masking(), bp.GRU(3), bp.Dense(1)], device=device)
    model.build(1)
    before = {name: array.copy() for name, array in model.parameters().items()}
    x = np.array(wrong, np.float64)[..., None]
    for call in (model.predict, lambda x: model.fit(x, [0.0, 1.0]), model.forward):
        with pytest.raises(ValueError, match=said):
            call(x)
    assert all(np.array_equal(before[name], a) for name, a in model.parameters().items())


def test_masking_in_onnx_has_lengths(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    parts, lengths = ragged()
    x, path = bp.Sequences(parts).values, tmp_path / "net.onnx"
    model = made([bp.Masking(), bp.GRU(4), bp.Dense(2)])
    expected = model.predict(x)
    with pytest.raises(ValueError, match="lengths=True"):
        model.export_onnx(path)
    model.export_onnx(path, lengths=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x, "lengths": lengths.astype(np.int64)})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [3, -1, 0.5])
def test_a_class_number_that_is_none_has_its_step(value: float) -> None:
    model = made([bp.GRU(2, return_sequences=True), bp.Dense(3)], "softmax_cross_entropy")
    for shape in ((5, 4), (5, 4, 1)):
        y = np.zeros(shape, type(value))
        y[3, 2] = value
        with pytest.raises(ValueError, match=rf"y\[3, 2\] is {value}; class numbers are"):
            model.fit(np.zeros((5, 4, 2)), y)


def test_masking_stands_first() -> None:
    for layers in ([bp.Dense(2), bp.Masking()], [bp.Residual([bp.Masking()])]):
        with pytest.raises(ValueError, match="Masking stands first"):
            bp.Sequential(layers)
    with pytest.raises(ValueError, match="mask_value must be finite"):
        bp.Masking(float("nan"))
