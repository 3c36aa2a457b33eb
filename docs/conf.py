"""The site of these pages and of the docstrings:  make docs  writes it to build/docs."""

import re
from typing import Any

from fastbp import __version__

project = "fastbp"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # links to files of the repository beside docs/
default_role = "code"  # `name` in a docstring is code, as in the pages
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
html_theme = "pydata_sphinx_theme"
html_title = f"fastbp {version}"
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 9,
}
html_show_sourcelink = False
html_sidebars = {"**": []}  # every page is in the bar at the top


SECTIONS = {"Args:", "Attributes:", "Returns:", "Raises:", "Yields:"}


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", as_plain_text, priority=100)  # before napoleon
    app.connect("autodoc-skip-member", leave_out)


def as_plain_text(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text: what looks like markup is none, but for `code`; an indented block
    that is no list of arguments is a program or a table."""
    text: list[str] = []
    in_section = in_block = False
    after_blank = True
    for line in lines:
        indented = line.startswith("    ")
        if line and not indented:
            in_section, in_block = line in SECTIONS, False
        if indented and after_blank and not in_section and not in_block:
            text += ["::", ""]
            in_block = True
        text.append(line if in_block else escaped(line))
        after_blank = not line.strip()
    lines[:] = text


def escaped(line: str) -> str:
    parts = re.split("(`[^`]*`)", line)
    return "".join(p if p[:1] == "`" else re.sub(r"[*|]|_\b", r"\\\g<0>", p) for p in parts)


def leave_out(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Methods that scikit-learn makes: set_fit_request and so on."""
    return True if name.startswith("set_") and name.endswith("_request") else None
