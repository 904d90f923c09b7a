"""What readers that speak, and readers without a mouse, need and the theme leaves out."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

_HEADING = 'role="heading"'
_IN_BODY = {
    # Tables and code that are wider than the page
    '<div class="output text_html"': '<div class="output text_html" tabindex="0"',
    '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
    '<div class="highlight"><pre>': '<div class="highlight"><pre tabindex="0">',
    # Parameters of a signature, one per line, which are not terms with definitions
    '<dl>\n<dd><em class="sig-param">': '<dl role="presentation">\n<dd><em class="sig-param">',
    '<dd><em class="sig-param">': '<dd role="presentation"><em class="sig-param">',
}


def _completed(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Give headings of the contents their level, let keys scroll, and say what signatures are not."""
    for name in ("furo_navigation_tree", "toctree"):
        if isinstance(context.get(name), str):
            context[name] = context[name].replace(_HEADING, f'{_HEADING} aria-level="2"')
    if isinstance(context.get("body"), str):
        for written, better in _IN_BODY.items():
            context["body"] = context["body"].replace(written, better)


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx what to call once the theme has made its part of a page."""
    app.connect("html-page-context", _completed, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
