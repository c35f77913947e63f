"""How the two players are coordinated, and what the noise is: updates and time to a given log-likelihood on digits.

    python benchmarks/coordination.py               # all settings, three seeds each; prints the table
    python benchmarks/coordination.py --quick       # a few seconds: two settings, one seed

Section 7.5 of the paper hopes for better ways to coordinate G and D, and for better distributions of z. Each case
changes one setting of the recipe for digits: k, one of the two rates, the noise, or the average of the generator's
weights. The figure is the number of iterations until samples reach the target on the validation split (Parzen window,
nats) while they vary at least .6 times as much as the data, since the mean image alone scores well too. Time is CPU
time of one thread, evaluations included, so that another load of the machine hardly matters.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from harness import conditions

import pygan

TARGET = 6.0  # nats
LEAST_SPREAD = 0.6
CASES: dict[str, dict[str, Any]] = {
    "the recipe (simultaneous)": {},
    "alternating, k = 1": {"updates": "alternating"},
    "alternating, k = 2": {"updates": "alternating", "k": 2},
    "alternating, k = 5": {"updates": "alternating", "k": 5},
    "G's rate halved": {"generator_lr": 0.001},
    "G's rate doubled": {"generator_lr": 0.004},
    "D's rate halved": {"discriminator_lr": 0.001},
    "D's rate doubled": {"discriminator_lr": 0.004},
    "normal noise": {"noise": "normal"},
    "noise of size 8": {"noise_size": 8},
    "noise of size 128": {"noise_size": 128},
    "no average": {"averaging": 0.0},
    "longer average (.999)": {"averaging": 0.999},
}


class Outcome(NamedTuple):
    """One training.

    Attributes:
        updates: iterations, or None if the target was not reached.
        seconds: CPU seconds until then.
        best: the best validation log-likelihood of samples that vary enough, nats.
    """

    updates: int | None
    seconds: float | None
    best: float


def outcome(settings: dict[str, Any], seed: int, epochs: int, target: float) -> Outcome:
    """Train once, and look when the target was reached."""
    start, times = time.process_time(), []
    with tempfile.TemporaryDirectory() as folder:
        history = pygan.train(
            "digits",
            out=Path(folder) / "run",
            seed=seed,
            epochs=epochs,
            evaluate_every=2,
            evaluation_samples=2000,
            samples_every=epochs,
            checkpoint_every=epochs,
            progress=False,
            threads=1,
            device="cpu",
            on_epoch=lambda run: times.append(time.process_time() - start),
            **settings,
        ).history
    judged = [
        (epoch, seconds)
        for epoch, seconds in zip(history, times, strict=True)
        if epoch["log_likelihood"] is not None and epoch["spread"] >= LEAST_SPREAD
    ]
    best = max((epoch["log_likelihood"] for epoch, _ in judged), default=float("-inf"))
    for epoch, seconds in judged:
        if epoch["log_likelihood"] >= target:
            return Outcome(epoch["update"], seconds, best)
    return Outcome(None, None, best)


def row(name: str, outcomes: list[Outcome]) -> str:
    """Return a row of the table: means over the seeds, and how far the seeds lie apart."""
    reached = [of for of in outcomes if of.updates is not None]
    cells = [name, f"{len(reached)} of {len(outcomes)}"]
    for values, digits in (([of.updates for of in reached], 0), ([of.seconds for of in reached], 1)):
        cells.append(spread([value for value in values if value is not None], digits))
    cells.append(spread([of.best for of in outcomes], 1))
    return f"| {' | '.join(cells)} |"


def spread(values: list[Any], digits: int) -> str:
    """Return "mean (least to greatest)"."""
    if not values:
        return "-"
    return f"{statistics.fmean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds, for a smoke test: two settings, one seed")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each case (default: 3)")
    parser.add_argument("--epochs", type=int, default=80, metavar="N", help="of each training (default: 80)")
    parser.add_argument("--target", type=float, default=TARGET, metavar="NATS", help=f"(default: {TARGET:g})")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = dict(list(CASES.items())[:2]) if options.quick else CASES
    seeds, epochs = (1, 4) if options.quick else (options.seeds, options.epochs)
    lines = [
        f"Digits, {epochs} epochs of 14 iterations, target {options.target:g} nats on the validation split.",
        ", ".join(f"{name}: {value}" for name, value in conditions().items()),
        "",
        "| case | reached | iterations to the target | CPU seconds to the target | best, nats |",
        "| --- | --- | --- | --- | --- |",
    ]
    print("\n".join(lines), flush=True)
    for name, settings in cases.items():
        lines.append(row(name, [outcome(settings, seed, epochs, options.target) for seed in range(seeds)]))
        print(lines[-1], flush=True)


if __name__ == "__main__":
    main()
