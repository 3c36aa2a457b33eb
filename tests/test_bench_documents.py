"""Saved benchmark runs: the schema, joining, tables, comparison. Nothing is timed here."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

import bench_documents as made
from fastbp.benchmark import compare, document, report
from fastbp.benchmark.timing import Ratio, Timing
from fastbp.cli import main


def saved(path: Path, content: dict[str, Any]) -> Path:
    document.write(path, content)
    return path


def test_a_document_fits_the_schema(tmp_path: Path) -> None:
    content = made.plain()
    assert list(document.faults(content, document.schema())) == []
    assert document.read(saved(tmp_path / "run.json", content)) == content


def test_the_schema_is_one_and_our_check_agrees_with_jsonschema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = document.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    checker = jsonschema.Draft202012Validator(schema)
    for change in (
        lambda d: None,
        lambda d: d.pop("peaks"),
        lambda d: d.update(more=1),
        lambda d: d.update(format="another/1"),
        lambda d: d["machine"].update(threads=0),
        lambda d: d["machine"].update(threads=True),
        lambda d: d["workloads"][0].update(kind="walk"),
        lambda d: d["workloads"][1]["results"]["numpy"].update(threads="two"),
        lambda d: d["workloads"][1]["results"]["numpy"]["seconds"].pop("rounds"),
    ):
        content = json.loads(json.dumps(made.plain()))
        change(content)
        assert checker.is_valid(content) == (list(document.faults(content, schema)) == [])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("nonsense", "is not JSON"),
        ("[]", "the document should be object, is list"),
        ("{}", "the document lacks 'format'"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(document.DocumentError, match=said):
        document.read(path)


def test_a_fault_is_named_by_its_place() -> None:
    content = made.plain()
    content["workloads"][1]["results"]["numpy"]["seconds"]["samples"] = "many"
    (fault,) = document.faults(content, document.schema())
    assert fault == (
        "the document.workloads[1].results.numpy.seconds.samples should be integer, is str"
    )


def test_joining_takes_the_last_of_a_workload_and_refuses_other_machines() -> None:
    first = made.document(made.workload(made.SMALL, {"fastbp": [1.0]}))
    second = made.document(
        made.workload(made.WIDE, {"fastbp": [5.0]}), made.workload(made.SMALL, {"fastbp": [2.0]})
    )
    together = document.joined([first, second])
    medians = {
        w["name"]: w["results"]["fastbp"]["seconds"]["median"] for w in together["workloads"]
    }
    assert medians == {made.SMALL.name: pytest.approx(2e-6), made.WIDE.name: pytest.approx(5e-6)}
    other = copy.deepcopy(second)
    other["machine"]["cpu"] = "another"
    with pytest.raises(document.DocumentError, match="and 'another'"):
        document.joined([first, other])


def test_the_tables_say_times_ratios_and_what_is_missing() -> None:
    content = made.plain()
    content["workloads"][1]["steady"] = False
    content["workloads"][1]["failed"] = {"jax": "out of memory"}
    shown = report.as_text(content)
    head, small, wide = (
        line.split("  ") for line in shown.splitlines() if line.startswith(("workload", "4-", "78"))
    )
    assert [cell.strip() for cell in head if cell] == [
        "workload",
        "fastbp",
        "spread",
        "roofline",
        "step()",
        "numpy",
        "torch",
        "best peer",
    ]
    cells = [cell.strip() for cell in small if cell]
    assert cells == ["4-32-3 b16", "1 us", "1%", "50%", "2 us", "10.0x", "40.0x", "10.0x"]
    assert wide[0] == f"{made.WIDE.name} ?"
    assert f"no result of jax for {made.WIDE.name}: out of memory" in shown
    assert "takes 10.00 times as long (geometric mean of 2)" in shown


def test_bfloat16_is_measured_against_everyone_less_exact_or_not() -> None:
    content = made.document(
        made.workload(
            made.WIDE,
            {
                "fastbp": [2.0],
                "fastbp bfloat16": [1.0],
                "numpy": [9.0],
                "numpy float64": [1.5],
                "torch bfloat16": [3.0],
            },
        )
    )
    assert report.dtypes(content) == ["float32", "bfloat16"]
    (exact,), (rough,) = report.rows(content, "float32"), report.rows(content, "bfloat16")
    assert exact.best_rival() == ("numpy", pytest.approx(4.5))
    assert rough.best_rival() == ("torch bfloat16", pytest.approx(3.0))
    assert set(rough.rivals()) == {"numpy", "torch bfloat16"}


def test_markdown_goes_between_the_marks(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"above\n{report.BEGIN}\nold\n{report.END}\nbelow\n")
    report.write_markdown(path, made.plain())
    text = path.read_text()
    assert text.startswith(f"above\n{report.BEGIN}\n")
    assert text.endswith(f"{report.END}\nbelow\n")
    assert "old" not in text
    assert "| 4-32-3 b16 | 1 us |" in text
    report.write_markdown(tmp_path / "new.md", made.plain())
    assert "| 4-32-3 b16 | 1 us |" in (tmp_path / "new.md").read_text()


def test_ratios_are_of_rounds_and_drop_the_outermost_two() -> None:
    own = Timing.of([[1.0], [2.0], [1.0], [1.0], [1.0]])
    other = Timing.of([[3.0], [6.0], [3.3], [9.0], [0.1]])
    ratio = Ratio.of(other, own)  # 3, 3, 3.3, 9, 0.1
    assert (ratio.median, ratio.low, ratio.high) == (3.0, 3.0, pytest.approx(3.3))


def test_a_change_counts_by_the_baseline_and_beyond_noise() -> None:
    before = made.plain(own=1.0, numpy=10.0)
    busy = made.plain(own=2.0, numpy=20.0)  # everything took twice as long: the machine, not us
    slower = made.plain(own=1.2, numpy=10.0)
    assert {c.verdict for c in compare.changes(before, before)} == {"same"}
    assert {c.verdict for c in compare.changes(before, busy)} == {"same"}
    found = compare.changes(before, slower)
    assert {c.verdict for c in found} == {"slower"}
    assert {c.contestant for c in found} == {"fastbp", "fastbp step"}
    assert found[0].factor == pytest.approx(1.2, rel=0.02)
    assert {c.verdict for c in compare.changes(slower, before)} == {"faster"}
    assert len(compare.slower_than(found, 1.1)) == 4
    assert compare.slower_than(found, 1.3) == []


def test_noise_is_not_called_a_change() -> None:
    calm = made.document(
        made.workload(made.SMALL, {"fastbp": [1, 1, 1, 1, 1], "numpy": [9, 9, 9, 9, 9]})
    )
    noisy = made.document(
        made.workload(made.SMALL, {"fastbp": [0.9, 1.0, 1.5, 1.6, 2], "numpy": [9, 9, 9, 9, 9]})
    )
    (change,) = compare.changes(calm, noisy)
    assert change.factor > 1.3
    assert change.verdict == "same"


def test_the_command_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = saved(tmp_path / "old.json", made.plain(own=1.0))
    new = saved(tmp_path / "new.json", made.plain(own=1.2))
    assert main(["bench", "--compare", str(old), str(new)]) == 0
    shown = capsys.readouterr().out
    assert "4 slower, 0 faster, 0 the same" in shown
    assert main(["bench", "--compare", str(old), str(new), "--fail-above", "1.1"]) == 1
    assert f"FAIL: {made.WIDE.name}, fastbp: 1.20 times as long" in capsys.readouterr().out
    assert main(["bench", "--compare", str(new), str(old), "--fail-above", "1.1"]) == 0


def test_the_command_reports_saved_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = saved(tmp_path / "one.json", made.document(made.workload(made.SMALL, {"fastbp": [1.0]})))
    two = saved(tmp_path / "two.json", made.document(made.workload(made.WIDE, {"fastbp": [7.0]})))
    both, table = tmp_path / "both.json", tmp_path / "table.md"
    options = ["--json", str(both), "--markdown", str(table)]
    assert main(["bench", "--report", str(one), str(two), *options]) == 0
    shown = capsys.readouterr().out
    assert made.SMALL.name in shown
    assert made.WIDE.name in shown
    assert len(document.read(both)["workloads"]) == 2
    assert made.WIDE.name in table.read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--fail-above", "1.1"], "--fail-above needs --compare OLD NEW"),
        (["--torch-compile"], "--torch-compile needs --peers"),
        (["--only", "no such network"], "no workload has 'no such network' in its name"),
        (["--report", "nowhere.json"], "nowhere.json"),
        (["--repeats", "0"], "too small"),
        (["--device", "tpu"], "invalid choice"),
    ],
)
def test_mistakes_end_with_status_2(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *options]) == 2
    assert said in capsys.readouterr().err


def test_plots_are_drawn_and_matplotlib_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = saved(tmp_path / "run.json", made.plain())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["bench", "--report", str(run), "--plots", str(tmp_path / "figures")]) == 2
    assert "pip install 'fastbp[bench]'" in capsys.readouterr().err
    monkeypatch.undo()
    pytest.importorskip("matplotlib")
    folder = tmp_path / "figures"
    assert (
        main(["bench", "--report", str(run), "--plots", str(folder), "--plot-format", "svg"]) == 0
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        "ratios-float32.svg",
        "roofline-float32.svg",
    ]
