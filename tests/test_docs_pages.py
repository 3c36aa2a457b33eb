"""Pages of docs/ whose blocks run as they stand, one after the other."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize(
    ("page", "blocks"),
    [("training", 9), ("layers", 1), ("losses", 2), ("optimizers", 2), ("sequences", 4)],
)
def test_the_page_runs(
    page: str, blocks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    path = DOCS / f"{page}.md"
    found = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) >= blocks
    names: dict[str, object] = {}
    for block in found:
        exec(compile(block, str(path), "exec"), names)
