"""Settings of the site that scripts/docs builds."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

# Tutorials run as a user's first session would: on one thread, so that the same pages come out everywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["JUPYTER_PLATFORM_DIRS"] = "1"

import cellweft

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "cellweft"
author = "The cellweft developers"
version = release = cellweft.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "accessible",
    "command_line",
    "figures",
    "mathml",
    "other_sites",
    "results",
]
root_doc = "index"
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
nitpicky = True
# Links to other sites' names would have to be fetched, and inner modules (cellweft.nn.mapping, say) have no
# pages: what has to lead somewhere are the public names, at the top and in the namespaces.
_NAMESPACES = "datasets|errors|genes|io|metrics|pl|tl"
nitpick_ignore_regex = [(r"py:.*", rf"(?!cellweft\.({_NAMESPACES})(\.[^._][^.]*)?$|cellweft\.[^.]+$).*")]
default_role = "py:obj"

# Markdown, and tutorials that run as the site is built
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
nb_execution_mode = os.environ.get("CELLWEFT_DOCS_EXECUTION", "force")
nb_execution_cache_path = str(Path(__file__).parent / "_build" / ".jupyter_cache")
nb_execution_excludepatterns = ["*.ipynb"]  # on real data: scripts/notebooks runs them
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_show_tb = True
nb_merge_streams = True

# The reference of all public names
autosummary_generate = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_rtype = False
napoleon_attr_annotations = False
napoleon_custom_sections = [("Attributes", "params_style")]
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
strip_signature_backslash = True

# Appearance: nothing is asked of the network, neither as the site is built nor as it is read
html_theme = "furo"
html_title = f"cellweft {release}"
html_static_path = ["_static"]
html_css_files = ["cellweft.css"]
html_show_sphinx = html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#8a3f12",
        "color-brand-content": "#8a3f12",
        "color-brand-visited": "#6b3a63",
    },
    "dark_css_variables": {
        "color-brand-primary": "#eba96b",
        "color-brand-content": "#eba96b",
        "color-brand-visited": "#cfa3c6",
    },
}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "native"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"


def _with_plain_defaults(
    app: Sphinx,
    what: str,
    name: str,
    value: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Write a default that is made anew for each object as an ellipsis: <factory> is no Python."""
    return (signature and signature.replace("<factory>", "...")), returns


def setup(app: Sphinx) -> None:
    """Join what needs no file of its own."""
    app.connect("autodoc-process-signature", _with_plain_defaults)
