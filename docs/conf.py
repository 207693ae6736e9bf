"""Sphinx: tools/docs.sh builds the pages from a copy of what is documented, in build/docs/source."""

import re
import sys
from pathlib import Path

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root / "python"))

numbers = re.findall(r"#define EINFIELD_VERSION_\w+ (\d+)", (root / "include/einfield/core.hpp").read_text())
project = "einfield"
copyright = "the einfield contributors, MIT license"  # noqa: A001
release = version = ".".join(numbers)

extensions = ["myst_parser", "breathe", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
root_doc = "docs/index"
exclude_patterns = ["docs/README.md"]  # the table of contents for readers of the repository
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
highlight_language = "text"
nitpicky = True
default_role = "code"  # `…` in docstrings
smartquotes = False  # -- begins an option

html_theme = "furo"
html_title = f"einfield {release}"
html_show_sourcelink = False

# Signatures and docstrings stand in the Python sources: the compiled module and the bridges' packages are not needed.
autodoc_mock_imports = ["einfield._core", "jax", "torch", "matplotlib", "tqdm"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"

breathe_projects = {"einfield": str(root / "build/docs/doxygen/xml")}
breathe_default_project = "einfield"
breathe_default_members = ("members",)
breathe_show_include = False

# Types that no page describes: words in docstrings, names of CUDA and of the implementation.
nitpick_ignore_regex = [("cpp:identifier", ".*"), ("py:class", ".*")]
