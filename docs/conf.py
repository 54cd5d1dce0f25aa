"""Sphinx configuration of the documentation site; `make docs` builds it."""

import gc
import tomllib
from pathlib import Path

_PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

project = _PROJECT["name"]
release = version = _PROJECT["version"]
language = "en"

extensions = ["myst_parser"]
exclude_patterns = ["_static"]
templates_path: list[str] = []

gc.disable()  # a quarter of the time; the process is short, and takes 300 MB

# Markdown.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4  # anchors as GitHub makes them, so that a link works in both
myst_links_external_new_tab = False

# Every warning is an error (`make docs`).
nitpicky = True

# The built site needs no network and no web server: all files are its own.
html_theme = "furo"
html_title = "interest-tracker"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
html_use_index = False
html_permalinks_icon = "#"
html_theme_options = {
    "navigation_with_keys": False,
    "top_of_page_buttons": [],
}
pygments_style = "friendly"
pygments_dark_style = "monokai"
