"""docs/mission.md names a test for every row of the mission; each of those tests exists."""

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "mission.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([PWFK]\d\d?) \|([^|]*)\|([^|]*)\|", PAGE, re.MULTILINE)


@functools.cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_row_of_the_mission_is_there_once() -> None:
    wanted = [
        *(f"P{number:02}" for number in range(1, 27)),
        *(f"W{number}" for number in range(1, 7)),
        *(f"F{number:02}" for number in range(1, 20)),
        *(f"K{number:02}" for number in range(1, 26)),
    ]
    assert [row for row, _, _ in ROWS] == wanted


def test_every_test_named_exists() -> None:
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", PAGE)
    assert len(named) > 60
    for file, test in named:
        assert test in names_in(file), f"{file} has no {test}"


def test_a_row_names_a_test_or_says_why_not() -> None:
    for row, _, answer in ROWS:
        assert "`test_" in answer or re.search(r"not yet|out of scope|explained", answer), row


def test_a_feature_names_a_test_or_says_why_not() -> None:
    _, _, table = PAGE.partition("## What users of small and medium networks need")
    features = re.findall(r"^\| ([^|]*) \| ([^|]*) \|$", table, re.MULTILINE)[1:]
    assert len(features) == len({name for name, _ in features}) >= 50
    for name, answer in features:
        assert "`test_" in answer or "not yet" in answer, name
