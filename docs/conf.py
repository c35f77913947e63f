"""The documentation site: sphinx-build -W -c docs . build/site

The source folder is the repository itself, so that links between documents, and from documents to files anywhere in
it, are the same on the site as in the repository. Nothing is fetched when the site is built or read.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "site"), str(HERE.parent / "examples" / "theory")]
os.environ.setdefault("MPLBACKEND", "agg")

import pygan  # noqa: E402

project = "pygan"
author = "The pygan developers"
copyright = author
version = release = pygan.__version__
root_doc = "docs/index"
include_patterns = ["docs/**", "*.md", "benchmarks/results/*.md", "tests/simt/README.md"]
exclude_patterns = ["build", ".git", "docs/site", "docs/decisions/0000-template.md"]
nitpicky = True

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "mathml",
    "reference",
    "repository",
]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# The reference is made from docstrings in Google style; docs/site/reference.py adds what they need.
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
nitpick_ignore_regex = [  # other packages, whose references need the network; and what is internal
    ("py:.*", r"(torch|numpy|collections|pathlib|typing|matplotlib)\..*"),
    ("py:class", r"Figure|SubFigure|Path|Algorithm|Record"),
    ("py:class", r"pygan\.(boards|checkpoint|distributed|folder|models\.fully_connected|models\.\w+\.Window).*"),
]
default_role = "symbol"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

sphinx_gallery_conf = {
    "examples_dirs": ["examples"],
    "gallery_dirs": ["docs/gallery"],
    "ignore_pattern": r"small_game\.py",
    "reset_modules": ("matplotlib",),
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "capture_repr": (),
    "within_subsection_order": "FileNameSortKey",
    "write_computation_times": False,  # a page that loads scripts from elsewhere
    "abort_on_example_error": True,
    "plot_gallery": True,
}

html_theme = "furo"
html_title = f"pygan {release}"
html_static_path = ["site/static"]
html_css_files = ["pygan.css"]
html_extra_path = ["site/extra"]  # the site's first page leads to docs/index.html
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"
