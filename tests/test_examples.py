"""The programs in examples/ run and show what they say."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def test_fine_tuning_beats_training_from_scratch() -> None:
    pytest.importorskip("sklearn")
    results = load("fine_tune_digits")["main"](seeds=5)
    tuned, scratch = results.T
    assert (tuned > scratch).all()
    assert tuned.mean() > scratch.mean() + 0.05


def test_an_ensemble_knows_where_it_errs() -> None:
    pytest.importorskip("sklearn")
    found = load("uncertain_digits")["main"]()
    assert found["the ensemble"] > found["a member"]
    assert found["where it is sure"] > found["the ensemble"] + 0.01
    assert found["errors in the least sure tenth"] > 0.5


def test_networks_beat_the_simplest_answer_in_every_field() -> None:
    pytest.importorskip("sklearn")
    scores = load("fields_of_application")["main"]()
    assert len(scores) == 7
    for field, (network, simple) in scores.items():
        assert network > simple + 0.15, field


def every_activation(seed: int = 0) -> bp.Sequential:
    """A network with each activation that the reader knows, and a Dropout, parameters drawn."""
    layers: list[bp.layers.Layer] = []
    known = load("numpy_reader")["ACTIVATIONS"]
    assert len(known) >= 11
    for name in known:
        layers += [bp.Dense(6, use_bias=len(layers) % 3 > 0), bp.Activation(name)]
    model = bp.Sequential([*layers, bp.Dropout(0.5), bp.Dense(3, "leaky_relu")], seed=seed)
    model.build(5)
    return model


def test_the_numpy_reader_reads_every_layer_of_a_chain(tmp_path: Path) -> None:
    model = every_activation()
    X = np.random.default_rng(0).normal(size=(40, 5))
    for dtype, error in (("float32", 1e-5), ("float64", 1e-12)):
        model.compile(loss="mse", dtype=dtype)
        path = tmp_path / f"{dtype}.safetensors"
        model.save(path)
        read = load("numpy_reader")["NumpyModel"](path)
        np.testing.assert_allclose(read.predict(X), model.predict(X), rtol=error, atol=error)


def test_the_numpy_reader_reads_norms_blocks_and_tables(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(40, 2, 3)) * 3
    block: list[bp.layers.Layer] = [bp.LayerNorm(scale=False), bp.Dense(6, "relu"), bp.Dense(6)]
    rows = [
        bp.Flatten(),
        bp.Normalize().adapt(X.reshape(40, 6)),
        bp.BatchNorm(center=False),
        bp.Residual([bp.Residual(block), bp.BatchNorm(epsilon=0.01)]),
        bp.Dense(2),
    ]
    tables = [bp.Embedding(11, 4), bp.LayerNorm(), bp.Dense(2, "gelu"), bp.Softmax()]
    for layers, x in ((rows, X), (tables, np.arange(33).reshape(11, 3) % 11)):
        model = bp.Sequential(layers, seed=3)
        model.compile(bp.SGD(0.05), "mse", dtype="float64")
        model.fit(x, np.ones((len(x), 2)), epochs=3, batch_size=8, verbose=0)
        model.save(tmp_path / "net")
        read = load("numpy_reader")["NumpyModel"](tmp_path / "net")
        np.testing.assert_allclose(read.predict(x), model.predict(x), rtol=1e-12, atol=1e-12)


class Watching(bp.Callback):
    """Remembers integers, which a checkpoint keeps as such."""

    def state(self) -> dict[str, np.ndarray]:
        return {"seen": np.arange(3)}


@pytest.mark.parametrize("cell", [bp.SimpleRNN, bp.LSTM, bp.GRU])
def test_the_numpy_reader_reads_sequences(cell: Any, tmp_path: Path) -> None:
    """Checkpoints of a run, too, whose other arrays are of other dtypes."""
    rng = np.random.default_rng(0)
    X, lengths = rng.normal(size=(12, 6)), rng.integers(1, 4, 12)
    relu = {"activation": "relu"} if cell is bp.SimpleRNN else {}
    chains = [
        [bp.Reshape((3, 2)), bp.LayerNorm(), cell(4, **relu), bp.Dense(2)],
        [bp.Masking(), bp.TimeDistributed(bp.Dense(3)),
         cell(4, return_sequences=True, go_backwards=True),
         bp.Bidirectional(cell(3, return_sequences=True), merge_mode="sum"),
         bp.Bidirectional(cell(2, use_bias=False)), bp.Dense(2, "tanh")],
    ]  # fmt: skip
    for layers, x in zip(chains, (X, X.reshape(12, 3, 2)), strict=True):
        model = bp.Sequential(layers, seed=2)
        model.compile("adam", "mse", dtype="float64")
        saving = bp.ModelCheckpoint(tmp_path / "net", save_freq=1)
        model.fit(x, np.ones((12, 2)), batch_size=4, verbose=0, callbacks=[saving, Watching()])
        read = load("numpy_reader")["NumpyModel"](tmp_path / "net")
        model = bp.load(tmp_path / "net")
        np.testing.assert_allclose(read.predict(x), model.predict(x), rtol=1e-11, atol=1e-12)
    found = read.predict(x, lengths)
    np.testing.assert_allclose(found, model.predict(x, lengths=lengths), rtol=1e-11, atol=1e-12)


def test_the_numpy_reader_needs_numpy_alone_and_refuses_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bp.Sequential([bp.Dense(4, "tanh"), bp.Dense(2)], seed=1)
    model.build(3)
    path, rows = tmp_path / "net.safetensors", tmp_path / "rows.csv"
    model.save(path)
    X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    np.savetxt(rows, X, delimiter=",")
    blocked = "import sys; sys.modules['fastbp'] = sys.modules['sklearn'] = None\n"
    program = blocked + (EXAMPLES / "numpy_reader.py").read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", program, path, rows],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    found = np.loadtxt(done.stdout.splitlines(), delimiter=",")
    np.testing.assert_allclose(found, model.predict(X), rtol=1e-5, atol=1e-6)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        load("numpy_reader")["NumpyModel"](path)
    monkeypatch.setattr(sys, "argv", ["numpy_reader.py"])
    with pytest.raises(SystemExit, match="usage"):
        runpy.run_path(str(EXAMPLES / "numpy_reader.py"), run_name="__main__")


def test_pruned_networks_keep_what_they_know() -> None:
    pytest.importorskip("sklearn")
    (_, whole), *pruned = load("pruning")["main"]()
    assert whole > 0.9
    for share, before, after in pruned:
        assert after > before
        assert after > whole - (0.03 if share <= 0.8 else 0.1)


def test_layers_learn_without_labels_before_they_learn_with_few() -> None:
    pytest.importorskip("sklearn")
    results = load("pretraining")["main"](seeds=5)
    for _, _, learned in results:
        for first, last in learned:
            assert last < first / 2
    assert np.mean([pretrained - scratch for pretrained, scratch, _ in results]) > 0


def test_remedies_against_over_fitting() -> None:
    pytest.importorskip("sklearn")
    results = load("overfitting")["main"](seeds=2)
    train, test, _ = results["none"]
    assert train < 0.01 < 0.3 < test  # learned by heart
    for name in ("L2", "L1", "weight decay", "dropout"):
        assert results[name][1] < test, name


def test_optuna_prunes_and_finds() -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("optuna")
    study = load("optuna_pruning")["main"](trials=20)
    states = [trial.state.name for trial in study.trials]
    assert set(states) == {"COMPLETE", "PRUNED"} and states.count("PRUNED") >= 3
    assert study.best_value > 0.95
    ended = [trial for trial in study.trials if trial.state.name == "PRUNED"]
    assert all(len(trial.intermediate_values) < 15 for trial in ended)


def test_sequences_of_the_archives_reach_published_accuracy() -> None:
    pytest.importorskip("sktime")
    program = load("sequence_archives")
    assert program["vowels"]() > 0.96
    assert program["power"]() > 0.95


def test_the_forecast_beats_the_published_model() -> None:
    """Each of the networks does, not their mean alone."""
    pytest.importorskip("sktime")
    ours, each, regression, naive = load("forecast_lynx")["main"](seeds=5)
    assert ours < 0.8 * regression
    assert max(each) < regression < naive


def test_the_character_model_learns_to_write() -> None:
    program = load("character_model")
    source = program["text"](60_000)
    alphabet = sorted(set(source))
    codes = np.searchsorted(alphabet, list(source))
    model, bits = program["train"](codes, len(alphabet), epochs=8, units=48)
    shares = np.bincount(codes) / len(codes)
    assert bits < 0.85 * -(shares[shares > 0] * np.log2(shares[shares > 0])).sum()
    written = program["write"](model, alphabet, length=200)
    assert len(written) == 204 and written.startswith("The ")
    assert written == program["write"](model, alphabet, length=200)


def test_a_long_lag_is_for_an_lstm() -> None:
    program = load("long_lag")
    errors = program["main"](steps=50, epochs=8)
    assert errors["LSTM"] < 0.02 < 0.1 < errors["SimpleRNN"]
