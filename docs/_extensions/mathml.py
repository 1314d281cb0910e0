"""Formulas as MathML, which browsers show by themselves: no program is fetched to typeset them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

_logger = logging.getLogger(__name__)


def _formula(node: nodes.math | nodes.math_block) -> str:
    """Return the formula of a node; what cannot be read is a warning."""
    try:
        return tex2mathml(node.astext().replace(r"\dots", r"\ldots"), as_block=isinstance(node, nodes.math_block))
    except MathError as error:
        _logger.warning("formula %r: %s", node.astext(), error, location=node)
        return f"<code>{node.astext()}</code>"


def _visit_inline(writer: HTML5Translator, node: nodes.math) -> None:
    writer.body.append(_formula(node))
    raise nodes.SkipNode


def _visit_block(writer: HTML5Translator, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{_formula(node)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx of the writer."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
