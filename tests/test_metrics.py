"""Metrics: equal to scikit-learn's on random data and on the degenerate cases, alone and in fit.

Allowed: 1e-12, the rounding of sums of a few hundred terms in float64; counts are exact.
"""

import itertools
import warnings
from typing import Any

import numpy as np
import pytest

import fastbp as bp
import machine
from fastbp import metrics

sk = pytest.importorskip("sklearn.metrics")

AVERAGES = ["micro", "macro", "weighted", None]
BY_CLASS = {
    "precision": (metrics.precision, sk.precision_score),
    "recall": (metrics.recall, sk.recall_score),
    "f1": (metrics.f1, sk.f1_score),
}


def close(value: Any, expected: Any) -> None:
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-15)


def draw(seed: int, classes: int, rows: int = 200, missing: bool = False) -> Any:
    """True and predicted classes, some of which may not occur, and scores with ties."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes - missing, rows)
    p = np.where(rng.random(rows) < 0.6, y, rng.integers(0, classes, rows))
    return y, p, np.round(rng.random((rows, classes)) + 0.3 * np.eye(classes)[p], 1)


@pytest.mark.parametrize("name", BY_CLASS)
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_classes(name: str, average: Any, classes: int) -> None:
    mine, theirs = BY_CLASS[name]
    for seed in range(5):
        y, p, _ = draw(seed, classes, missing=seed > 2)
        if classes == 2:
            close(mine(y, p), theirs(y, p, zero_division=0))
            close(mine(y, p, "binary"), theirs(y, p, zero_division=0))
            if average is not None:
                return  # of two classes "micro" and so on count both
        close(mine(y, p, average), theirs(y, p, average=average, zero_division=0))
        close(metrics.accuracy(y, p), sk.accuracy_score(y, p))
        assert (metrics.confusion_matrix(y, p) == sk.confusion_matrix(y, p)).all()


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("name", BY_CLASS)
def test_two_classes_by_every_average(name: str, average: Any) -> None:
    mine, theirs = BY_CLASS[name]
    y, p, _ = draw(3, 2)
    close(mine(y, p, average), theirs(y, p, average=average, zero_division=0))


@pytest.mark.parametrize("name", BY_CLASS)
@pytest.mark.parametrize("average", AVERAGES)
def test_several_labels(name: str, average: Any) -> None:
    mine, theirs = BY_CLASS[name]
    rng = np.random.default_rng(1)
    y, p = rng.integers(0, 2, (100, 4)), rng.random((100, 4))
    y[:, 3] = 0  # a label that nobody has
    close(mine(y, p, average), theirs(y, p > 0.5, average=average, zero_division=0))
    close(metrics.accuracy(y, p), sk.accuracy_score(y, p > 0.5))


@pytest.mark.parametrize("y", [[0], [1], [0, 0], [1, 1], [0, 1]])
@pytest.mark.parametrize("p", [[0, 0], [1, 1], [0, 1], [1, 0]])
def test_degenerate_classes(y: list[int], p: list[int]) -> None:
    p = p[: len(y)]
    for mine, theirs in BY_CLASS.values():
        close(mine(y, p, "binary"), theirs(y, p, zero_division=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a matrix of one class
        assert (metrics.confusion_matrix(y, p) == sk.confusion_matrix(y, p)).all()


def test_names_and_other_numbers_are_classes_too() -> None:
    y, p = np.array([3, 7, 7, -1]), np.array([3, 7, -1, -1])
    for mine, theirs in BY_CLASS.values():
        close(mine(y, p), theirs(y, p, average="macro"))
        close(mine(y.astype(float), p[:, None].astype(float)), theirs(y, p, average="macro"))
    assert (metrics.confusion_matrix(y, p) == sk.confusion_matrix(y, p)).all()


def test_areas() -> None:
    for seed in range(10):
        y, _, scores = draw(seed, 2, rows=60)
        column = scores[:, 1]
        close(metrics.auc(y, column), sk.roc_auc_score(y, column))
        close(metrics.auc(y, scores), sk.roc_auc_score(y, column))
        close(metrics.average_precision(y, column), sk.average_precision_score(y, column))
        y, _, scores = draw(seed, 4)
        shares = scores / scores.sum(axis=1, keepdims=True)
        close(metrics.auc(y, shares), sk.roc_auc_score(y, shares, multi_class="ovr"))
        labels = np.random.default_rng(seed).integers(0, 2, scores.shape)
        close(metrics.auc(labels, scores), sk.roc_auc_score(labels, scores))
        wanted = sk.average_precision_score(labels, scores)
        close(metrics.average_precision(labels, scores), wanted)


@pytest.mark.parametrize("y", [[0, 0, 0], [1, 1, 1]])
def test_areas_of_one_class(y: list[int]) -> None:
    p = [0.1, 0.5, 0.4]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = sk.roc_auc_score(y, p), sk.average_precision_score(y, p)
    np.testing.assert_equal((metrics.auc(y, p), metrics.average_precision(y, p)), expected)


@pytest.mark.parametrize("classes", [(1, 2), (-1, 1), (-0.5, 7.0)])
def test_areas_of_two_classes_by_any_numbers(classes: tuple[float, float]) -> None:
    y, _, scores = draw(7, 2)
    close(metrics.auc(np.take(classes, y), scores), sk.roc_auc_score(y, scores[:, 1]))
    area = metrics.average_precision(np.take(classes, y), scores)
    close(area, sk.average_precision_score(y, scores[:, 1]))


@pytest.mark.parametrize("k", [1, 2, 3, 6, 9])
def test_top_k_with_ties(k: int) -> None:
    y, _, scores = draw(5, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # k >= classes is 1.0, with a warning
        close(metrics.top_k(y, scores, k), sk.top_k_accuracy_score(y, scores, k=k))


NAMES = np.array(["zebra", "ant", "\N{LATIN CAPITAL LETTER A WITH DIAERESIS}rger", "b"])


@pytest.mark.parametrize(("text", "classes"), [(None, 4), ("U", 2), ("U", 4), ("O", 2), ("T", 4)])
def test_weights_of_rows_and_names_of_classes(text: str | None, classes: int) -> None:
    """Rows of weight 0 among them; names in order of the alphabet, as NumPy sorts them."""
    y, p, scores = draw(classes, classes)
    w = np.random.default_rng(9).integers(0, 4, len(y)) * 0.3
    scores /= scores.sum(axis=1, keepdims=True)
    column = scores[:, 1] if classes == 2 else scores
    multi: dict[str, Any] = {} if classes == 2 else {"multi_class": "ovr"}
    if text:
        y, p = NAMES[y], NAMES[p]
    kind = np.dtypes.StringDType() if text == "T" else text or int
    t, q = y.astype(kind), p.astype(kind)
    for weight in (None, w):
        given = {"sample_weight": weight}
        close(metrics.accuracy(t, q, **given), sk.accuracy_score(y, p, **given))
        close(metrics.confusion_matrix(t, q, **given), sk.confusion_matrix(y, p, **given))
        for (mine, theirs), average in itertools.product(BY_CLASS.values(), AVERAGES):
            close(mine(t, q, average, **given), theirs(y, p, average=average, **given))
        close(metrics.auc(t, column, **given), sk.roc_auc_score(y, column, **multi, **given))
        if classes == 2:
            area = sk.average_precision_score(y == max(y), column, **given)
            close(metrics.average_precision(t, column, **given), area)
        else:
            close(metrics.top_k(t, scores, 2, **given), sk.top_k_accuracy_score(y, scores, **given))
    for scale in (1e-300, 1e307):  # only ratios count
        far = {"sample_weight": w * scale}
        close(metrics.accuracy(t, q, **far), metrics.accuracy(t, q, **given))
        close(metrics.auc(t, column, **far), metrics.auc(t, column, **given))


@pytest.mark.parametrize("shape", [(50,), (50, 1), (50, 3)])
def test_regression(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    y, p = rng.normal(size=shape), rng.normal(size=shape)
    close(metrics.r2(y, p), sk.r2_score(y, p))
    close(metrics.mse(y, p), sk.mean_squared_error(y, p))
    close(metrics.mae(y, p), sk.mean_absolute_error(y, p))
    w = {"sample_weight": rng.integers(0, 3, 50)}
    close(metrics.r2(y, p, **w), sk.r2_score(y, p, **w))
    close(metrics.mse(y, p, **w), sk.mean_squared_error(y, p, **w))
    close(metrics.mae(y, p, **w), sk.mean_absolute_error(y, p, **w))


def test_r2_of_constants() -> None:
    for y, p in (([2.0, 2, 2], [2.0, 2, 2]), ([2.0, 2, 2], [1.0, 2, 3]), ([1.0, 2], [5.0, 5])):
        close(metrics.r2(y, p), sk.r2_score(y, p))
    two = np.array([[1.0, 3], [1, 4]]), np.array([[1.0, 3], [1, 5]])
    close(metrics.r2(*two), sk.r2_score(*two))
    assert np.isnan(metrics.r2([1.0], [1.0]))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: metrics.f1([0, 1], [0, 1, 1]), "does not go with p"),
        (lambda: metrics.f1([0, 2], [0, 2], "binary"), "about classes 0 and 1; these are"),
        (lambda: metrics.f1([0, 1], [0, 1], "mean"), "average must be one of"),
        (lambda: metrics.r2([], []), "y must have rows"),
        (lambda: metrics.top_k([0, 1], [0, 1]), r"y has shape \(2,\), which does not go with p"),
        (lambda: metrics.top_k([0, 2], np.eye(2)), r"y\[1\] is 2; class numbers are"),
        (lambda: metrics.top_k([0, -1], np.eye(2)), r"y\[1\] is -1; class numbers are"),
        (lambda: metrics.top_k([0, 1], np.eye(2), 0), "k must be at least 1"),
        (lambda: metrics.auc([0, 1, 2], [0.1, 0.2, 0.3]), "must hold two classes"),
        (lambda: metrics.auc([0, 3, 2], np.eye(3)), r"y\[1\] is 3; class numbers are"),
        (lambda: metrics.confusion_matrix(np.eye(3), np.eye(3)), "one class for each row"),
        (lambda: metrics.auc(["a", "a"], [0.1, 0.2]), "one class, 'a', of which nothing says"),
        (lambda: metrics.auc(["a", "b"], np.eye(2, 3)), "2 names, 'a', 'b', but p has 3 columns"),
        (lambda: metrics.f1(["a", "b"], ["a", "b"], "binary"), "about classes 0 and 1; these are"),
        (lambda: metrics.f1([["a", "b"]], [["a", "b"]]), "names must be one for each row"),
        (lambda: metrics.f1([0, 1], [0, 1], sample_weight=[1]), r"must have shape \(2,\)"),
        (lambda: metrics.mse([0, 1], [0, 1], sample_weight=[1, -1]), "row 1 has -1"),
        (lambda: metrics.get(["confusion_matrix"]), "no single number"),
        (lambda: metrics.get(["f2"]), "unknown metric 'f2'"),
        (lambda: metrics.get(["top_0"]), "unknown metric 'top_0'"),
    ],
)
def test_wrong_arguments(call: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize(
    ("y", "p", "said"),
    [
        (["a", "b"], [0, 1], "y holds text, but p holds numbers: give both as names"),
        ([0, 1], ["a", "b"], "y holds numbers, but p holds text"),
        (["a", "b"], np.eye(2), "y holds text, but p holds numbers"),
        (["a", None], ["a", "b"], "y must hold text alone.* it has NoneType None"),
        ([b"a", b"b"], ["a", "b"], "y must hold real numbers"),
    ],
)
def test_neither_numbers_nor_text(y: Any, p: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        metrics.f1(y, p)


# In compile: the loss, outputs, metrics, and each by scikit-learn from what predict gives.
KINDS = {
    "softmax": ("softmax_cross_entropy", 4),
    "binary": ("binary_cross_entropy_with_logits", 1),
    "labels": ("binary_cross_entropy_with_logits", 3),
    "hinge": ("hinge", 1),
    "values": ("mse", 2),
}


def problem(kind: str) -> tuple[bp.Sequential, Any, Any]:
    loss, outputs = KINDS[kind]
    rng = np.random.default_rng(4)
    x = rng.normal(size=(90, 5)).astype(np.float32)
    z = x @ rng.normal(size=(5, outputs)) + 0.5 * rng.normal(size=(90, outputs))
    y: Any = {"softmax": z.argmax(axis=1), "values": z}.get(kind, (z > 0) * 1.0)
    if kind == "hinge":
        y = 2 * y - 1
    model = bp.Sequential([bp.Dense(8, "tanh"), bp.Dense(outputs)], seed=1)
    names = ["f1", "accuracy", "precision_weighted", "auc", "pr_auc"]
    if kind == "softmax":
        names += ["top_2", "top_3", "recall"]
    if kind == "values":
        names = ["r2", "mse"]
    model.compile(bp.Adam(0.05), loss, names)
    return model, x, y


def by_sklearn(kind: str, model: bp.Sequential, x: Any, y: Any) -> dict[str, float]:
    output = model.predict(x).astype(np.float64)
    if kind == "values":
        return {"r2": sk.r2_score(y, output), "mse": sk.mean_squared_error(y, output)}
    chosen, t = model.predict_class(x), y > 0 if kind != "softmax" else y
    chosen = chosen > 0 if kind == "hinge" else chosen
    t = t if kind in ("softmax", "labels") else t[:, 0]
    scores = model.predict_proba(x) if kind == "softmax" else output
    average = "binary" if kind in ("binary", "hinge") else "macro"
    hot = np.eye(4)[y] if kind == "softmax" else t
    found = {
        "f1": sk.f1_score(t, chosen, average=average),
        "accuracy": np.mean(np.asarray(t) == chosen),
        "precision_weighted": sk.precision_score(t, chosen, average="weighted"),
        "auc": sk.roc_auc_score(hot, scores if scores.shape[1] > 1 else scores[:, 0]),
        "pr_auc": sk.average_precision_score(hot, scores),
    }
    if kind == "softmax":
        for k in (2, 3):
            found[f"top_{k}"] = sk.top_k_accuracy_score(y, output, k=k)
        found["recall"] = sk.recall_score(t, chosen, average="macro")
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_by_name_in_evaluate_and_fit(kind: str) -> None:
    model, x, y = problem(kind)
    history = model.fit(x[:60], y[:60], epochs=4, validation_data=(x[60:], y[60:]))
    for rows in (slice(None), slice(60, None)):
        scores = model.evaluate(x[rows], y[rows], batch_size=7)
        expected = by_sklearn(kind, model, x[rows], y[rows])
        assert list(scores) == ["loss", *model.metrics]
        for name, value in expected.items():
            assert scores[name] == pytest.approx(value, rel=1e-6), name
    for name, value in scores.items():
        assert history.history[f"val_{name}"][-1] == pytest.approx(value, rel=1e-6)
        assert len(history.history[name]) == 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("watched", [False, True])
def test_of_training_from_the_outputs_of_its_steps(kind: str, watched: bool) -> None:
    """With rate 0 every batch sees the same parameters: training scores are those of evaluate."""
    model, x, y = problem(kind)
    model.optimizer.learning_rate = 0.0
    batches = bp.LambdaCallback(on_train_batch_end=lambda batch, logs: None)
    history = model.fit(x, y, batch_size=16, epochs=2, callbacks=batches if watched else None)
    for name, value in model.evaluate(x, y).items():
        assert history.history[name] == pytest.approx([value] * 2, rel=1e-6), name


def test_counts_do_not_depend_on_who_counts() -> None:
    """By whole epochs, by steps, by several workers, from an iterator, and in the NumPy twin."""
    histories = []
    for threads, device, way in (
        (1, "cpu", "rows"),
        (4, "cpu", "steps"),
        (2, "cpu", "batches"),
        (1, "reference", "rows"),
    ):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(300, 6)).astype(np.float32)
        y = rng.integers(0, 3, 300)
        model = bp.Sequential([bp.Dense(20, "relu"), bp.Dense(3)], seed=2)
        model.compile("sgd", "softmax_cross_entropy", ["f1", "accuracy", "top_2"], device=device)
        data = (
            (x, y)
            if way != "batches"
            else ([(x[i : i + 64], y[i : i + 64]) for i in range(0, 300, 64)],)
        )
        hooks = bp.LambdaCallback(on_train_batch_end=lambda batch, logs: None)
        with machine.using_threads(threads):
            history = model.fit(
                *data,
                epochs=3,
                batch_size=64,
                shuffle=False,
                callbacks=hooks if way == "steps" else None,
            )
        histories.append([history.history[name] for name in ("f1", "accuracy", "top_2")])
    assert histories[0] == histories[1] == histories[2]
    np.testing.assert_allclose(histories[3], histories[0], rtol=1e-12)


def test_of_outputs_at_every_step() -> None:
    """Of sequences the steps are counted that are there, for areas under curves too."""
    rng = np.random.default_rng(1)
    x, lengths = rng.normal(size=(20, 5, 2)), rng.integers(1, 6, 20)
    y = rng.integers(0, 3, (20, 5))
    model = bp.Sequential([bp.SimpleRNN(4, return_sequences=True), bp.Dense(3)], seed=0)
    model.compile("sgd", "softmax_cross_entropy", ["f1_micro", "accuracy", "top_2"])
    model.fit(x, y, lengths=lengths, verbose=0)
    scores = model.evaluate(x, y, lengths=lengths)
    there = np.arange(5) < lengths[:, None]
    outputs = model.predict(x, lengths)[there]
    assert scores["f1_micro"] == pytest.approx(np.mean(outputs.argmax(axis=1) == y[there]))
    assert scores["accuracy"] == pytest.approx(scores["f1_micro"])
    assert scores["top_2"] == pytest.approx(metrics.top_k(y[there], outputs, 2))
    model.compile("sgd", "softmax_cross_entropy", ["auc"])
    area = model.evaluate(x, y, lengths=lengths)["auc"]
    shares = model.predict_proba(x, lengths=lengths)[there]
    assert area == pytest.approx(metrics.auc(y[there], shares), rel=1e-6)


def test_of_a_run_that_diverged() -> None:
    x, y = np.ones((40, 2)), np.eye(3)[np.arange(40) % 3]
    model = bp.Sequential([bp.Dense(3)], seed=0)
    model.compile(bp.SGD(1e30), "mse", ["f1", "top_2"])
    with pytest.warns(RuntimeWarning, match="diverged"):
        history = model.fit(x, y, epochs=3)
    assert all(np.isnan(history.history[name][-1]) for name in ("f1", "top_2"))


def test_monitored_by_name() -> None:
    model, x, y = problem("softmax")
    stopping = bp.EarlyStopping("val_f1", patience=2)
    history = model.fit(x, y, epochs=30, validation_split=0.3, callbacks=stopping)
    assert stopping.best == max(history.history["val_f1"])


def test_resume_in_the_middle_of_an_epoch_keeps_the_outputs(tmp_path: Any) -> None:
    def stop(batch: int, logs: Any) -> None:
        stopped.stop_training = batch == 3

    whole, x, y = problem("binary")
    expected = whole.fit(x, y, epochs=2, batch_size=16)
    stopped, _, _ = problem("binary")
    stopped.fit(x, y, epochs=2, batch_size=16, callbacks=bp.LambdaCallback(on_batch_end=stop))
    stopped.save(tmp_path / "stopped")
    model, _, _ = problem("binary")
    nothing = bp.LambdaCallback()
    path = tmp_path / "stopped"
    history = model.fit(x, y, epochs=2, batch_size=16, callbacks=nothing, resume=path)
    assert history.to_dict() == expected.to_dict()


def test_names_are_saved_with_the_model(tmp_path: Any) -> None:
    model, x, y = problem("softmax")
    model.fit(x, y)
    model.save(tmp_path / "model")
    assert bp.load(tmp_path / "model").evaluate(x, y) == model.evaluate(x, y)
