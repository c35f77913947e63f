"""Formulas as MathML, which browsers draw themselves: no TeX where the site is built, no script where it is read."""

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)
SPACE = '<mspace width="0.17em"/>'


def mathml(node: nodes.Element, display: str) -> str:
    """The formula of a node; a command that the converter does not know is a warning."""
    text = convert(node.astext(), display=display)
    if unknown := re.search(r">(\\\w+)", text):
        logger.warning("MathML: %s is not known", unknown[1], location=node)
    text = re.sub(r"(<mi>(?:log|exp)</mi>)(?=<m[^o])", rf"\1{SPACE}", text)  # as TeX does beside the name of a function
    return re.sub(r"(?<=[inwb]>)(?<!<mrow>)(?=<mi>(?:log|exp)</mi>)", SPACE, text)


def visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(mathml(node, "inline"))
    raise nodes.SkipNode


def visit_block(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{mathml(node, "block")}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
