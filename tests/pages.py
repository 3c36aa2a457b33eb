"""The programs on the pages of README.md and docs/."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def programs(page: str) -> list[str]:
    """The Python blocks of a page, "docs/layers.md"; later ones use the names of earlier ones."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)
