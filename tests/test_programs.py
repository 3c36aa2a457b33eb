"""The programs of the source articles, repaired, each as short as it is meant to be.

The numbers are the rows of docs/mission.md. Programs and examples with worked numbers are in
test_training.py and test_worked_examples.py.
"""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastbp as bp
from fastbp.cli import main
from fastbp.cli.columns import Target
from fastbp.cli.scores import by_class


def separable(n: int = 100, columns: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows and the side of a plane that they lie on, 0 or 1."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, columns))
    return X, (X @ rng.normal(size=columns) > 0).astype(float)


@pytest.mark.parametrize("seed", range(5))
def test_p05_six_lines(seed: int) -> None:
    X, y = separable(seed=seed)
    model = bp.Sequential([bp.Dense(2, "sigmoid"), bp.Dense(1, "sigmoid")], seed=seed)
    model.compile(optimizer="adam", loss="binary_cross_entropy", metrics=["accuracy"])
    history = model.fit(X, y, epochs=10, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert set(model.evaluate(X[:10], y[:10])) == {"loss", "accuracy"}


def test_p05_labels_of_the_article_are_refused() -> None:
    rng = np.random.default_rng(0)
    model = bp.Sequential([bp.Dense(2, "sigmoid"), bp.Dense(1, "sigmoid")], seed=0)
    model.compile(optimizer="adam", loss="binary_cross_entropy")
    with pytest.raises(ValueError, match=r"lie in \[0, 1\].*ranges from"):
        model.fit(rng.normal(size=(100, 2)), rng.normal(size=(100, 1)))


def test_p06_and_p15_scores_are_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    X, y = separable(200, 5)
    model = bp.Sequential([bp.Dense(8, "relu"), bp.Dense(1)], seed=0)
    scores = {
        "accuracy": metrics.accuracy_score,
        "precision": metrics.precision_score,
        "recall": metrics.recall_score,
        "f1": metrics.f1_score,
    }
    model.compile("adam", "binary_cross_entropy_with_logits", [*scores, "auc"])
    model.fit(X, y, epochs=5, verbose=0)
    found = model.evaluate(X, y)
    labels, shares = model.predict_class(X), model.predict_proba(X)
    assert labels.shape == (200,) and 0 < labels.mean() < 1
    for name, score in scores.items():
        assert found[name] == pytest.approx(score(y, labels), abs=1e-6), name
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(y, shares[:, 0]), abs=1e-6)
    assert found["loss"] == pytest.approx(metrics.log_loss(y, shares.astype(float)), rel=1e-5)


def moved(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images of 8 x 8, each shifted by up to a pixel, turned by up to 15 degrees and zoomed."""
    rows, columns = np.mgrid[:8, :8] - 3.5
    made = []
    for image in x.reshape(-1, 8, 8):
        angle, zoom = rng.uniform(-0.26, 0.26), rng.uniform(0.9, 1.1)
        turned = np.exp(1j * angle) * (rows + 1j * columns) / zoom
        at = np.stack([turned.real, turned.imag]) + 3.5 + rng.uniform(-1, 1, (2, 1, 1))
        made.append(image[tuple(np.clip(np.rint(at), 0, 7).astype(int))])
    return np.reshape(made, x.shape)


def test_p09_shifted_turned_and_zoomed_digits() -> None:
    """Digits that were moved are told better behind a training that moves; prediction does not."""
    datasets = pytest.importorskip("sklearn.datasets")
    X, y = datasets.load_digits(return_X_y=True)
    X = X / 16
    calls: list[int] = []

    def augment(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        calls.append(len(x))
        return moved(x, rng)

    test = moved(X[1200:], np.random.default_rng(9))
    accuracy = {}
    for name, function in (("plain", None), ("augmented", augment)):
        model = bp.Sequential([bp.Dense(64, "relu"), bp.Dense(10)], seed=0)
        model.compile("adam", "softmax_cross_entropy", ["accuracy"])
        model.fit(X[:1200], y[:1200], epochs=15, batch_size=100, verbose=0, augment=function)
        told = len(calls)
        accuracy[name] = model.evaluate(test, y[1200:])["accuracy"]
        np.testing.assert_array_equal(model.predict(test), model.predict(test))
        assert len(calls) == told
    assert calls == [100] * (15 * 12)
    assert accuracy["augmented"] > accuracy["plain"] + 0.05


def test_p11_random_normal_start() -> None:
    starts = {}
    for device in ("cpu", "reference"):
        layer = bp.Dense(400, kernel_initializer=bp.RandomNormal(stddev=0.01))
        model = bp.Sequential([layer], seed=4)
        model.compile(loss="mse", device=device)
        model.build(250)
        starts[device] = model.parameters()["0.kernel"].copy()
    sample = starts["cpu"]
    assert abs(sample.std() - 0.01) < 3 * 0.01 / np.sqrt(2 * sample.size)
    np.testing.assert_allclose(sample, starts["reference"], rtol=1e-6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_p14_a_sweep_of_batch_sizes() -> None:
    selection = pytest.importorskip("sklearn.model_selection")
    from fastbp.sklearn import MLPClassifier

    X, y = separable(600, 4)
    scores = {}
    for size in (32, 64, 128, 256):
        model = MLPClassifier((16,), batch_size=size, learning_rate=0.01, random_state=0)
        scores[size] = selection.cross_val_score(model, X, y, cv=3).mean()
    assert scores[max(scores, key=scores.__getitem__)] > 0.9


def write_table(path: Path, n: int = 400) -> None:
    X, y = separable(n, 6, seed=3)
    rows = [
        ",".join([*(f"{value:.5f}" for value in row), str(int(label))])
        for row, label in zip(X, y, strict=True)
    ]
    path.write_text("\n".join(["a,b,c,d,e,f,label", *rows]), encoding="utf-8")


def test_p17_and_p18_a_table_from_file_to_accuracy(tmp_path: Path) -> None:
    """Scale on the training rows alone, 128-64-1, the last 20 % held out before any shuffling."""
    write_table(tmp_path / "data.csv")
    table = np.loadtxt(tmp_path / "data.csv", delimiter=",", skiprows=1)
    X, y = table[:, :-1], table[:, -1]
    kept = int(0.8 * len(X))
    low, high = X[:kept].min(axis=0), X[:kept].max(axis=0)
    X = (X - low) / (high - low)
    model = bp.Sequential([bp.Dense(128, "relu"), bp.Dense(64, "relu"), bp.Dense(1)], seed=0)
    model.compile("adam", "binary_cross_entropy_with_logits", ["accuracy"])
    history = model.fit(X, y, epochs=10, batch_size=32, validation_split=0.2, verbose=0).history
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert len(history[name]) == 10
    assert history["val_loss"][-1] == pytest.approx(model.evaluate(X[kept:], y[kept:])["loss"])
    predicted = model.predict_class(X[kept:])
    assert predicted.shape == (len(X) - kept,)
    right = y[kept:]
    assert np.mean(predicted == right) > max(right.mean(), 1 - right.mean())


def test_p20_the_pretrained_layers_are_kept() -> None:
    X, y = separable(60, 4)
    model = bp.Sequential([bp.Dense(10, "relu"), bp.Dense(1)], seed=0)
    model.compile(bp.SGD(0.1), "binary_cross_entropy_with_logits")
    model.fit(X, y, epochs=3, verbose=0)
    body, head = (model.parameters()[f"{place}.kernel"].copy() for place in (0, 1))
    model.replace_head(1)
    np.testing.assert_array_equal(model.parameters()["0.kernel"], body)
    model.fit(X, y, epochs=1, verbose=0)
    assert not np.array_equal(model.parameters()["1.kernel"], head)


def test_p21_another_process_predicts_the_same(tmp_path: Path) -> None:
    X, _ = separable(20, 3)
    model = bp.Sequential([bp.Dense(10, "relu"), bp.Dense(1)], seed=0)
    model.build(3)
    model.save(tmp_path / "net.safetensors")
    np.save(tmp_path / "x.npy", X)
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "import fastbp, numpy\n"
        "model = fastbp.load('net.safetensors')\n"
        "numpy.save('y.npy', model.predict(numpy.load('x.npy')))\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=300)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model.predict(X))


def test_p22_a_line_every_ten_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = separable()
    model = bp.Sequential([bp.Dense(1)], seed=0)
    model.compile("sgd", "binary_cross_entropy_with_logits")
    model.fit(X, y, epochs=100, verbose=10)
    printed = capsys.readouterr()
    lines = re.findall(r"^Epoch \[(\d+)/100\], Loss: \d\.\d{4}$", printed.out, re.MULTILINE)
    assert lines == [str(epoch) for epoch in range(10, 101, 10)]


def test_p26_the_whole_chart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Data, model, training, evaluation; not good enough: trained on; a model file and a report."""
    write_table(tmp_path / "data.csv")
    model_file, report = tmp_path / "net.safetensors", ""
    for epochs in ("1", "40"):
        status = main(
            ["train", str(tmp_path / "data.csv"), "--target", "label", "--epochs", epochs,
             "--output", str(model_file)]
        )  # fmt: skip
        assert status == 0
        capsys.readouterr()
        assert main(["evaluate", str(model_file), str(tmp_path / "data.csv")]) == 0
        report = capsys.readouterr().out
        found = re.search(r"accuracy\s+([\d.]+)", report)
        assert found is not None
        if float(found[1]) > 0.9:
            break
    assert float(found[1]) > 0.9
    assert "confusion" in report or "true \\ predicted" in report
    assert model_file.exists()


def test_w4_logistic_gradient() -> None:
    """The gradient is +1/n sum of X (y - t): the article's sign climbs the loss."""
    X, y = separable(30, 3)
    model = bp.Sequential([bp.Dense(1, use_bias=False)], seed=0)
    model.compile("sgd", "binary_cross_entropy_with_logits", dtype="float64")
    loss, gradients = model.gradients(X, y)
    kernel = model.parameters()["0.kernel"]
    right = X.T @ (1 / (1 + np.exp(-X @ kernel)) - y[:, None]) / len(X)
    np.testing.assert_allclose(gradients["0.kernel"], right, rtol=1e-10)
    kernel -= 0.1 * right
    assert model.evaluate(X, y)["loss"] < loss
    kernel += 0.2 * right
    assert model.evaluate(X, y)["loss"] > loss


def test_w4_f1_is_a_harmonic_mean() -> None:
    """8 true and 2 false positives, 4 false and 6 true negatives: 8/11, not the article's 0.683."""
    target = Target("sick", "binary", classes=("no", "yes"))
    right = np.repeat([1.0, 0.0, 1.0, 0.0], (8, 2, 4, 6))[:, None]
    logits = np.repeat([1.0, 1.0, -1.0, -1.0], (8, 2, 4, 6))[:, None]
    each, _ = by_class(target, logits, right)
    assert each["yes"]["f1"] == pytest.approx(8 / 11)
