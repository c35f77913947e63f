"""Links from the documents to other files of the repository lead to pages of the site that show these files.

A link to a folder leads to a list of its files; one to a script of the gallery leads to its page there. A link to what
does not exist stays as it is, and Sphinx reports it.
"""

import os
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers import find_lexer_class_for_filename
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

FOLDER = "files"  # of the site
GALLERY = {"examples": "docs/gallery"}  # folders of scripts, and where their pages are


class FileLinks(SphinxTransform):
    """Replace what MyST makes of a link to a file that is no document, or to a folder."""

    default_priority = 800  # before Sphinx collects files for download

    def apply(self, **kwargs: Any) -> None:
        root, docname = Path(self.env.srcdir), self.env.docname
        for node in list(self.document.findall(lambda node: node.get("reftype") == "myst" if is_link(node) else False)):
            if node["refdomain"] == "doc":  # a document, but one that the site may leave out
                target = (root / node["reftarget"]).with_suffix(".md")
            else:
                target = (root / docname).parent.joinpath(node["reftarget"]).resolve()
            if not target.is_relative_to(root) or not target.exists() or target == root:
                continue
            if self.env.path2doc(target) in self.env.found_docs:
                continue
            path = target.relative_to(root)
            if page := gallery_page(path):
                link = addnodes.pending_xref("", refdomain="std", reftype="doc", reftarget=page, refexplicit=True)
            else:
                link = nodes.reference("", "", refuri=os.path.relpath(page_of(path), Path(docname).parent) + ".html")
                self.env.metadata[docname].setdefault("files", set()).add(path)
            link.extend(node.children)
            node.replace_self(link)


def is_link(node: nodes.Node) -> bool:
    return isinstance(node, addnodes.pending_xref | addnodes.download_reference)


def gallery_page(path: Path) -> str | None:
    """The document that the gallery makes of a script, or of a folder of scripts; absolute, as Sphinx writes it."""
    folder, *rest = path.parts
    if folder not in GALLERY or not (path.is_dir() or path.name.startswith("plot_")):
        return None
    return "/" + "/".join([GALLERY[folder], *rest, *(["index"] if path.is_dir() else [])]).removesuffix(".py")


def page_of(path: Path) -> Path:
    return Path(FOLDER) / path


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield a page for each linked file, and for each linked folder one of its files and those of each file."""
    root = Path(app.srcdir)
    linked = set().union(*(entry.get("files", ()) for entry in app.env.metadata.values()))
    folders = {path for path in linked if (root / path).is_dir()}
    listed = {folder: [path.relative_to(root) for path in shown_files(root / folder)] for folder in folders}
    for folder, files in listed.items():
        items = "".join(f"<li>{anchor(app, folder, path)}</li>\n" for path in files)
        yield str(page_of(folder)), context(folder, f"<ul>\n{items}</ul>"), "page.html"
    for path in sorted((linked - folders).union(*listed.values())):
        if app.env.path2doc(root / path) not in app.env.found_docs:
            text = (root / path).read_text(encoding="utf-8")
            lexer = find_lexer_class_for_filename(path.name)
            body = app.builder.highlighter.highlight_block(text, lexer.aliases[0] if lexer else "none", force=True)
            yield str(page_of(path)), context(path, body), "page.html"


def shown_files(folder: Path) -> list[Path]:
    """The text files below a folder."""
    known = (".py", ".h", ".cpp", ".cu", ".md", ".json", ".csv", ".txt", ".sh", ".toml")
    return sorted(path for path in folder.rglob("*") if path.suffix in known and "__pycache__" not in path.parts)


def anchor(app: Sphinx, folder: Path, path: Path) -> str:
    """A link from the page of a folder to a file, which may be a document."""
    docname = app.env.path2doc(Path(app.srcdir) / path)
    page = docname if docname in app.env.found_docs else page_of(path)
    url = os.path.relpath(f"{page}.html", page_of(folder).parent)
    return f'<a href="{escape(url)}"><code>{escape(str(path.relative_to(folder)))}</code></a>'


def context(path: Path, body: str) -> dict[str, Any]:
    return {"parents": [], "title": str(path), "body": f"<h1>{escape(str(path))}</h1>\n{body}"}


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(FileLinks)
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
