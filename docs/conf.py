"""How the site is built: `make docs`, without a network, with every warning an error."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOTS = [str(HERE.parent / "src"), str(HERE.parent / "backends")]
sys.path[:0] = ROOTS
os.environ["PYTHONPATH"] = os.pathsep.join([*ROOTS, os.environ.get("PYTHONPATH", "")])  # for the kernels of notebooks

import attnlayers  # noqa: E402

project = "attnlayers"
author = "The attnlayers developers"
copyright = f"2026, {author}"
version = release = attnlayers.__version__
language = "en"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_nb",  # the parser of every Markdown page; pages with a kernel in their head are executed
    "sphinx_design",
]
root_doc = "index"
exclude_patterns = ["_build", "_templates", "**.ipynb_checkpoints", "jupyter_execute"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Executed in each build: a result that was kept would outlive the code that it came from.
nb_execution_mode = "force"
# A cell that fails is a warning, and so an error, which names page and cell. Raised, it would name the page alone.
nb_execution_raise_on_error = False
nb_execution_timeout = 120
nb_execution_show_tb = True
nb_merge_streams = True

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
default_role = "autolink"
templates_path = ["_templates"]

html_theme = "pydata_sphinx_theme"
html_title = "attnlayers"
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "header_links_before_dropdown": 6,
    "use_edit_page_button": False,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
html_sidebars = {"changelog": []}
html_copy_source = False
html_show_sourcelink = False
