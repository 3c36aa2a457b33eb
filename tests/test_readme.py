"""What the README shows works: its program runs, its links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pages import ROOT, programs


def run_programs(page: str, folder: Path) -> str:
    """Runs the Python blocks of a page in one session."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(programs(page))],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", ["transfer", "ensembles"])
def test_the_programs_of_the_pages_run(page: str, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    run_programs(f"docs/{page}.md", tmp_path)


def test_the_programs_run(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    printed = run_programs("README.md", tmp_path)
    assert float(printed.splitlines()[0]) > 0.85
    assert (tmp_path / "digits.safetensors").exists()


def test_links_lead_somewhere() -> None:
    for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "bench" / "README.md"):
        for link in re.findall(r"\]\(([^)#]+)", file.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (file.parent / link).exists(), f"{file.name}: {link}"


def test_files_named_in_the_documents_exist() -> None:
    for file in (ROOT / "docs" / "adding.md", ROOT / "README.md", ROOT / "bench" / "README.md"):
        names = re.findall(r"`((?:csrc|python|tests|bench|cmake|docs)/[\w./]+)`", file.read_text())
        for name in names:
            assert (ROOT / name).exists(), f"{file.name}: {name}"
