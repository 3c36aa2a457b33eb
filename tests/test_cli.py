"""The `fastbp` command as people use it: tables on disk, exit status, messages.

Most tests call `main(argv)` in this process; what needs a real process (signals, pipes, `-m`)
starts one. The tables are small and learnable, so that scores can be checked.
"""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastbp as bp
from command_line import Run

COMMANDS = ("demo", "train", "predict", "evaluate", "explain", "info", "verify", "bench")


def write(path: Path, header: list[str] | None, rows: list[list[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(([header] if header else []) + rows)
    return path


def flowers(path: Path, n: int = 150, header: bool = True) -> Path:
    """Three species told apart by two lengths and a colour."""
    rng = np.random.default_rng(0)
    rows: list[list[object]] = []
    for i in range(n):
        kind = i % 3
        colour = ("red", "blue", "blue")[kind]
        rows.append(
            [
                f"{3 * kind + rng.normal():.3f}",
                f"{1000 + 100 * (kind == 2) + 20 * rng.normal():.2f}",
                colour,
                ("ann", "bob", "cat")[kind],
            ]
        )
    return write(path, ["length", "weight", "colour", "species"] if header else None, rows)


def houses(path: Path, n: int = 200) -> Path:
    """price = 5000 area + 20000 if it has a garden, plus noise."""
    rng = np.random.default_rng(1)
    rows: list[list[object]] = []
    for _ in range(n):
        area, garden = rng.uniform(40, 200), rng.choice(["yes", "no"])
        price = 5000 * area + 20000 * (garden == "yes") + rng.normal() * 1000
        rows.append([f"{area:.2f}", garden, f"{price:.2f}"])
    return write(path, ["area", "garden", "price"], rows)


FAST = ("--epochs", 60, "--learning-rate", 0.01)


def test_classes_from_training_to_predictions(run: Run, tmp_path: Path) -> None:
    trained = run("train", flowers(tmp_path / "flowers.csv"), "--target", "species", *FAST)
    assert trained.status == 0, trained.err
    for said in (
        "150 rows",
        "species: multiclass, 3 classes: 'ann', 'bob', 'cat'",
        "120 rows to train, 30 to validate",
        "4-64-32-3",
        "flowers.safetensors",
        "fastbp predict flowers.safetensors",
    ):
        assert said in trained.out
    new = flowers(tmp_path / "new.csv", 30)
    predicted = run("predict", "flowers.safetensors", new)
    rows = list(csv.reader(predicted.out.splitlines()))
    assert rows[0] == ["species", "p(ann)", "p(bob)", "p(cat)"]
    assert len(rows) == 31
    right = [row[3] for row in csv.reader(new.read_text().splitlines())][1:]
    assert np.mean([row[0] == name for row, name in zip(rows[1:], right, strict=True)]) > 0.9
    assert all(abs(sum(map(float, row[1:])) - 1) < 1e-5 for row in rows[1:])
    evaluated = run("evaluate", "flowers.safetensors", new, "--json")
    scores = json.loads(evaluated.out)
    assert scores["accuracy"] > 0.9
    assert scores["rows"] == 30


def test_quantities_are_predicted_in_their_own_units(run: Run, tmp_path: Path) -> None:
    table = houses(tmp_path / "houses.csv")
    trained = run("train", table, "--target", "price", "--output", "m.safetensors", *FAST)
    assert trained.status == 0, trained.err
    assert "price: regression" in trained.out
    assert "rmse" in trained.out
    assert run("predict", "m.safetensors", table, "--output", "out.csv").status == 0
    rows = list(csv.reader((tmp_path / "out.csv").read_text().splitlines()))
    assert rows[0] == ["price"]
    price = [float(row["price"]) for row in csv.DictReader(table.read_text().splitlines())]
    assert np.abs(np.array([float(r[0]) for r in rows[1:]]) / price - 1).mean() < 0.05
    assert json.loads(run("evaluate", "m.safetensors", table, "--json").out)["r2"] > 0.98


def test_two_classes_written_as_numbers(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    rows: list[list[object]] = [[f"{x:.4f}", int(x > 0)] for x in rng.normal(size=100)]
    table = write(tmp_path / "t.csv", ["x", "y"], rows)
    assert "y: binary, 2 classes: '0', '1'" in run("train", table, "--target", "y", *FAST).out
    spelled = write(tmp_path / "u.csv", ["x", "y"], [["-3", "0.0"], ["3", "1.0"]])
    evaluated = run("evaluate", "t.safetensors", spelled)
    assert evaluated.status == 0, evaluated.err
    assert re.search(r"accuracy +1\n", evaluated.out)
    assert "true \\ predicted" in evaluated.out


def test_statistics_come_from_the_training_rows_alone(run: Run, tmp_path: Path) -> None:
    from fastbp.cli.columns import Description
    from fastbp.cli.modelfile import METADATA_KEY
    from fastbp.cli.train import split

    table = houses(tmp_path / "h.csv", 50)
    assert run("train", table, "--target", "price", "--epochs", 1, "--seed", 3).status == 0
    model = bp.load(tmp_path / "h.safetensors")
    description = Description.from_text(model.metadata[METADATA_KEY], "h.safetensors")
    area = np.array([float(r["area"]) for r in csv.DictReader(table.read_text().splitlines())])
    training, validation = split(50, 0.2, 3)
    assert len(training) == 40
    assert len(validation) == 10
    assert description.columns[0].mean == pytest.approx(area[training].mean())
    assert description.columns[0].std == pytest.approx(area[training].std())
    assert description.columns[1].values == ("no", "yes")


def test_the_split_takes_its_share_of_every_class() -> None:
    from fastbp.cli.train import split

    classes = ["a"] * 100 + ["b"] * 40 + ["c"] * 10
    training, validation = split(150, 0.2, 0, classes)
    assert sorted([*training, *validation]) == list(range(150))
    drawn = [classes[row] for row in validation]
    assert [drawn.count(name) for name in "abc"] == [20, 8, 2]
    assert not np.array_equal(validation, split(150, 0.2, 1, classes)[1])
    assert len(split(1, 0.9, 0)[0]) == 1


def test_new_files_may_have_other_columns_in_another_order(run: Run, tmp_path: Path) -> None:
    run("train", houses(tmp_path / "h.csv"), "--target", "price", *FAST)
    new = write(
        tmp_path / "new.csv", ["id", "garden", "area"], [["a", "yes", "100"], ["b", "no", "50"]]
    )
    swapped = write(tmp_path / "swapped.csv", ["area", "garden"], [["100", "yes"], ["50", "no"]])
    first, second = (run("predict", "h.safetensors", f) for f in (new, swapped))
    assert first.status == 0, first.err
    assert first.out == second.out


def test_files_without_a_header_count_their_columns(run: Run, tmp_path: Path) -> None:
    table = flowers(tmp_path / "f.csv", header=False)
    trained = run("train", table, "--target", "3", "--no-header", "--drop", "0", *FAST)
    assert trained.status == 0, trained.err
    assert json.loads(run("evaluate", "f.safetensors", table, "--json").out)["accuracy"] > 0.9
    bare = write(tmp_path / "bare.csv", None, [["1000", "red"], ["1100", "blue"]])
    assert run("predict", "f.safetensors", bare).status == 0
    short = write(tmp_path / "short.csv", None, [["1000"]])
    refused = run("predict", "f.safetensors", short)
    assert refused.status == 2
    assert "short.csv has 1 columns" in refused.err


def test_the_same_seed_gives_the_same_parameters(run: Run, tmp_path: Path) -> None:
    table = houses(tmp_path / "h.csv", 60)
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        run("train", table, "--target", "price", "--epochs", 3, "--seed", seed, "--output", name)
    a, b, c = (bp.load(tmp_path / name).parameters() for name in "abc")
    assert all(np.array_equal(a[key], b[key]) for key in a)
    assert not np.array_equal(a["0.kernel"], c["0.kernel"])


def test_options_of_the_network_are_used(run: Run, tmp_path: Path) -> None:
    table = houses(tmp_path / "h.csv", 60)
    options = ("--hidden", "5,4", "--activation", "tanh", "--dtype", "float64", "--epochs", 2)
    trained = run("train", table, "--target", "price", *options, "--optimizer", "sgd")
    assert trained.status == 0, trained.err
    model = bp.load(tmp_path / "h.safetensors")
    assert model.dtype == "float64"
    assert [v.shape for k, v in model.parameters().items() if "kernel" in k] == [
        (3, 5),
        (5, 4),
        (4, 1),
    ]
    linear = run("train", table, "--target", "price", "--hidden", "none", "--epochs", 1)
    assert linear.status == 0
    assert len(bp.load(tmp_path / "h.safetensors").parameters()) == 2
    whole = run("train", table, "--target", "price", "--validation-split", 0, "--epochs", 1)
    assert "60 rows to train, 0 to validate" in whole.out


def test_categories_asked_for_and_unseen(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows: list[list[object]] = []
    for _ in range(80):
        code = int(rng.choice([10115, 20095]))
        rows.append([code, f"{rng.normal():.3f}", "lo" if code < 20000 else "hi"])
    table = write(tmp_path / "p.csv", ["code", "x", "y"], rows)
    trained = run("train", table, "--target", "y", "--categorical", "code", *FAST)
    assert "1 of categories: code (2)" in trained.out
    new = write(tmp_path / "new.csv", ["code", "x"], [["10115", "0"], ["99999", "0"]])
    refused = run("predict", "p.safetensors", new)
    assert refused.status == 2
    assert "new.csv, line 3, column 'code': '99999' was not among the values" in refused.err
    assert refused.out == ""
    assert run("predict", "p.safetensors", new, "--unknown", "zeros").status == 0


GOOD = "a,b,y\n" + "".join(f"{i},{'pq'[i % 2]},{i % 2}\n" for i in range(40))


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("", [], "t.csv is empty"),
        ("\n\n", [], "t.csv is empty"),
        ("a,b,y\n", [], "a header line and no rows"),
        (GOOD + "1,2\n", [], "t.csv, line 42: 2 cells, expected 3"),
        (GOOD + "1,p,2,3\n", [], "line 42: 4 cells, expected 3"),
        (GOOD + ",p,1\n", [], "line 42, column 'a': the cell is empty"),
        (GOOD + "NA,p,1\n", [], "line 42, column 'a': the cell holds 'NA', which means missing"),
        (GOOD + "x,p,1\n", [], "line 42, column 'a': 'x' is not a number, but 40 of the 41"),
        (GOOD + "inf,p,1\n", [], "line 42, column 'a': 'inf' is not a finite number"),
        (GOOD + "1,p,\n", [], "column 'y': the cell is empty. Fill it in, or remove the row."),
        (GOOD + "1,p,\n", ["--missing", "fill"], "Fill it in, or remove the row."),
        (GOOD + '1,"p,1\n', [], "record that starts at line 42"),
        ("a,a,y\n1,2,3\n", [], "two columns are named 'a'"),
        ("a,,y\n1,2,3\n", [], "column 1 has no name"),
        ("y\n1\n2\n", [], "no column left to learn from"),
        ("a,y\n1,k\n2,k\n", [], "every row is of class 'k'"),
        ("a,y\n1,5\n2,5\n", ["--task", "regression"], "every value is 5"),
        (GOOD, ["--task", "regression", "--target", "b"], "'p' is not a finite number"),
        ("a,y\n1,k\n2,l\n3,m\n", ["--task", "binary"], "3 classes"),
        (GOOD, ["--target", "nope"], "no column 'nope'; its columns are: 'a', 'b', 'y'"),
        (GOOD, ["--target", "9"], "no column '9'"),
        (GOOD, ["--drop", "zz"], "no column 'zz'"),
        (GOOD.replace(",", ";"), [], "try --delimiter"),
        ("a,y\n" + "".join(f"n{i},{i % 2}\n" for i in range(60)), [], "looks like an identifier"),
        ("a,y\n" + "".join(f'"0,{i}1",{i % 2}\n' for i in range(60)), [], "a decimal comma"),
        (GOOD, ["--activation", "relo"], "did you mean 'relu'"),
        (GOOD, ["--optimizer", "adamm"], "did you mean 'adam'"),
        (GOOD, ["--device", "cuda"], "cuda"),
        (GOOD, ["--epochs", "0"], "0 is too small: expected 1 or more"),
        (GOOD, ["--epochs", "many"], "expected a whole number, got 'many'"),
        (GOOD, ["--learning-rate", "-1"], "expected a number above 0"),
        (GOOD, ["--validation-split", "1"], "expected 0 or more, below 1"),
        (GOOD, ["--hidden", "8,x"], "expected a whole number, got 'x'"),
        (GOOD, ["--seed", "-1"], "expected 0 to 2**64 - 1"),
        (GOOD, ["--output", "no/such/folder/m"], "there is no folder"),
        (GOOD, ["--delimiter", "::"], "expected one character"),
    ],
)
def test_mistakes_end_with_status_2_and_a_message(
    run: Run, tmp_path: Path, text: str, options: list[str], said: str
) -> None:
    (tmp_path / "t.csv").write_text(text)
    target = [] if "--target" in options else ["--target", "y"]
    refused = run("train", "t.csv", *target, "--epochs", 1, *options)
    assert refused.status == 2
    assert said in refused.err
    assert list(tmp_path.glob("*.safetensors")) == []


def test_unreadable_files_and_models(run: Run, tmp_path: Path) -> None:
    assert "cannot read gone.csv" in run("train", "gone.csv", "--target", "y").err
    (tmp_path / "latin.csv").write_bytes(b"a,y\n1,2\n\xe9,3\n")
    assert "latin.csv, line 3: not UTF-8" in run("train", "latin.csv", "--target", "y").err
    table = houses(tmp_path / "h.csv", 40)
    assert run("train", table, "--target", "price", "--epochs", 1).status == 0
    assert "cannot read gone" in run("predict", "gone", table).err
    (tmp_path / "bad").write_bytes((tmp_path / "h.safetensors").read_bytes()[:-5])
    refused = run("predict", "bad", table)
    assert refused.status == 2
    assert "cannot load bad" in refused.err
    model = bp.Sequential([bp.Dense(1)], seed=0)
    model.build(2)
    model.save(tmp_path / "plain")
    assert "was not written by 'fastbp train'" in run("evaluate", "plain", table).err
    other = write(tmp_path / "other.csv", ["area", "price"], [["1", "2"]])
    assert "has no column 'garden'" in run("predict", "h.safetensors", other).err
    wrong = write(tmp_path / "wrong.csv", ["area", "garden", "price"], [["1", "yes", "cheap"]])
    refused = run("evaluate", "h.safetensors", wrong)
    assert refused.status == 2
    assert "line 2, column 'price': 'cheap' is not a finite number" in refused.err


def test_help_and_version(run: Run) -> None:
    assert run("--version") == (0, f"fastbp {bp.__version__}\n", "")
    top = run("--help")
    assert all(command in top.out for command in COMMANDS)
    for command in COMMANDS:
        shown = run(command, "--help")
        assert shown.status == 0
        assert "examples:" in shown.out
        assert f"  fastbp {command}" in shown.out
    assert run().out == top.out
    wrong = run("trian")
    assert wrong.status == 2
    assert "invalid choice: 'trian'" in wrong.err


def test_info_as_text_and_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTBP_DEVICE", "toaster")
    shown = run("info")
    assert shown.status == 0
    for said in (bp.__version__, "scalar", "threads", "FASTBP_ISA", "FASTBP_NUM_THREADS"):
        assert said in shown.out
    assert re.search(r"FASTBP_DEVICE +'toaster' +NOT VALID: .*'reference'", shown.out)
    found = json.loads(run("info", "--json").out)
    assert found["fastbp"] == bp.__version__


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("FASTBP_ISA", "mmx", "scalar"),
        ("FASTBP_NUM_THREADS", "many", "FASTBP_NUM_THREADS"),
        ("FASTBP_DEVICE", "toaster", "'reference'"),
    ],
)
def test_a_wrong_variable_stops_every_command_with_a_message(
    tmp_path: Path, variable: str, value: str, said: str
) -> None:
    table = houses(tmp_path / "h.csv", 20)
    for argv in (("verify", "--quick"), ("train", table, "--target", "price")):
        with start(*argv, cwd=tmp_path, env={**os.environ, variable: value}) as process:
            _, err = process.communicate(timeout=300)
        assert process.returncode == 2
        assert said in err
        assert variable in err
        assert value in err
        assert "Traceback" not in err


def test_verify_status(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = ("verify", "--quick", "--isa", "scalar", "--dtype", "float32")
    passed = run(*quick)
    assert passed.status == 0, passed.out
    assert passed.out.rstrip().endswith("PASS")
    assert json.loads(run(*quick, "--json").out)["passed"] is True
    unknown = run("verify", "--isa", "mmx")
    assert unknown.status == 2
    assert "'mmx'" in unknown.err
    monkeypatch.setattr(bp.ops, "softmax", lambda x, out=None: x)
    failed = run(*quick)
    assert failed.status == 1
    assert "FAIL  softmax, float32, scalar" in failed.out
    assert failed.out.rstrip().endswith("FAIL")


def test_demo(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    shown = run("demo", "--epochs", 5)
    assert shown.status == 0, shown.err
    for said in ("1437 images to train, 360 to test", "accuracy", "times as fast", "same predict"):
        assert said in shown.out
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    missing = run("demo")
    assert missing.status == 2
    assert "pip install 'fastbp[demo]'" in missing.err


def test_ctrl_c_is_status_130(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bp.Sequential, "fit", interrupted)
    stopped = run("train", houses(tmp_path / "h.csv"), "--target", "price")
    assert stopped.status == 130
    assert "stopped by Ctrl-C" in stopped.err
    assert not (tmp_path / "h.safetensors").exists()


def start(*argv: object, cwd: Path, env: dict[str, str] | None = None) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "fastbp", *map(str, argv)],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_real_ctrl_c_in_a_real_process(tmp_path: Path) -> None:
    table = houses(tmp_path / "h.csv", 2000)
    with start("train", table, "--target", "price", "--epochs", 10**6, cwd=tmp_path) as process:
        assert process.stdout is not None
        while "network" not in process.stdout.readline():
            assert process.poll() is None
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "stopped by Ctrl-C" in err
    assert "Traceback" not in err


def test_as_a_module_and_into_a_closed_pipe(tmp_path: Path) -> None:
    with start("--version", cwd=tmp_path) as process:
        assert process.communicate(timeout=300)[0] == f"fastbp {bp.__version__}\n"
    with start("verify", "--quick", "--isa", "scalar", cwd=tmp_path) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
    assert process.returncode == 1
    assert err == ""
