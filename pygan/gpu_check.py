"""Proves pygan on a GPU, in one command and inside nine minutes, and writes down what it measured.

    python pygan/gpu_check.py          # in a fresh clone: nothing needs to be built or installed
    python -m pygan.gpu_check          # the same, where pygan is already built

Needs a GPU, nvcc, and in this Python torch with CUDA, numpy, pip, cmake, ninja, pybind11, scikit-build-core and pytest;
no network. What only the training needs may be missing: then it is skipped, which is said at the start. Builds the
clone without isolation into build/gpu_check, then runs the GPU tests, CUDA graphs and streams, floors and kernels, the
kernels under compute-sanitizer, a short training on GPU and CPU, and the benchmarks. The report, one JSON and one
Markdown file, goes to benchmarks/results/. Exit code 0 if nothing failed; 1 if something did, or if there is no GPU:
then nothing is checked or written.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "gpu_check"
LOGS = ROOT / "build" / "gpu_check.logs"  # what each stage printed, in full
RESULTS = ROOT / "benchmarks" / "results"
LIMIT = 540.0  # seconds for everything
BUILDING = ("torch", "numpy", "pip", "cmake", "ninja", "pybind11", "scikit_build_core", "pytest")
TRAINING = ("filelock", "PIL", "safetensors", "sklearn", "tomli_w", "tqdm")
SANITIZERS = ("memcheck", "racecheck", "synccheck", "initcheck")


# ---- the report -----------------------------------------------------------------------------------------------------


@dataclass
class Stage:
    """What one part of the check found."""

    name: str
    status: str  # passed, failed or skipped
    seconds: float
    command: str
    figures: dict[str, Any] = field(default_factory=dict)  # what was measured, by name with unit
    note: str = ""  # why it was skipped, or the end of a failed command's output


@dataclass
class Report:
    """Everything that one run of the check found, on which machine."""

    machine: dict[str, str]
    stages: list[Stage] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing failed; what was skipped is named in the report."""
        return all(stage.status != "failed" for stage in self.stages)

    def markdown(self) -> str:
        """The report for people: the machine, a table of the stages, the figures, what failed."""
        skipped = sum(stage.status == "skipped" for stage in self.stages)
        verdict = "nothing failed" if self.passed else "**something failed**"
        lines = [f"# GPU check: {verdict}, {skipped} skipped", ""]
        lines += [f"* {name}: {value}" for name, value in self.machine.items()]
        lines += ["", "| stage | result | seconds | command |", "|---|---|---|---|"]
        lines += [f"| {s.name} | {s.status} | {s.seconds:.1f} | `{s.command}` |" for s in self.stages]
        for stage in self.stages:
            if stage.figures or stage.note:
                lines += ["", f"## {stage.name}", ""]
                lines += [f"* {name}: {value}" for name, value in stage.figures.items()]
                if stage.note:
                    lines += ["```", stage.note.strip(), "```"]
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> list[Path]:
        """Writes <GPU>-<date>.json and .md, and returns both paths."""
        name = "".join(c if c.isalnum() else "-" for c in self.machine["GPU"].lower()).strip("-")
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"gpu-{name}-{self.machine['date'][:10]}{suffix}" for suffix in (".json", ".md")]
        content = {"passed": self.passed, "machine": self.machine, "stages": [asdict(stage) for stage in self.stages]}
        paths[0].write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        paths[1].write_text(self.markdown(), encoding="utf-8")
        return paths


# ---- running the stages ---------------------------------------------------------------------------------------------


class Check:
    """Runs commands one after the other, each as a stage, until the time is used up."""

    def __init__(self, report: Report, limit: float = LIMIT) -> None:
        self.report = report
        self.end = time.monotonic() + limit

    def run(self, name: str, command: list[str], seconds: float, **env: str) -> bool:
        """Runs a command; a last line of its output that is a JSON object holds the stage's figures."""
        shown = " ".join(Path(word).name if os.path.isabs(word) else word for word in command)
        left = self.end - time.monotonic()
        if left < 5:
            self.report.stages.append(Stage(name, "skipped", 0, shown, note="no time was left"))
            return False
        print(f"{name}: {shown}", flush=True)
        search = os.pathsep.join(filter(None, [str(SITE), os.environ.get("PYTHONPATH")]))
        start = time.monotonic()
        try:
            result = subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": search, **env},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=min(seconds, left),
                check=False,
            )
            status, output = "failed" if result.returncode else "passed", result.stdout
        except subprocess.TimeoutExpired as error:
            output = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
            status, output = "failed", f"{output.strip()}\nended after {min(seconds, left):.0f} s"
        except OSError as error:
            status, output = "failed", str(error)
        LOGS.mkdir(parents=True, exist_ok=True)
        (LOGS / f"{name.replace(' ', '_')}.txt").write_text(output, encoding="utf-8")
        lines = output.strip().splitlines()
        figures: dict[str, Any] = {}
        if status == "passed" and lines and lines[-1].startswith("{"):
            figures = json.loads(lines.pop())
        note = "" if figures else "\n".join(lines[-60:] if status == "failed" else lines[-150:])
        self.report.stages.append(Stage(name, status, time.monotonic() - start, shown, figures, note))
        print(f"    {status}, {time.monotonic() - start:.1f} s", flush=True)
        return status == "passed"

    def skip(self, name: str, why: str) -> None:
        self.report.stages.append(Stage(name, "skipped", 0, "", note=why))
        print(f"{name}: skipped: {why}", flush=True)


def text_of(*command: str) -> str:
    """The first line that a command prints, or "" where it fails or does not exist."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=180, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip().partition("\n")[0] if result.returncode == 0 else ""


def missing(names: tuple[str, ...]) -> str:
    """Those of the modules (of cmake and ninja the programs) that are not here, as words; "" if all are."""
    return ", ".join(name for name in names if not (find_spec(name) or shutil.which(name)))


def machine() -> dict[str, str]:
    """The hardware, versions and commit; `GPU` is "" where torch sees none."""
    look = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    changed = text_of("git", "status", "--porcelain", "--untracked-files=no")
    return {
        "GPU": text_of(sys.executable, "-c", look),
        "driver": text_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "CPU": platform.processor() or platform.machine(),
        "torch": text_of(sys.executable, "-c", "import torch; print(torch.__version__, torch.version.cuda)"),
        "nvcc": nvcc if text_of(nvcc, "--version") else "not found",
        "Python": platform.python_version(),
        "commit": text_of("git", "rev-parse", "HEAD") + (" with changes" if changed else ""),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def check_everything(check: Check) -> None:
    """All stages, in the order of what is most worth knowing when time runs out."""
    python = [sys.executable]
    this = [*python, "-m", "pygan.gpu_check", "--part"]
    install = [
        *python,
        "-m",
        "pip",
        "install",
        "--no-build-isolation",
        "--no-deps",
        "--upgrade",
        "--target",
        str(SITE),
        ".",
    ]
    if not check.run("build", install, 240, SKBUILD_CMAKE_DEFINE="PYGAN_CUDA=ON"):
        return
    check.run("tests", [*python, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"], 150)
    check.run("CUDA graphs and streams", [*this, "graphs"], 60)
    check.run("floors and kernels", [*this, "floors"], 90)
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    for name in SANITIZERS:
        if Path(tool).exists():
            command = [tool, "--tool", name, "--error-exitcode", "3"]
            if name != "initcheck":  # which has to see torch's kernels write what ours read
                command += ["--kernel-name", "kernel_substring=pygan"]
            check.run(
                f"compute-sanitizer {name}", [*command, *this, "exercise"], 120, PYTORCH_NO_CUDA_MEMORY_CACHING="1"
            )
        else:
            check.skip(f"compute-sanitizer {name}", "compute-sanitizer is not installed")
    if lacking := missing(TRAINING):
        check.skip("training, GPU and CPU", f"not installed: {lacking}")
    else:
        check.run("training, GPU and CPU", [*this, "training"], 120)
    check.run(
        "benchmark of the training step", [*python, "benchmarks/train_step.py", "--device", "cuda", "--quick"], 120
    )
    check.run("benchmark of the Parzen sums", [*python, "benchmarks/parzen.py"], 150)
    check.run("Parzen sums, fused and tiled", [*python, "benchmarks/parzen.py", "--fused"], 60)
    maxout, short = [*python, "benchmarks/maxout.py", "--device", "cuda"], ["--seconds", "0.5"]
    check.run("maxout gradients, winners only and dense", [*maxout, "--routes", *short], 60)
    check.run("benchmark of the losses", [*python, "benchmarks/losses.py", "--device", "cuda", *short], 90)
    check.run("benchmark of maxout", [*maxout, "--without", "compiled", *short], 60)  # compiling takes a minute
    check.run("benchmark of dispatch", [*python, "benchmarks/dispatch.py", "--device", "cuda", *short], 60)


# ---- the parts that run in a process of their own, on the GPU -------------------------------------------------------


def exercise() -> dict[str, Any]:
    """Every kernel once in every dtype, on sizes with ragged ends: what compute-sanitizer watches."""
    import torch

    import pygan

    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        for op in operations(dtype, batch=33).values():
            op()
    parameters = [torch.randn(n, device="cuda") for n in (5, 1030)]
    velocities, gradients = [torch.zeros_like(p) for p in parameters], [torch.ones_like(p) for p in parameters]
    pygan.ops.momentum_update(parameters, velocities, gradients, torch.tensor([0.1, 0.5], device="cuda"))
    torch.cuda.synchronize()
    return {}


def operations(dtype: Any, batch: int, device: str = "cuda") -> dict[str, Callable[[], Any]]:
    """By name, a call of each public operator that returns its result and its gradients."""
    import torch
    from torch import Tensor

    from pygan import ops
    from pygan.ops.parzen import fused_below

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, dtype=dtype, requires_grad=True)

    def differentiated(function: Callable[..., Tensor], *leaves: Tensor) -> Callable[[], list[Tensor]]:
        def call() -> list[Tensor]:
            result = function(*leaves)
            # Detached, since a graph that is kept would bind the leaves to the stream on which they were first used.
            return [result.detach(), *torch.autograd.grad(result, leaves, torch.ones_like(result))]

        return call

    real, fake, x, weight = leaf(batch), leaf(batch + 7), leaf(batch, 50), leaf(9, 17, 50)
    samples, seed = leaf(2 * batch, 50), torch.tensor(7, device=device)
    sigmas = torch.tensor([0.5, 1.0, 2.0], device=device)  # a list would be copied to the device during a capture

    def pool(t: Tensor) -> Tensor:
        return ops.maxout_pool(t, 5)

    def dropout(t: Tensor) -> Tensor:
        return ops.dropout(t, 0.5, seed)

    def logsumexp(t: Tensor, s: Tensor) -> Tensor:
        return ops.parzen_logsumexp(t, s, sigmas)

    def fused_logsumexp(t: Tensor, s: Tensor) -> Tensor:
        with fused_below(1 << 62):
            return logsumexp(t, s)

    return {
        "discriminator_loss": differentiated(ops.discriminator_loss, real, fake),
        "generator_loss": differentiated(ops.generator_loss, fake),
        "maxout": differentiated(ops.maxout, x, weight),
        "maxout_pool": differentiated(pool, x),
        "dropout": differentiated(dropout, x),
        "parzen_logsumexp": differentiated(logsumexp, x, samples),
        "parzen_logsumexp, fused": differentiated(fused_logsumexp, x, samples),
    }


def graphs() -> dict[str, Any]:
    """Each operator captured in a CUDA graph, and on two streams at once, gives what it gives alone."""
    import torch

    for name, op in operations(torch.float32, batch=200).items():
        expected = [t.clone() for t in op()]
        streams = [torch.cuda.Stream() for _ in range(2)]
        results = []
        for stream in streams:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                results.append(op())
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = op()
        graph.replay()
        torch.cuda.synchronize()
        for got in (*results, captured):
            for a, b in zip(got, expected, strict=True):
                if not torch.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True):
                    raise AssertionError(f"{name}: off by {(a - b).abs().max().item()} in a graph or on a stream")
    return {}


def milliseconds(call: Callable[[], Any], repeats: int = 20) -> float:
    """Median time of a call on the GPU."""
    import torch

    times = []
    for _ in range(repeats + 3):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times[3:])[repeats // 2]


def floors() -> dict[str, Any]:
    """Copy bandwidth and matrix products first, then our memory-bound kernels as a share of the copy's bandwidth."""
    import torch

    from pygan import ops

    def product(dtype: torch.dtype, tf32: bool = False) -> float:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        m = torch.randn(8192, 8192, device="cuda", dtype=dtype)
        return round(2 * 8192**3 / milliseconds(lambda: m @ m) / 1e9, 1)

    n = 1 << 27
    a, b = torch.randn(n, device="cuda"), torch.empty(n, device="cuda")
    copy = 8 * n / milliseconds(lambda: b.copy_(a)) / 1e9
    figures: dict[str, Any] = {
        "copy, TB/s": round(copy, 3),
        "matrix product float32, TFLOP/s": product(torch.float32),
        "matrix product TF32, TFLOP/s": product(torch.float32, tf32=True),
        "matrix product bfloat16, TFLOP/s": product(torch.bfloat16),
    }
    real, fake = a[: n // 2].requires_grad_(), b[: n // 2].requires_grad_()
    z = a.detach().view(1 << 17, 1024)
    seed = torch.tensor(7, device="cuda")
    calls: dict[str, tuple[Callable[[], Any], float]] = {  # call, bytes that it must read and write
        "discriminator_loss with gradient": (lambda: ops.discriminator_loss(real, fake), 8 * n),
        "maxout_pool of 4 pieces": (lambda: ops.maxout_pool(z, 4), 4 * n + 5 * n / 4),
        "dropout": (lambda: ops.dropout(z, 0.5, seed), 8 * n),
    }
    for name, (call, size) in calls.items():  # at least 0.8 is the aim
        figures[f"{name}, share of copy bandwidth"] = round(size / milliseconds(call) / 1e9 / copy, 3)
    small = [torch.randn(100, device="cuda") for _ in range(2)]
    start = time.perf_counter()
    for _ in range(1000):
        ops.discriminator_loss(*small)
    figures["discriminator_loss of 100 + 100 logits, us a call from Python"] = round(
        (time.perf_counter() - start) * 1e3, 1
    )
    return figures


def training(devices: tuple[str, ...] = ("cuda", "cpu"), epochs: int = 10) -> dict[str, Any]:
    """A few epochs on the digits on each device: other random numbers, the same quality."""
    import tempfile

    import pygan

    figures: dict[str, Any] = {}
    scores = []
    for device in devices:
        with tempfile.TemporaryDirectory() as folder:
            start = time.monotonic()
            run = pygan.train("digits", epochs=epochs, device=device, out=f"{folder}/run", progress=False)
            figures[f"{device}, seconds"] = round(time.monotonic() - start, 2)
            score = run.log_likelihood()
        scores.append(score.mean)
        figures[f"{device}, test log-likelihood in nats"] = f"{score.mean:.1f} +- {score.standard_error:.1f}"
    if not max(scores) - min(scores) < 20:  # so that NaN fails too
        raise AssertionError(f"log-likelihoods are further apart than 20 nats: {figures}")
    return figures


PARTS = {part.__name__: part for part in (exercise, graphs, floors, training)}


def main() -> int:
    """The whole check, or one of its parts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=PARTS, help="only this, in this process; prints its figures as JSON")
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part]()))
        return 0
    if not (ROOT / "pyproject.toml").exists():
        print("gpu_check: this needs a clone of pygan, with its tests and benchmarks: run it in one.", file=sys.stderr)
        return 1
    report = Report(machine())
    if not report.machine["GPU"]:
        print(
            f"gpu_check: this machine has no GPU that torch {report.machine['torch'] or '(not installed)'} can use, "
            "so nothing was checked and nothing written.",
            file=sys.stderr,
        )
        return 1
    if lacking := missing(BUILDING):
        print(f"gpu_check: not installed: {lacking}; nothing was checked and nothing written.", file=sys.stderr)
        return 1
    if lacking := missing(TRAINING):
        print(f"gpu_check: the training will be skipped, because these are not installed: {lacking}", flush=True)
    check_everything(Check(report))
    for path in report.write(RESULTS):
        print(f"wrote {path.relative_to(ROOT)}")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
