"""Configuration of the documentation; the reference pages are written from the code at every build."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import aiida_mofmace

project = "aiida-mofmace"
author = "The aiida-mofmace developers"
copyright = "2026, the aiida-mofmace developers"
release = aiida_mofmace.__version__

extensions = ["myst_parser", "sphinx.ext.mathjax"]
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
# The pages are read offline too: a missing reference is an error, a missing network is not.
nitpicky = False

html_theme = "furo"
html_title = f"aiida-mofmace {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]


def write_reference(app: Any) -> None:
    """Write the pages of the reference that are made from the code."""
    from reference_pages import write_all

    write_all(Path(app.srcdir) / "reference" / "generated")


def setup(app: Any) -> None:
    app.connect("builder-inited", write_reference)
