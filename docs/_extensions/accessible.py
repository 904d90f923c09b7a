"""What readers that speak, and readers without a mouse, need and the theme leaves out."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

_HEADING, _OUTPUT = 'role="heading"', '<div class="output text_html"'


def _completed(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Give headings of the contents their level, and let keys scroll tables that are wider than the page."""
    for name in ("furo_navigation_tree", "toctree"):
        if isinstance(context.get(name), str):
            context[name] = context[name].replace(_HEADING, f'{_HEADING} aria-level="2"')
    if isinstance(context.get("body"), str):
        context["body"] = context["body"].replace(_OUTPUT, f'{_OUTPUT} tabindex="0"')


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx what to call once the theme has made its part of a page."""
    app.connect("html-page-context", _completed, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
