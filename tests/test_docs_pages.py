"""Pages of docs/ whose blocks run as they stand, one after the other."""

from pathlib import Path

import pytest

from pages import programs


@pytest.mark.parametrize(
    ("page", "blocks"),
    [("training", 9), ("layers", 1), ("losses", 2), ("optimizers", 2), ("sequences", 4)],
)
def test_the_page_runs(
    page: str, blocks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    found = programs(f"docs/{page}.md")
    assert len(found) >= blocks
    names: dict[str, object] = {}
    for block in found:
        exec(compile(block, f"{page}.md", "exec"), names)
