"""How Sphinx builds these pages. Nothing is fetched from a network, nor by the browser of who reads them."""

import sys
from pathlib import Path

import sparsehess

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "sparsehess"
author = "sparsehess developers"
copyright = author
release = version = sparsehess.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "sphinxarg.ext",
    "answers",
    "job_keys",
    "docstrings",
    "mathml",
    "structure_table",
]
exclude_patterns = ["_extensions", "_templates"]
templates_path = ["_templates"]
nitpicky = True
suppress_warnings = ["myst.domains"]  # that of sphinxarg answers no link of myst
default_role = "name"
smartquotes = False

# --- texts -----------------------------------------------------------------------------
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 4

# --- Python ----------------------------------------------------------------------------
autodoc_typehints = "none"  # the sections of a docstring tell them in words
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

# --- gallery ---------------------------------------------------------------------------
sphinx_gallery_conf = {
    "examples_dirs": "../drivers",
    "gallery_dirs": "gallery",
    "filename_pattern": "",
    "reset_argv": "programs.prepare",
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "min_reported_time": 1e9,
    "notebook_extensions": set(),  # a driver knows where its file is
    "thumbnail_size": (800, 320),
}

# --- HTML ------------------------------------------------------------------------------
html_theme = "furo"
html_title = f"sparsehess {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sphinx = False
html_copy_source = False
