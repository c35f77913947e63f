"""Every CUDA kernel of the project, run on the CPU by the SIMT host of this folder: see README.md beside this file."""

import re
import subprocess
import sys
from pathlib import Path

import cases_selftest
import pytest
import simt_build
from mutations import MUTATIONS, Mutation

HERE = Path(__file__).resolve().parent
FAMILIES = sorted({path.parent.name for path in simt_build.ROOT.glob("csrc/*/*_cuda.cu")})
SECONDS = 240


def run(family: str, build: str, *options: str) -> subprocess.CompletedProcess[str]:
    if reason := simt_build.why_not(build):
        pytest.skip(reason)
    command = [sys.executable, str(HERE / "run.py"), family, "--build", build, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


def report(result: subprocess.CompletedProcess[str]) -> str:
    return f"exit code {result.returncode}\n{result.stdout[-4000:]}\n{result.stderr[-6000:]}"


@pytest.mark.parametrize("build", simt_build.BUILDS)
def test_the_host_finds_nothing_in_right_kernels(build: str) -> None:
    result = run("selftest", build, "--only", ": right")
    assert result.returncode == 0, report(result)


@pytest.mark.parametrize(
    ("name", "build", "words"),
    [(f"{kernel.__name__}: {what}", build, words) for kernel, _, what, build, words in cases_selftest.PLANTED],
    ids=lambda value: value.replace(" ", "_"),
)
def test_the_host_finds_each_planted_mistake(name: str, build: str, words: str) -> None:
    result = run("selftest", build, "--only", name)
    assert result.returncode != 0
    assert re.search(words, result.stdout + result.stderr), report(result)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_cases_and_planted_mistakes(family: str) -> None:
    assert (HERE / "shims" / f"{family}.cpp").exists()
    assert (HERE / f"cases_{family}.py").exists()
    assert len(MUTATIONS[family]) >= 10


@pytest.mark.parametrize(
    "mutation", [m for family in FAMILIES for m in MUTATIONS.get(family, [])], ids=lambda m: m.what
)
def test_each_planted_mistake_still_fits_the_source(mutation: Mutation) -> None:
    """That the suite notices each is shown by mutate.py, which takes minutes."""
    family = next(name for name, mutations in MUTATIONS.items() if mutation in mutations)
    text = (simt_build.ROOT / "csrc" / family / mutation.file).read_text()
    assert text.count(mutation.old) == 1


@pytest.mark.parametrize("build", simt_build.BUILDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_kernels(family: str, build: str) -> None:
    orders = ["--orders", "random:1"] if build == "tsan" else []  # one order shows ThreadSanitizer every race
    result = run(family, build, *orders)
    assert result.returncode == 0, report(result)
