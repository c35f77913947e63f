"""The reference: a directive for a module, backticks in docstrings, tables of settings, a check for missing names.

Every module that `pygan.__all__` names, and every name in the `__all__` of a module on a page, has its entry; a missing
one is a warning, so an error in CI.
"""

import importlib
import inspect
import itertools
import re
import sys
from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import pygan
from pygan.settings import Settings

logger = logging.getLogger(__name__)


class Public(SphinxDirective):
    """`.. public:: pygan.ops`: the docstring of the module, a table of its public names, and the entry of each."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module = importlib.import_module(self.arguments[0])
        self.env.metadata[self.env.docname].setdefault("modules", []).append(module.__name__)
        names = public_names(module)
        lines = [f".. automodule:: {module.__name__}", "   :no-members:", ""]
        lines += [".. list-table::", "   :widths: auto", "   :class: summary", ""]
        for name in names:
            lines += [f"   * - :py:obj:`{name} <{place(module, name)}>`", f"     - {summary(module, name)}"]
        for name in names:
            if place(module, name) == f"{module.__name__}.{name}":
                lines += ["", *entry(module, name)]
        return self.parse_text_to_nodes(StringList(lines, source=module.__file__), allow_section_headings=True)


def public_names(module: ModuleType) -> list[str]:
    """The names in `__all__` that have an entry: modules have pages of their own."""
    return [name for name in module.__all__ if not name.startswith("__")]


def place(module: ModuleType, name: str) -> str:
    """The full name under which an object is documented: that of the outermost package in which it is public."""
    parts = module.__name__.split(".")
    for outer in (sys.modules[".".join(parts[:i])] for i in range(1, len(parts))):
        if name in getattr(outer, "__all__", ()) and getattr(outer, name) is getattr(module, name):
            return f"{outer.__name__}.{name}"
    return f"{module.__name__}.{name}"


def documentation(module: ModuleType, name: str) -> list[str]:
    """The lines of the docstring of a public name; that of a constant follows its definition."""
    value = getattr(module, name)
    if inspect.isclass(value) or inspect.isfunction(value) or inspect.ismodule(value):
        return (inspect.getdoc(value) or name).splitlines()
    for place in [loaded for key, loaded in sorted(sys.modules.items()) if key.startswith("pygan")]:
        if getattr(place, name, None) is value:
            found = ModuleAnalyzer.for_module(place.__name__).find_attr_docs().get(("", name))
            if found:
                return found
    logger.warning("%s.%s has no docstring", module.__name__, name)
    return [name]


def summary(module: ModuleType, name: str) -> str:
    """The first sentence of a docstring."""
    paragraph = " ".join(itertools.takewhile(str.strip, documentation(module, name)))
    return re.split(r"(?<=[\w)`\]]\.)(?<!al\.) ", paragraph.replace("|", r"\|"))[0]


def entry(module: ModuleType, name: str) -> list[str]:
    value, full = getattr(module, name), f"{module.__name__}.{name}"
    if inspect.ismodule(value):
        return []
    if inspect.isclass(value):
        kind = "autoexception" if issubclass(value, Exception) else "autoclass"
        return [f".. {kind}:: {full}", "   :members:"]
    if inspect.isfunction(value):
        return [f".. autofunction:: {full}"]
    lines = [f":module: {module.__name__}", "", *documentation(module, name)]
    return [f".. py:data:: {name}", *(f"   {line}" for line in lines)]


class Symbol(PyXRefRole):
    """`name` in a docstring: a link if it is a public name, otherwise code."""

    def process_link(
        self, env: BuildEnvironment, refnode: nodes.Element, has_explicit_title: bool, title: str, target: str
    ) -> tuple[str, str]:
        refnode["refdomain"], refnode["reftype"], refnode["may_be_code"] = "py", "obj", True
        return super().process_link(env, refnode, has_explicit_title, title, target)


def resolve(app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.Node) -> nodes.Node | None:
    """Find names that are public directly under `pygan`; what a docstring has in backticks may be code."""
    if node.get("refdomain") != "py":
        return None
    domain, name = env.domains.python_domain, node["reftarget"].rpartition(".")[2]
    if f"pygan.{name}" in domain.objects and node["reftarget"].split(".")[0] in ("pygan", name):
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", f"pygan.{name}", node, content)
    return content if node.get("may_be_code") else None


def describe_settings(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Add to the docstring of a class of settings what its fields are for, as the command line's help says it."""
    if what == "class" and is_dataclass(value) and issubclass(value, Settings):
        described = [known for known in fields(value) if known.metadata.get("help")]
        lines += ["", "Attributes:"] if described else []
        lines += [f"    {known.name}: {known.metadata['help']}. Default: ``{known.default!r}``." for known in described]


def adapt(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Write what napoleon would misread in the way that it understands.

    * `|x|` is a norm, no substitution.
    * What stands before a colon in "Returns:" is no type: the signature has it.
    * "train, valid: ..." in "Attributes:" are two.
    * An indented block in the docstring of a module is code.
    """
    section, adapted = "", []
    for before, line in itertools.pairwise(["", *lines]):
        if what == "module" and line.startswith("    "):
            adapted += [line] if before.startswith("    ") else ["::", "", line]
            continue
        line = "`".join(part if i % 2 else part.replace("|", "\\|") for i, part in enumerate(line.split("`")))
        if re.fullmatch(r"[A-Z]\w+:", line):
            section = line
            if section == "Returns:":
                continue
        elif section == "Returns:" and line.strip():
            line, section = f":returns: {line.strip()}", "after Returns:"
        elif section == "after Returns:":
            line = f"    {line}"
        elif section == "Attributes:" and (names := re.match(r"    (\w+(?:, \w+)+): ", line)):
            first, *others = names[1].split(", ")
            adapted += [f"    {other}: see `{first}`." for other in others]
            line = line.replace(names[1], first, 1)
        adapted.append(line)
    lines[:] = adapted


def report_missing(app: Sphinx, env: BuildEnvironment) -> None:
    modules = {name for entry in env.metadata.values() for name in entry.get("modules", ())}
    public = {"pygan"} | {f"pygan.{n}" for n in public_names(pygan) if inspect.ismodule(getattr(pygan, n))}
    known = env.domains.python_domain.objects
    for name in sorted(public - modules):
        logger.warning("the module %s has no page in docs/api", name)
    for module in map(importlib.import_module, sorted(modules)):
        for name in public_names(module):
            if place(module, name) not in known:
                logger.warning("%s.%s has no entry in docs/api", module.__name__, name)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("public", Public)
    app.add_role("symbol", Symbol())
    app.connect("missing-reference", resolve)
    app.connect("autodoc-process-docstring", describe_settings, priority=100)
    app.connect("autodoc-process-docstring", adapt, priority=200)  # before napoleon
    app.connect("env-check-consistency", report_missing)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
