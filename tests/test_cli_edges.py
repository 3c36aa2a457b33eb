"""The `fastbp` command where tables, files and options are odd: a right result or one message."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp
from command_line import Run

ROWS = [(f"{i * 37 % 41}", f"{i * 11 % 17}.5", "xyz"[i % 3], "pq"[i % 2]) for i in range(40)]


def table(path: Path, names: str = "a,b,c,y", rows: Any = ROWS) -> str:
    path.write_text("\n".join([names, *(",".join(row) for row in rows)]) + "\n")
    return path.name


TRAIN = ("--target", "y", "--epochs", 1)


def test_one_row_to_validate_has_no_r2(run: Run, tmp_path: Path) -> None:
    name = table(tmp_path / "t.csv", "a,y", [("1", "2"), ("2", "3.5"), ("3", "7")])
    status, out, error = run("train", name, *TRAIN)
    assert status == 0, error
    assert out.count("r2 ") == 1 and out.split("r2 ")[1].split("\n")[0].split()[1] == "-"
    assert (
        "r2"
        not in run("evaluate", "t.safetensors", table(tmp_path / "u.csv", "a,y", [("1", "2")]))[1]
    )


def test_numbers_of_any_size(run: Run, tmp_path: Path) -> None:
    rows = [(f"{i}e{200 + i % 2}", f"{i * 10**17}") for i in range(30)]
    assert run("train", table(tmp_path / "t.csv", "a,y", rows), *TRAIN)[::2] == (0, "")
    (column,) = json.loads(bp.load("t.safetensors").metadata["fastbp_table"])["columns"]
    assert 1e200 < column["mean"] < 1e203 and 1e200 < column["std"] < 1e203
    scores = json.loads(run("evaluate", "t.safetensors", "t.csv", "--json")[1])
    assert 1e17 < scores["rmse"] < 1e19 and np.isfinite(scores["r2"])
    rows = [(str(i), f"{i}e300") for i in range(30)]
    assert run("train", table(tmp_path / "t.csv", "a,y", rows), *TRAIN)[::2] == (0, "")
    scores = json.loads(run("evaluate", "t.safetensors", "t.csv", "--json")[1])
    assert 1e300 < scores["rmse"] < 1e302 and np.isfinite(scores["r2"])
    rows = [(str(1.7e308 * (i % 2)), str(i)) for i in range(30)]
    assert run("train", table(tmp_path / "u.csv", "a,y", rows), *TRAIN)[::2] == (0, "")
    rows = [(str(1.7e308 if i else -1.7e308), str(i)) for i in range(30)]
    status, _, error = run("train", table(tmp_path / "u.csv", "a,y", rows), *TRAIN)
    assert status == 2 and "column 'a': its numbers, from -1.7e+308 to 1.7e+308, are" in error
    far = table(tmp_path / "far.csv", "a", [("1",), ("1e300",)])
    status, out, error = run("predict", "t.safetensors", far)
    assert (status, out) == (2, "") and "far.csv, line 3: the network's output is not" in error


def test_long_whole_numbers_are_different_classes(run: Run, tmp_path: Path) -> None:
    names = ["100000000000000000", "100000000000000001"]
    rows = [(str(i), names[i % 2]) for i in range(30)]
    status, out, error = run("train", table(tmp_path / "t.csv", "a,y", rows), *TRAIN)
    assert status == 0, error
    assert "2 classes: '1e+17', '100000000000000001'" in out
    (tmp_path / "u.csv").write_text("a,y\n1,1.0e17\n2,100000000000000001\n")
    assert run("evaluate", "t.safetensors", "u.csv")[0] == 0


def test_underscores_make_names(run: Run, tmp_path: Path) -> None:
    rows = [(f"{i % 3}_{i % 2}", "pq"[i % 2]) for i in range(30)]
    assert (
        "1 of categories: a (6)" in run("train", table(tmp_path / "t.csv", "a,y", rows), *TRAIN)[1]
    )


def test_lines_of_blanks_are_no_rows(run: Run, tmp_path: Path) -> None:
    name = table(tmp_path / "t.csv")
    with (tmp_path / name).open("a") as file:
        file.write("   \n\t\n")
    status, out, error = run("train", name, *TRAIN)
    assert status == 0, error
    assert "40 rows" in out
    table(tmp_path / "one.csv", "a,y", [(str(i), f"{i}.5") for i in range(9)])
    assert run("train", "one.csv", *TRAIN, "--missing", "fill")[0] == 0
    (tmp_path / "new.csv").write_text('a\n1\n""\n3\n')  # how a missing cell stands in one column
    assert len(run("predict", "one.safetensors", "new.csv")[1].splitlines()) == 4


def test_a_missing_category_that_training_never_saw(run: Run, tmp_path: Path) -> None:
    name = table(tmp_path / "t.csv")
    assert run("train", name, *TRAIN, "--missing", "fill")[0] == 0
    (tmp_path / "new.csv").write_text("a,b,c\n1,2,\n")
    assert run("predict", "t.safetensors", "new.csv")[::2] == (0, "")
    holes = [(a, b, "" if i % 4 == 0 else c, y) for i, (a, b, c, y) in enumerate(ROWS)]
    status, out, _ = run(
        "train", table(tmp_path / "t.csv", rows=holes), *TRAIN, "--missing", "fill"
    )
    assert status == 0 and "no training row has" not in out


@pytest.mark.filterwarnings("default")
def test_what_diverges_is_not_saved(run: Run, tmp_path: Path) -> None:
    status, _, error = run("train", table(tmp_path / "t.csv"), "--target", "y", "--epochs", 3,
                           "--learning-rate", 1e30)  # fmt: skip
    assert status == 2 and "training has diverged, and nothing is saved" in error
    assert "RuntimeWarning" not in error and not (tmp_path / "t.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--target", "\N{SUPERSCRIPT TWO}"], "no column"),
        (["--target", "-5"], "no column '-5'"),
        (["--target=--"], "'--'"),  # which argparse drops in some versions of Python
        (["--epochs", 10**20], "epochs must be from 0 to"),
        (["--optimizer", "lbfgs", "--learning-rate", 0.1], "finds its steps itself"),
        (["--output", "t.csv"], "--output t.csv would overwrite t.csv"),
        (["--output", "./t.csv"], "would overwrite"),
        (["--drop", '"a'], "expected names and commas"),
    ],
)
def test_mistakes_in_options(run: Run, tmp_path: Path, options: list[str], said: str) -> None:
    name = table(tmp_path / "t.csv")
    before = (tmp_path / name).read_bytes()
    status, _, error = run("train", name, *TRAIN, *options)
    assert status == 2 and said in error
    assert (tmp_path / name).read_bytes() == before


def test_files_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    run("train", table(tmp_path / "t.csv"), *TRAIN)
    os.mkfifo("pipe")
    status, _, error = run("train", "t.csv", *TRAIN, "--output", "pipe")
    assert status == 2 and "cannot write pipe: this is a device or a pipe, not a file" in error
    assert Path("pipe").is_fifo()
    for output in ("t.csv", "t.safetensors"):
        before = (tmp_path / output).read_bytes()
        status, _, error = run("predict", "t.safetensors", "t.csv", "--output", output)
        assert status == 2 and f"would overwrite {output}" in error
        assert (tmp_path / output).read_bytes() == before
    if Path("/dev/full").is_char_device():
        status, _, error = run("predict", "t.safetensors", "t.csv", "--output", "/dev/full")
        assert status == 2 and "No space left" in error


def test_saved_runs_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name, said in (("gone.json", "gone.json: No such file"), ("deep.json", "is not JSON")):
        status, _, error = run("bench", "--report", name)
        assert status == 2 and said in error and "Errno" not in error


def test_a_contestant_that_does_not_start(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastbp.benchmark import pool, runner

    def dies(*_: object) -> None:
        raise pool.WorkerError("its process died: status 1")

    monkeypatch.setattr(runner, "run", dies)
    status, _, error = run("bench", "--quick", "--only", "2-16-1")
    assert status == 2 and "fastbp bench: its process died: status 1" in error


def test_characters_that_the_terminal_lacks(run: Run, tmp_path: Path) -> None:
    rows = [(str(i), "\N{GREEK SMALL LETTER ALPHA}b"[i % 2]) for i in range(30)]
    run("train", table(tmp_path / "t.csv", "a,y", rows), *TRAIN)
    command = [sys.executable, "-m", "fastbp", "predict", "t.safetensors", "t.csv"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "the encoding of the output, ascii, has no '\\u03b1'" in done.stderr
    command[3] = "evaluate"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "\\u03b1" in done.stdout


def test_a_closed_output() -> None:
    command = f"{sys.executable} -m fastbp info >&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("option", ["--config", "--conf"])
def test_a_file_with_options_that_say_nothing(
    run: Run, tmp_path: Path, mark: str, option: str
) -> None:
    rows = [(*row[:2], *row) for row in ROWS]
    table(tmp_path / "t.csv", '"d,e",f,a,b,c,y', rows)
    options = {"target": "y", "epochs": 1, "hidden": [], "drop": ["d,e", "f"], "categorical": []}
    (tmp_path / "o.json").write_text(mark + json.dumps(options), encoding="utf-8")
    status, out, error = run("train", "t.csv", option, "o.json")
    assert status == 0, error
    assert "2 number columns: a, b" in out and "network   5-1" in out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"drop": [true]}', "drop = [True] is no value of an option"),
        ('{"target": "y", "epochs": true}', "argument --epochs: expected one argument"),
        ("[" * 100_000, "o.json: "),
    ],
)
def test_mistakes_in_a_file_with_options(run: Run, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "o.json").write_text(text)
    status, _, error = run("train", table(tmp_path / "t.csv"), "--config", "o.json")
    assert status == 2 and said in error


def test_models_whose_layers_changed(run: Run, tmp_path: Path) -> None:
    name = table(tmp_path / "t.csv")
    run("train", name, *TRAIN)
    model = bp.load("t.safetensors")
    kept = dict(model.metadata)
    model.replace_head(3)
    model.save("t.safetensors", metadata=kept)
    for command in ("predict", "evaluate"):
        status, out, error = run(command, "t.safetensors", name)
        assert (status, out) == (2, "") and "5 inputs to 3 outputs, but its description" in error


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["columns"][0].update(mean="x"),
        lambda d: d["columns"][0].update(std=0),
        lambda d: d["columns"][0].update(mean=float("nan")),
        lambda d: d["columns"][0].update(name=3),
        lambda d: d["columns"][0].update(fill="abc"),
        lambda d: d["columns"][2].update(values=[1, 2, 3]),
        lambda d: d["columns"].clear(),
        lambda d: d["target"].update(task="other"),
        lambda d: d["target"].update(classes=["p", "q", "r"]),
        lambda d: d["target"].update(classes="pq"),
        lambda d: d.update(positions=["a", "b", "c"]),
        lambda d: d.update(positions=[]),
    ],
)
def test_damaged_descriptions(run: Run, tmp_path: Path, change: Any) -> None:
    name = table(tmp_path / "t.csv")
    run("train", name, *TRAIN)
    model = bp.load("t.safetensors")
    described = json.loads(model.metadata["fastbp_table"])
    change(described)
    model.save("t.safetensors", metadata={"fastbp_table": json.dumps(described)})
    for command in ("predict", "evaluate"):
        assert run(command, "t.safetensors", name) == (
            2, "", f"fastbp {command}: t.safetensors: its description of the columns is damaged\n"
        )  # fmt: skip
