"""Equations as MathML, which every browser draws by itself: no script, no font and no image is loaded."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx


def _drawn(node: nodes.math | nodes.math_block, *, as_block: bool) -> str:
    # docutils would put an index below a letter with an accent, as below a sum; in a group it stands beside
    text = re.sub(r"(\\(?:hat|tilde|bar)\{\w+\})", r"{{}\1}", node.astext())
    return str(latex2mathml.tex2mathml(text, as_block=as_block))


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(_drawn(node, as_block=False))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    drawn = _drawn(node, as_block=True)
    number = f'<span class="eqno">({node["number"]})</span>' if node.get("number") else ""
    name = f' id="equation-{node["label"]}"' if node.get("label") else ""
    writer.body.append(f'<div class="math-block"{name}>{number}{drawn}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Make it the way that equations are written."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.config.html_math_renderer = "mathml"
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
