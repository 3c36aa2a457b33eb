"""The site: every public name and every page is in it. (.ci/run builds it, warnings as errors.)"""

import re
from pathlib import Path

import fastbp as bp

DOCS = Path(__file__).parent.parent / "docs"


def test_every_public_name_has_its_place() -> None:
    listed = re.findall(r"^\.\. auto\w+:: fastbp\.(\S+)$", (DOCS / "api.md").read_text(), re.M)
    names = [name for name in listed if not name.startswith("sklearn.")]
    assert sorted(names) == sorted(set(bp.__all__) - {"__version__", "reference"})


def test_every_page_is_in_the_contents() -> None:
    contents = set(re.findall(r"<(\w+)>$", (DOCS / "index.md").read_text(), re.M))
    assert contents == {page.stem for page in DOCS.glob("*.md")} - {"index"}
