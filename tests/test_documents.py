"""The documents hold: their Python runs, their links lead somewhere, their commands name files that exist."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/**/README.md")])
README = (ROOT / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_readme_has_code():
    assert blocks(README, "python")
    assert len(blocks(README, "sh")) >= 2


@pytest.mark.filterwarnings("default")  # so short a training may well be warned about
@pytest.mark.parametrize("code", blocks(README, "python"))
def test_readme_code_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text())
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_name_files_that_exist(path):
    commands = re.findall(r"`((?:python|bash|pytest) [^`]+)`", path.read_text())
    files = [w for c in commands for w in shlex.split(c) if re.fullmatch(r"[\w./]+\.(py|sh)|\.ci/run|tests/\w+", w)]
    assert [f for f in files if not (ROOT / f).exists()] == []
