"""gpu_check on a machine without a GPU: its refusal, its report, how it runs commands, the calls it makes on a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pygan import gpu_check
from pygan.gpu_check import Check, Report, Stage

ROOT = Path(__file__).parents[1]
MACHINE = {"GPU": "NVIDIA H100 (80GB)", "commit": "0123abc", "date": "2026-11-20T12:00:00+00:00"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("command", [["-m", "pygan.gpu_check"], ["pygan/gpu_check.py"]], ids=" ".join)
def test_without_a_gpu_it_says_so_and_writes_nothing(command: list[str]) -> None:
    def results() -> list[Path]:
        return sorted(gpu_check.RESULTS.glob("gpu-*"))

    before = results()
    run = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.startswith("gpu_check: this machine has no GPU that torch 2.")
    assert run.stderr.count("\n") == 1
    assert results() == before


def test_outside_of_a_clone_it_says_what_it_needs(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["gpu_check"])
    assert gpu_check.main() == 1
    assert capsys.readouterr() == (
        "",
        "gpu_check: this needs a clone of pygan, with its tests and benchmarks: run it in one.\n",
    )


def test_the_report(tmp_path: Path) -> None:
    report = Report(MACHINE)
    report.stages += [
        Stage("floors", "passed", 1.25, "python floors", figures={"copy, TB/s": 4.3}),
        Stage("memcheck", "skipped", 0, "", note="compute-sanitizer is not installed"),
    ]
    assert report.passed
    assert "nothing failed, 1 skipped" in report.markdown()
    report.stages.append(Stage("tests", "failed", 3, "pytest", note="1 failed"))
    paths = report.write(tmp_path)
    assert [path.name for path in paths] == [f"gpu-nvidia-h100--80gb-2026-11-20{s}" for s in (".json", ".md")]
    content = json.loads(paths[0].read_text())
    assert content["passed"] is False
    assert content["machine"] == MACHINE
    assert content["stages"][0]["figures"] == {"copy, TB/s": 4.3}
    text = paths[1].read_text()
    for words in (
        "something failed",
        "* GPU: NVIDIA H100 (80GB)",
        "| floors | passed | 1.2 |",
        "* copy, TB/s: 4.3",
        "1 failed",
    ):
        assert words in text


def run_one(code: str, seconds: float = 60, limit: float = 60) -> Stage:
    report = Report(MACHINE)
    Check(report, limit).run("stage", [sys.executable, "-c", code], seconds)
    return report.stages[0]


def test_figures_are_the_last_line_of_a_passed_command() -> None:
    stage = run_one("print('words'); print('{\"a\": 1}')")
    assert (stage.status, stage.figures, stage.note) == ("passed", {"a": 1}, "")
    stage = run_one("print('words')")
    assert (stage.status, stage.figures, stage.note) == ("passed", {}, "words")


def test_failures_are_recorded() -> None:
    stage = run_one("raise SystemExit('what went wrong')")
    assert (stage.status, stage.note) == ("failed", "what went wrong")
    stage = run_one("import time; print('begun', flush=True); time.sleep(60)", seconds=3)
    assert stage.status == "failed"
    assert stage.note == "begun\nended after 3 s"
    report = Report(MACHINE)
    assert not Check(report).run("stage", ["/no/such/program"], 5)
    assert not report.passed


def test_what_finds_no_time_is_skipped() -> None:
    stage = run_one("pass", limit=1)
    assert (stage.status, stage.note) == ("skipped", "no time was left")


def test_the_calls_of_every_operator() -> None:
    for name, op in gpu_check.operations(torch.float32, batch=20, device="cpu").items():
        results = op()
        assert len(results) >= 2, name
        assert all(torch.isfinite(t).all() for t in results), name


def test_the_training() -> None:
    figures = gpu_check.training(("cpu", "cpu"), epochs=1)
    assert list(figures) == ["cpu, seconds", "cpu, test log-likelihood in nats"]


WITHOUT_EXTRAS = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
import pytest
sys.exit(pytest.main(["-m", "gpu", "-q", "--collect-only", "-p", "no:cacheprovider", "tests"]))
"""


def test_the_gpu_tests_need_nothing_but_torch_numpy_and_pytest() -> None:
    """A container of torch has neither hypothesis nor all that pygan needs for training."""
    names = {"hypothesis", "mpmath", "matplotlib", "pooch", "requests", "joblib", "scipy", "tensorboard"}
    code = WITHOUT_EXTRAS.replace("{names}", repr(names | set(gpu_check.TRAINING)))
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    for family in ("adversarial_loss", "maxout", "momentum", "parzen", "fast"):
        assert f"tests/test_{family}.py" in run.stdout


def test_what_is_not_installed_is_named() -> None:
    assert gpu_check.missing(("torch", "no_such_module", "sh", "nor_this")) == "no_such_module, nor_this"


def test_every_benchmark_runs_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """All five, and one of the commands is tried here, on the CPU."""
    commands: list[list[str]] = []
    monkeypatch.setattr(Check, "run", lambda self, name, command, seconds, **env: commands.append(command) or True)
    gpu_check.check_everything(Check(Report(MACHINE)))
    scripts = {word for command in commands for word in command if word.startswith("benchmarks/")}
    cpu = {"dcgan.py", "cifar_step.py", "coordination.py", "folders.py", "distributed.py", "sparse_products.py"}
    assert scripts == {
        f"benchmarks/{path.name}"
        for path in (ROOT / "benchmarks").glob("*.py")
        if path.name not in {"harness.py", *cpu}
    }
    losses = next(command for command in commands if "benchmarks/losses.py" in command)
    options = [word.replace("cuda", "cpu") for word in losses[1:]] + ["--quick", "--without", "compiled"]
    run = subprocess.run([sys.executable, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "discriminator loss, 100 + 100 logits" in run.stdout
