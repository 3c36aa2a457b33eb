"""`fastbp train` on tables as they come: missing cells, rows to validate on, options in a file.

The tables are those of test_cli.py. What is learned from the training rows is kept in the model
file, so that predict and evaluate prepare new rows in the same way.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import fastbp as bp
from command_line import Run


def table(path: Path, n: int = 240, seed: int = 0, holes: bool = False) -> Path:
    """kind = whether length exceeds width, or the colour is red; every 7th length missing."""
    rng = np.random.default_rng(seed)
    lines = ["length,width,colour,kind"]
    for row in range(n):
        length, width = rng.normal(size=2)
        colour = rng.choice(["red", "green", "blue"])
        kind = "yes" if length > width or colour == "red" else "no"
        missing = holes and row % 7 == 0
        cells = ("" if missing else f"{length:.4f}", f"{width:.4f}",
                 "NA" if missing and row % 2 else colour, kind)  # fmt: skip
        lines.append(",".join(cells))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_missing_cells_are_named_or_filled(run: Run, tmp_path: Path) -> None:
    table(tmp_path / "t.csv", holes=True)
    status, _, error = run("train", "t.csv", "--target", "kind")
    assert status == 2
    assert (
        "t.csv, line 2, column 'length': the cell is empty" in error and "--missing fill" in error
    )
    status, out, error = run("train", "t.csv", "--target", "kind", "--missing", "fill")
    assert status == 0, error
    columns = json.loads(bp.load("t.safetensors").metadata["fastbp_table"])["columns"]
    length, _, colour = columns
    assert "(missing)" in colour["values"] and colour["fill"] == "(missing)"
    cells = [line.split(",") for line in (tmp_path / "t.csv").read_text().splitlines()[1:]]
    assert min(float(c[0]) for c in cells if c[0]) < float(length["fill"])
    (tmp_path / "new.csv").write_text(f"colour,length,width\nred,,0.5\nred,{length['fill']},0.5\n")
    status, out, _ = run("predict", "t.safetensors", "new.csv")
    first, second = out.splitlines()[1:]
    assert status == 0 and first == second  # the empty cell counts as the median
    (tmp_path / "bad.csv").write_text("colour,length,width\nred,1,1\nred,1,\nred,tall,1\n")
    assert run("predict", "t.safetensors", "bad.csv")[0] == 2


def test_the_median_is_that_of_the_training_rows(run: Run, tmp_path: Path) -> None:
    rows = [f"{value},{'ab'[value % 2]}" for value in range(50)] + [",a", ",b"]
    (tmp_path / "t.csv").write_text("\n".join(["x,y", *rows]))
    (tmp_path / "v.csv").write_text("x,y\n1000,a\n1001,b\n")
    status, _, error = run("train", "t.csv", "--target", "y", "--missing", "fill",
                           "--validation", "v.csv", "--epochs", 1)  # fmt: skip
    assert status == 0, error
    (column,) = json.loads(bp.load("t.safetensors").metadata["fastbp_table"])["columns"]
    assert float(column["fill"]) == 24.5
    assert column["mean"] == pytest.approx((sum(range(50)) + 2 * 24.5) / 52)


def test_rows_of_another_file_and_early_stopping(run: Run, tmp_path: Path) -> None:
    table(tmp_path / "t.csv")
    table(tmp_path / "v.csv", n=90, seed=1)
    status, out, error = run(
        "train", "t.csv", "--target", "kind", "--validation", "v.csv", "--early-stopping", 5,
        "--epochs", 500, "--learning-rate", 0.01,
    )  # fmt: skip
    assert status == 0, error
    assert "240 rows to train, 90 to validate" in out
    found = re.search(r"epochs +(\d+); the best, (\d+), is kept", out)
    assert found is not None
    assert int(found[1]) == int(found[2]) + 5 < 500
    shown = re.search(r"loss +\S+ +(\S+)", out)
    assert shown is not None
    measured = json.loads(run("evaluate", "t.safetensors", "v.csv", "--json")[1])
    assert measured["loss"] == pytest.approx(float(shown[1]), rel=1e-4)
    status, _, error = run("train", "t.csv", "--target", "kind", "--validation-split", 0,
                           "--early-stopping", 5)  # fmt: skip
    assert status == 2 and "needs rows to validate on" in error
    train = ("train", "t.csv", "--target", "kind", "--epochs", 1)
    assert run(*train, "--validation", 0.4) == run(*train, "--validation-split", 0.4)
    (tmp_path / "0.3").write_bytes((tmp_path / "v.csv").read_bytes())
    assert "240 rows to train, 90 to validate" in run(*train, "--validation", "0.3")[1]
    assert "expected 0 or more, below 1" in run(*train, "--validation", 1.5)[2]


@pytest.mark.parametrize("kind", ["toml", "json"])
def test_options_from_a_file(run: Run, tmp_path: Path, kind: str) -> None:
    if kind == "toml":
        pytest.importorskip("tomllib")
    table(tmp_path / "t.csv")
    options = {
        "target": "kind", "epochs": 3, "drop": ["colour"],
        "network": {"hidden": [7, 5], "activation": "tanh"}, "no-header": False,
    }  # fmt: skip
    text = json.dumps(options) if kind == "json" else (
        'target = "kind"\nepochs = 3\ndrop = ["colour"]\nno-header = false\n'
        '[network]\nhidden = [7, 5]\nactivation = "tanh"\n'
    )  # fmt: skip
    (tmp_path / f"o.{kind}").write_text(text)
    status, _, error = run("train", "t.csv", "--config", f"o.{kind}", "--activation", "relu")
    assert status == 0, error
    model = bp.load("t.safetensors")
    assert [getattr(layer, "units", None) for layer in model.layers] == [7, 5, 1]
    assert model.layers[0].activation.name == "relu" and model.epochs_trained == 3
    assert model.inputs == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("o.json", "{", "o.json: "),
        ("o.json", "[1]", "expected an object with options, got list"),
        ("o.json", '{"epochs": null}', "epochs = None is no value"),
        ("o.json", '{"epochs": 0}', "expected 1 or more"),
        ("o.json", '{"epoch_count": 3}', "unrecognized arguments: --epoch-count=3"),
        ("none.json", "", "cannot read gone.json"),
    ],
)
def test_mistakes_in_the_file(run: Run, tmp_path: Path, name: str, text: str, message: str) -> None:
    table(tmp_path / "t.csv")
    (tmp_path / name).write_text(text)
    path = "gone.json" if name == "none.json" else name
    status, _, error = run("train", "t.csv", "--target", "kind", f"--config={path}")
    assert status == 2 and message in error


def test_the_report_is_scikit_learns(run: Run, tmp_path: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    path = table(tmp_path / "t.csv")
    run("train", "t.csv", "--target", "kind", "--epochs", 3)
    status, text, _ = run("evaluate", "t.safetensors", "t.csv")
    found = json.loads(run("evaluate", "t.safetensors", "t.csv", "--json")[1])
    right = [line.split(",")[-1] for line in path.read_text().splitlines()[1:]]
    named = [
        line.split(",")[0] for line in run("predict", "t.safetensors", "t.csv")[1].splitlines()
    ]
    theirs = metrics.classification_report(right, named[1:], output_dict=True, zero_division=0)
    assert list(found["classes"]) == ["no", "yes"]  # a class may be named "macro average"
    for key, mine in (*found["classes"].items(), ("macro avg", found["macro_average"])):
        for figure, other in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert mine[figure] == pytest.approx(theirs[key][other])
        assert mine["rows"] == theirs[key]["support"]
    assert status == 0 and "macro average" in text and "precision" in text
