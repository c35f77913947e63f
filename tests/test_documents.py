"""The documents hold: their Python runs, their commands parse, their links lead somewhere, nothing is left out."""

import ast
import functools
import importlib
import inspect
import re
import shlex
import textwrap
from pathlib import Path

import pytest
import torch

import pygan
from pygan.commands import info
from pygan.data import Batch, Source, as_float
from pygan.recipes import known_settings

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/**/README.md")])


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_readme_has_code():
    assert blocks(ROOT / "README.md", "python")
    assert len(blocks(ROOT / "README.md", "sh")) >= 2


@pytest.fixture
def small_mnist(monkeypatch):
    """In place of MNIST, which the tests do not download: 200 digits of scikit-learn, enlarged to its size."""
    digits = pygan.data.load("digits")
    images = torch.nn.functional.interpolate(as_float(digits.train.images[:200]), (28, 28))
    source = Source("mnist", Batch(images, digits.train.labels[:200]), "digits", classes=digits.classes)
    monkeypatch.setitem(pygan.data.NAMED, "mnist", lambda root: source)


@pytest.mark.filterwarnings("default")  # so short a training may well be warned about
@pytest.mark.parametrize("path", [path for path in DOCUMENTS if blocks(path, "python")], ids=name)
def test_python_runs(path, tmp_path, monkeypatch, small_mnist, one_thread):
    """The blocks of a document are one script."""
    monkeypatch.chdir(tmp_path)
    code = blocks(path, "python")
    if any('"runs/mnist"' in block for block in code):
        settings = {"generator_hidden": (8, 8), "discriminator_hidden": (8, 8), "pieces": 2, "evaluation_samples": 50}
        pygan.train("mnist", out="runs/mnist", epochs=1, progress=False, **settings)
    names = {"__name__": "__main__"}
    for block in code:
        exec(compile(block, name(path), "exec"), names)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_no_document_trains_in_the_folder_that_a_plain_command_makes(path):
    """Who ran `pygan train`, or the same with mnist or photos/, has that folder, and a second run in it is refused."""
    code = "\n".join([*blocks(path, "python"), *blocks(path, "sh")])
    assert re.findall(r"(?:out=|--out )[f\"']*runs/(?:digits|mnist|photos)(?![\w/-])", code) == []


def fragments(path: Path) -> list[str]:
    """Indented Python: fragments of longer trainings, which the tests read but do not run."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", text, re.MULTILINE)
    texts = [textwrap.dedent(block).strip() for block in indented if "pygan." in block or "run." in block]
    return [text for text in texts if not re.match(r"(pygan|python|pytest|torchrun|pip|git) |runs/|[\w-]+: ", text)]


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if fragments(path)], ids=name)
def test_fragments_call_what_exists(path):
    """Each call of a function of pygan, or of a method of a run, has a name and keywords that are there."""
    calls = [node for text in fragments(path) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    checked = 0
    for call in calls:
        root, *names = ast.unparse(call.func).split(".")
        owner = {"pygan": pygan, "run": pygan.Run}.get(root)
        if owner is None or not all(map(str.isidentifier, names)):  # another object, or the method of a result
            continue
        function = functools.reduce(getattr, names, owner)
        parameters = inspect.signature(function).parameters
        takes_settings = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values())
        allowed = {*parameters, *((*known_settings(), None) if takes_settings else ())}  # None: **settings
        assert {keyword.arg for keyword in call.keywords} <= allowed, ast.unparse(call)
        ordered = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        assert len(call.args) + (root == "run") <= len(ordered), ast.unparse(call)
        checked += 1
    assert checked or not calls


def commands(path: Path) -> list[list[str]]:
    """The words after `pygan` of each command in the document's shell blocks."""
    lines = [line for block in blocks(path, "sh") for line in re.split(r"\n|&&", block)]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line[:1] == ["pygan"]]


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if commands(path)], ids=name)
def test_commands_parse(path):
    for command, *words in commands(path):
        if command == "recipes":
            info.recipes_parser().parse(words)
        else:
            importlib.import_module(f"pygan.commands.{command}").parser().parse(words)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text())
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_commands_name_files_that_exist(path):
    commands = re.findall(r"`((?:python|bash|pytest) [^`]+)`", path.read_text())
    files = [w for c in commands for w in shlex.split(c) if re.fullmatch(r"[\w./]+\.(py|sh)|\.ci/run|tests/\w+", w)]
    assert [f for f in files if not (ROOT / f).exists()] == []


def modules_of_the_reference() -> list[str]:
    pages = ROOT.glob("docs/api/*.md")
    return sorted(module for page in pages for module in re.findall(r"^\.\. public:: (\S+)$", page.read_text(), re.M))


def test_the_reference_has_every_public_module():
    """A page lists what `__all__` of its modules has; that each entry is there is checked when the site is built."""
    public = {f"pygan.{name}" for name in pygan.__all__ if inspect.ismodule(getattr(pygan, name))}
    assert {"pygan", *public} - set(modules_of_the_reference()) == set()


@pytest.mark.parametrize("module", modules_of_the_reference())
def test_every_public_name_has_a_docstring(module):
    found = importlib.import_module(module)
    for public in found.__all__:
        value = getattr(found, public)
        if inspect.isfunction(value) or inspect.isclass(value) or inspect.ismodule(value):
            assert value.__doc__, public


def test_every_document_is_in_the_index():
    index = (ROOT / "docs/index.md").read_text()
    hidden = " ".join(blocks(ROOT / "docs/index.md", "{toctree}"))
    for path in sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("docs/tutorials/*.md")]):
        document = path.relative_to(ROOT / "docs").with_suffix("")
        assert document.name == "index" or f"\n{document}\n" in hidden + "\n", f"{document} is in no toctree"
        assert document.name == "index" or f"{document}.md" in index, f"{document} is not described"
