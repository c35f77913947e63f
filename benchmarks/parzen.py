"""Parzen-window log-likelihood: every bandwidth of the paper's grid, against every other way to get it.

    python benchmarks/parzen.py                  # 10,000 points, 10,000 samples, 784 values; under 90 s on two cores
    python benchmarks/parzen.py --plot cost.png  # time against points, samples, values, bandwidths
    python benchmarks/parzen.py --fused          # on CUDA: up to how many values the fused kernel is the faster one

The floor is the matrix product alone: `torch.mm(out=)` of 256-row strips into one reused buffer. Each contender is
checked against float64 first; then all run in turn, round after round. Slow ones get fewer points, which the table
says, and their time is scaled: all work is linear in the points. Extra memory is the process's peak during one call
(on CUDA the allocator's), less what it held before.
"""

import argparse
import ctypes
import gc
import importlib
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import conditions, timed
from torch import Tensor

from pygan.ops import parzen_logsumexp, reference
from pygan.ops.parzen import fused_below

STRIP = 256
SIGMAS = np.logspace(-1, 0, 10).tolist()
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
CHECKED = 32  # points that are compared with float64

Method = Callable[[Tensor, Tensor, list[float]], Tensor]


@dataclass(frozen=True)
class Contender:
    """log sum_i exp(-|x - s_i|^2 / 2 sigma^2) by some method, [S, n]."""

    name: str
    method: Method
    points: int | None = None  # at most so many of the points; None: all
    sigmas: int = 10
    rounds: int | None = None


# ---- the methods ----------------------------------------------------------------------------------------------------


def floor(x: Tensor, samples: Tensor, sigmas: list[float]) -> Tensor:
    buffer = samples.new_empty(STRIP, len(samples))
    for strip in x.split(STRIP):
        torch.mm(strip, samples.t(), out=buffer[: len(strip)])
    return buffer


def squared(strip: Tensor, samples: Tensor, norms: Tensor) -> Tensor:
    return (strip.square().sum(1, keepdim=True) + norms - 2 * strip @ samples.t()).clamp_(min=0)


def one_strip(strip: Tensor, samples: Tensor, norms: Tensor, rates: list[float]) -> Tensor:
    d2 = squared(strip, samples, norms)
    return torch.stack([torch.logsumexp(d2 * -rate, 1) for rate in rates])


def one_pass(x: Tensor, samples: Tensor, sigmas: list[float], strip: Callable[..., Tensor] = one_strip) -> Tensor:
    """Hand-written torch: distances once, then every bandwidth."""
    norms, rates = samples.square().sum(1), [0.5 / sigma**2 for sigma in sigmas]
    return torch.cat([strip(rows, samples, norms, rates) for rows in x.split(250)], 1)


def compiled(x: Tensor, samples: Tensor, sigmas: list[float]) -> Tensor:
    return one_pass(x, samples, sigmas, torch.compile(one_strip, dynamic=False))


def again_for_each(x: Tensor, samples: Tensor, sigmas: list[float]) -> Tensor:
    """The usual way: distances again for every bandwidth."""
    return torch.cat([one_pass(x, samples, [sigma]) for sigma in sigmas])


def cdist(x: Tensor, samples: Tensor, sigmas: list[float]) -> Tensor:
    def row(sigma: float) -> Tensor:
        strips = [torch.cdist(strip, samples).square_().mul_(-0.5 / sigma**2) for strip in x.split(STRIP)]
        return torch.cat([torch.logsumexp(strip, 1) for strip in strips])

    return torch.stack([row(sigma) for sigma in sigmas])


def authors(x: Tensor, samples: Tensor, sigmas: list[float]) -> Tensor:
    """The released script's algorithm: batches of 10 points, all differences at once, for each bandwidth."""

    def row(sigma: float) -> Tensor:
        differences = [(batch[:, None] - samples) / sigma for batch in x.split(10)]
        return torch.cat([torch.logsumexp(-0.5 * batch.square().sum(2), 1) for batch in differences])

    return torch.stack([row(sigma) for sigma in sigmas])


def kernel_density(module: str) -> Method:
    """KernelDensity of scikit-learn, or of cuML, which calls cuVS.

    scikit-learn's bounds on the branches of its tree go wrong in many dimensions (its issue 7492; by 1,200 nats here),
    so all samples are put into one leaf, where it is exact.
    """
    options = {"leaf_size": 1 << 30} if module.startswith("sklearn") else {}

    def run(x: Tensor, samples: Tensor, sigmas: list[float]) -> Tensor:
        found, d = importlib.import_module(module), samples.shape[1]
        rows = []
        for sigma in sigmas:
            density = found.KernelDensity(bandwidth=sigma, **options).fit(samples).score_samples(x)
            normaliser = np.log(len(samples)) + d * np.log(sigma * np.sqrt(2 * np.pi))
            rows.append(torch.as_tensor(density, device=x.device) + normaliser)
        return torch.stack(rows)

    return run


def keops(x: Tensor, samples: Tensor, sigmas: list[float]) -> Tensor:
    lazy = importlib.import_module("pykeops.torch").LazyTensor
    d2 = ((lazy(x[:, None]) - lazy(samples[None])) ** 2).sum(-1)
    return torch.stack([(d2 * (-0.5 / sigma**2)).logsumexp(1).flatten() for sigma in sigmas])


def pygan(x: Tensor, samples: Tensor, sigmas: list[float]) -> Tensor:
    return parzen_logsumexp(x, samples, sigmas)


def tiled(x: Tensor, samples: Tensor, sigmas: list[float]) -> Tensor:
    with fused_below(0):
        return parzen_logsumexp(x, samples, sigmas)


def fused(x: Tensor, samples: Tensor, sigmas: list[float]) -> Tensor:
    """By the one CUDA kernel that multiplies no matrices."""
    with fused_below(x.shape[1] + 1):
        return parzen_logsumexp(x, samples, sigmas)


def contenders(cuda: bool) -> list[Contender]:
    def installed(module: str) -> bool:
        return importlib.util.find_spec(module) is not None

    all_points = None
    found = [
        Contender("floor: product alone", floor, all_points),
        Contender("pygan", pygan, all_points),
        Contender("pygan, one bandwidth", pygan, all_points, sigmas=1),
        Contender("one-pass torch", one_pass, all_points),
        Contender("one-pass, compiled", compiled, 2000 if not cuda else None),
        Contender("again for each", again_for_each, 500 if not cuda else None),
        Contender("cdist for each", cdist, 256, rounds=2),
        Contender("authors' algorithm", authors, 10, rounds=1),
    ]
    if cuda:
        found.insert(2, Contender("pygan, fused", fused, all_points))
    if installed("sklearn") and not cuda:
        found.append(Contender("scikit-learn", kernel_density("sklearn.neighbors"), 20, sigmas=1, rounds=1))
    if installed("pykeops"):
        found.append(Contender("KeOps", keops, 10 if not cuda else 1000, rounds=1))
    if cuda and installed("cuml"):
        found.append(Contender("cuML (cuVS)", kernel_density("cuml.neighbors"), all_points))
    return found


# ---- measuring ------------------------------------------------------------------------------------------------------


def exact_values(x: Tensor, samples: Tensor, sigmas: list[float]) -> Tensor:
    x, samples = x.double(), samples.double()
    d2 = torch.stack([(row - samples).square().sum(1) for row in x])
    return torch.stack([torch.logsumexp(-d2 / (2 * sigma**2), 1) for sigma in sigmas])


def extra_memory(call: Callable[[], object], device: str) -> float:
    """MiB that `call` needs at its peak beyond what was held before."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20

    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(key))

    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts anew
    before = status("VmRSS")
    call()
    return (status("VmHWM") - before) / 1024


def measure(options: argparse.Namespace, x: Tensor, samples: Tensor, device: str) -> list[dict[str, Any]]:
    exact = exact_values(x[:CHECKED], samples, SIGMAS)
    rows, calls = [], {}
    for contender in contenders(device == "cuda"):
        points = x[: contender.points]
        sigmas = SIGMAS if contender.sigmas == len(SIGMAS) else [SIGMAS[3]]
        row: dict[str, Any] = {"name": contender.name, "points": len(points), "bandwidths": len(sigmas)}
        if contender.method is not floor:
            checked = min(CHECKED, len(points))
            values = contender.method(points[:checked], samples, sigmas).to(exact)
            true = exact[:, :checked] if len(sigmas) > 1 else exact[3:4, :checked]
            row["error"] = float((values - true).abs().max())
            assert row["error"] < 0.1, f"{contender.name} is off by {row['error']:.2g} nats"

        call = partial(contender.method, points, samples, sigmas)
        row["extra_MiB"] = extra_memory(call, device)
        rows.append(row)
        calls[contender.name] = (call, contender.rounds or options.rounds)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(options.rounds):
        for name, (call, rounds) in calls.items():
            if turn < rounds:
                times[name].append(timed(call, device, CLOCKS[options.clock]))
    for row in rows:
        scale = len(x) / row["points"]
        row["seconds"] = scale * statistics.median(times[row["name"]])
        row["fastest"] = scale * min(times[row["name"]])
    for row in rows:
        row["times_floor"] = row["seconds"] / rows[0]["seconds"]
        row["times_pygan"] = row["seconds"] / rows[1]["seconds"]
    return rows


def as_text(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"{'':22}{'bandwidths':>11}{'points':>8}{'seconds':>10}{'/ floor':>9}{'/ pygan':>9}"
        f"{'extra MiB':>11}{'error, nats':>13}"
    ]
    for row in rows:
        error = f"{row['error']:.1e}" if "error" in row else ""
        lines.append(
            f"{row['name']:22}{row['bandwidths']:>11}{row['points']:>8}{row['seconds']:>10.3g}"
            f"{row['times_floor']:>9.2f}{row['times_pygan']:>9.2f}{row['extra_MiB']:>11.0f}{error:>13}"
        )
    return "\n".join(lines)


def cost_model(device: str, clock: Callable[[], float]) -> dict[str, list[tuple[int, float]]]:
    """Least seconds of three calls of pygan and of the floor against each size, the others held."""
    base = {"points": 1000, "samples": 5000, "values": 784, "bandwidths": 10}
    grids = {
        "points": (250, 500, 1000, 2000),
        "samples": (1250, 2500, 5000, 10_000),
        "values": (49, 196, 784, 3072),
        "bandwidths": (1, 3, 10, 30),
    }
    curves = {}
    for name, grid in grids.items():
        for label, method in (("pygan", pygan), ("floor", floor)):
            curve = []
            for size in grid:
                sizes = base | {name: size}
                x = torch.rand(sizes["points"], sizes["values"], device=device)
                samples = torch.rand(sizes["samples"], sizes["values"], device=device)
                call = partial(method, x, samples, np.logspace(-1, 0, sizes["bandwidths"]).tolist())
                curve.append((size, min(timed(call, device, clock) for _ in range(3))))
            curves[f"{name}, {label}"] = curve
    return curves


def compare_fused(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of both CUDA ways against the number of values: what `_FUSED_BELOW` of pygan/ops/parzen.py should be."""
    rows = []
    for values in (1, 4, 16, 32, 64, 128, 256, 784, 3072):
        x = torch.rand(options.points, values, device=options.device)
        samples = torch.rand(options.samples, values, device=options.device)
        calls = {method.__name__: partial(method, x, samples, SIGMAS) for method in (tiled, fused)}
        times: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(options.rounds + 1):
            for name, call in calls.items():
                seconds = timed(call, options.device, CLOCKS[options.clock])
                if turn > 0:  # the first call warms up
                    times[name].append(seconds)
        rows.append({"values": values} | {name: statistics.median(of_call) for name, of_call in times.items()})
    return rows


def fused_text(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'values':>8}{'tiled, s':>12}{'fused, s':>12}{'fused / tiled':>15}"]
    for row in rows:
        ratio = row["fused"] / row["tiled"]
        lines.append(f"{row['values']:>8}{row['tiled']:>12.3g}{row['fused']:>12.3g}{ratio:>15.2f}")
    return "\n".join(lines)


def accuracy(device: str) -> str:
    """Largest errors in nats against float64 where distances are hard to take from products, as a table in Markdown."""
    torch.manual_seed(0)

    def around(centres: Tensor, width: float, n: int) -> Tensor:
        return centres[torch.arange(n) % len(centres)] + width * torch.randn(n, centres.shape[1])

    cube, two, normal = torch.rand(10, 100), torch.tensor([[-10.0], [10.0]]).expand(2, 50), torch.randn(1000, 1)
    x, samples = torch.rand(100, 784), torch.rand(2000, 784)
    cases = [
        ("uniform in [0, 1]^784", x, samples, [0.1, 0.3, 1]),
        ("the same, moved by 100", x + 100, samples + 100, [0.1, 0.3, 1]),
        ("10 clusters of width 0.05 in [0, 1]^100", around(cube, 0.05, 100), around(cube, 0.05, 2000), [0.02, 0.1, 1]),
        ("two clusters of width 0.001 at +-10", around(two, 1e-3, 100), around(two, 1e-3, 2000), [1e-3, 1e-2, 1]),
        ("1,000 normal numbers under themselves", normal, normal, [1e-8, 1e-3, 1]),
        ("normal, 5 values", torch.randn(100, 5), torch.randn(2000, 5), [1, 1e20]),
    ]
    lines = ["| data | sigma | largest value | error of pygan | error of torch |", "|---|---|---|---|---|"]
    for name, points, window, sigmas in cases:
        points, window = points.to(device), window.to(device)
        exact = exact_values(points, window, sigmas)
        ours, torchs = (f(points, window, sigmas) for f in (parzen_logsumexp, reference.parzen_logsumexp))
        for sigma, true, *both in zip(sigmas, exact, ours, torchs, strict=True):
            errors = " | ".join(f"{float((values - true).abs().max()):.0e}" for values in both)
            lines.append(f"| {name} | {sigma:g} | {float(true.abs().max()):.3g} | {errors} |")
    return "\n".join(lines)


def plot(curves: dict[str, list[tuple[int, float]]], path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(14, 3.4), sharey=True)
    for axis, name in zip(axes, ("points", "samples", "values", "bandwidths"), strict=True):
        for label in ("pygan", "floor"):
            axis.loglog(*zip(*curves[f"{name}, {label}"], strict=True), marker="o", label=label)
        sizes = [size for size, _ in curves[f"{name}, floor"]]
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axis.minorticks_off()
        axis.set_xlabel(name)
    axes[0].set_ylabel("seconds")
    axes[0].legend()
    figure.suptitle("1,000 points, 5,000 samples, 784 values, 10 bandwidths, one of them varied")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--values", type=int, default=784)
    parser.add_argument("--rounds", type=int, default=3, help="calls of each contender (default 3; slow ones fewer)")
    parser.add_argument("--quick", action="store_true", help="few points, one round, to see that all runs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="threads of torch and pygan (default: torch's choice)")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: processor time, with --threads 1 for a machine that others use at the same time",
    )
    parser.add_argument("--json", type=Path, help="write the results here too, and the table as .md beside")
    parser.add_argument("--plot", type=Path, help="measure and draw the cost model instead")
    parser.add_argument("--fused", action="store_true", help="on CUDA: compare the fused kernel with the tiles instead")
    parser.add_argument("--accuracy", action="store_true", help="print the errors of hard cases as a table instead")
    options = parser.parse_args()
    if options.accuracy:
        print(accuracy(options.device))
        return
    if options.fused and options.device != "cuda":
        parser.error("--fused compares CUDA kernels, and --device is " + options.device)
    if options.quick:
        options.points, options.samples, options.rounds = 300, 1000, 1
    if options.threads:
        torch.set_num_threads(options.threads)
    setting = conditions() | {
        "clock": options.clock,
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
    }
    header = "\n".join(f"{name}: {value}" for name, value in setting.items())
    print(header + "\n", flush=True)
    results: Any
    if options.plot:
        results = cost_model(options.device, CLOCKS[options.clock])
        plot(results, options.plot)
        text = "\n".join(f"{name}: {[(size, round(s, 4)) for size, s in curve]}" for name, curve in results.items())
    elif options.fused:
        results = compare_fused(options)
        text = fused_text(results)
    else:
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(options.points, options.values, generator=generator).to(options.device)
        samples = torch.rand(options.samples, options.values, generator=generator).to(options.device)
        results = measure(options, x, samples, options.device)
        text = as_text(results)
    print(text)
    if options.json:
        options.json.write_text(json.dumps({"conditions": setting, "results": results}, indent=1) + "\n")
        options.json.with_suffix(".md").write_text(f"# {options.json.stem}\n\n```\n{header}\n\n{text}\n```\n")


if __name__ == "__main__":
    main()
