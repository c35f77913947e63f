"""How the benchmarks time and report, so that their numbers can be compared.

A case is one problem; its contenders solve it. Each contender's results are checked against float64 before anything is
timed. Then all contenders run in turn, one call each, round after round, in an order that rotates: whatever else the
machine does hits them alike. On CUDA a turn is ten calls between two synchronisations, and their mean counts: what a
call costs where kernels queue up behind each other. Reported are medians with the 20 % and 80 % quantiles. Ratios are
those of the medians.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pygan

__all__ = ["Case", "Contender", "backward_of", "check", "conditions", "main", "once", "time_interleaved", "timed"]

Call = tuple[Callable[[], Any], Callable[[Any], object]]


@dataclass(frozen=True)
class Contender:
    """One way of solving a case.

    Args:
        name: as printed.
        calls: for each mode (a column of the table) what is prepared, untimed, and what then is timed.
        results: the tensors that are checked against the case's exact ones; None for a bare floor.
    """

    name: str
    calls: dict[str, Call]
    results: Callable[[], Sequence[Tensor]] | None = None


@dataclass(frozen=True)
class Case:
    """A problem. `make` builds the contenders, ours last but for floors; `exact` the results in float64."""

    title: str
    make: Callable[[], list[Contender]]
    exact: Callable[[], Sequence[Tensor]]
    tolerance: float = 1e-5  # of the largest exact number


def once(function: Callable[[], object]) -> Call:
    """A call that needs no preparation."""
    return lambda: None, lambda _: function()


def backward_of(forward: Callable[[], Tensor], inputs: Sequence[Tensor], grad: Tensor | None = None) -> Call:
    """Times the backward pass alone; each call gets a graph of its own."""
    return forward, lambda y: torch.autograd.grad(y, inputs, grad)


def check(case: Case, contenders: Sequence[Contender]) -> None:
    """Raises AssertionError for a contender that is wrong."""
    exact = case.exact()
    for contender in contenders:
        if contender.results is None:
            continue
        for i, (ours, true) in enumerate(zip(contender.results(), exact, strict=True)):
            error = (ours.double() - true).abs().max() / true.abs().max()
            assert error <= case.tolerance, f"{case.title}: result {i} of {contender.name} is off by {error:.2g}"


def quantiles(times: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=10, method="inclusive")
    return {"p20": cuts[1], "median": statistics.median(times), "p80": cuts[7]}


def timed(call: Callable[[], object], device: str, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of a call, with all that it starts on the device."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = clock()
    call()
    wait()
    return clock() - start


def time_interleaved(
    calls: dict[str, Call], seconds: float, least_rounds: int, device: str = "cpu"
) -> dict[str, dict[str, float]]:
    """Microseconds of one call of each contender."""
    names = list(calls)
    turn = 10 if device == "cuda" else 1
    for prepare, call in calls.values():  # warm up: compilers, caches, allocators
        for _ in range(3):
            call(prepare())
    times: dict[str, list[float]] = {name: [] for name in names}
    stop, rounds = time.perf_counter() + seconds, 0
    while rounds < least_rounds or time.perf_counter() < stop:
        first = rounds % len(names)
        for name in names[first:] + names[:first]:
            prepare, call = calls[name]
            states = [prepare() for _ in range(turn)]
            times[name].append(1e6 * timed(partial(deque, map(call, states), 0), device) / turn)
            del states
        rounds += 1
    return {name: quantiles(values) for name, values in times.items()}


def run_case(case: Case, ours: str, options: argparse.Namespace) -> dict[str, Any]:
    contenders = [contender for contender in case.make() if contender.name not in options.without]
    check(case, contenders)
    modes = list(contenders[0].calls)
    table: dict[str, dict[str, Any]] = {}
    for mode in modes:
        calls = {contender.name: contender.calls[mode] for contender in contenders if mode in contender.calls}
        table[mode] = time_interleaved(calls, options.seconds / len(modes), options.rounds, options.device)
    rivals = [contender.name for contender in contenders if contender.name != ours and contender.results is not None]
    ratios = {m: {name: t[name]["median"] / t[ours]["median"] for name in rivals} for m, t in table.items()}
    return {"case": case.title, "microseconds": table, "times_as_fast_as": ratios}


def as_text(result: dict[str, Any], ours: str) -> str:
    table, ratios = result["microseconds"], result["times_as_fast_as"]
    modes = list(table)
    names = list(dict.fromkeys(name for mode in modes for name in table[mode]))
    lines = [result["case"], f"{'microseconds':20}" + "".join(f"{mode:>26}" for mode in modes)]
    for name in names:
        cells = [table[mode].get(name) for mode in modes]
        lines.append(f"{name:20}" + "".join(f"{cell_text(cell):>26}" for cell in cells))
    for rival in dict.fromkeys(name for mode in modes for name in ratios[mode]):
        cells = [f"{ratios[mode][rival]:.2f} times as fast" if rival in ratios[mode] else "" for mode in modes]
        lines.append(f"{ours + ' / ' + rival:20}" + "".join(f"{cell:>26}" for cell in cells))
    return "\n".join(lines) + "\n"


def cell_text(cell: dict[str, float] | None) -> str:
    if cell is None:
        return ""
    digits = 1 if cell["median"] < 100 else 0
    return f"{cell['median']:.{digits}f} ({cell['p20']:.{digits}f}..{cell['p80']:.{digits}f})"


def processor() -> str:
    """Its name, with family and model where Linux tells them: many generations share one name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    fields = dict(reversed([[word.strip() for word in line.split(":", 1)] for line in lines if ":" in line]))
    if "model name" not in fields:
        return platform.machine()
    return f"{fields['model name']} (family {fields.get('cpu family')}, model {fields.get('model')})"


def conditions() -> dict[str, Any]:
    return {
        "command": shlex.join(["python", *sys.argv]),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "simd": pygan.build_info()["simd"],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pygan": pygan.__version__,
    }


def main(
    document: str,
    cases: Callable[[argparse.Namespace], list[Case]],
    ours: str = "pygan",
    options: Callable[[argparse.ArgumentParser], object] = lambda parser: None,
) -> None:
    """The command line of a benchmark: runs its cases, prints one table each."""
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="run only cases whose title contains this")
    parser.add_argument("--without", nargs="*", default=[], metavar="NAME", help="leave out these contenders")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=6.0, help="time spent on each case (default 6)")
    parser.add_argument("--rounds", type=int, default=5, help="calls of each contender at least (default 5)")
    parser.add_argument("--quick", action="store_true", help="as few calls as possible, to see that all runs")
    parser.add_argument("--threads", type=int, help="threads of torch and pygan (default: torch's choice)")
    parser.add_argument("--json", type=Path, help="write the results here too, and the tables as .md beside")
    options(parser)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seconds, arguments.rounds = 0.0, 2
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    setting = conditions()
    if arguments.device == "cuda":
        setting["device"] = torch.cuda.get_device_name()
    header = "\n".join(f"{name}: {value}" for name, value in setting.items())
    print(header + "\n", flush=True)
    results, texts = [], []
    for case in cases(arguments):
        if arguments.only in case.title:
            results.append(run_case(case, ours, arguments))
            texts.append(as_text(results[-1], ours))
            print(texts[-1], flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"conditions": setting, "results": results}, indent=1) + "\n")
        page = "\n".join([f"# {arguments.json.stem}", "", "```", header, "", *texts]).rstrip() + "\n```\n"
        arguments.json.with_suffix(".md").write_text(page)
