"""The figures of the paper, from live runs."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pygan import pictures, theory
from pygan._session import own_defaults
from pygan.data import as_float
from pygan.data.densities import gaussian
from pygan.evaluate import ParzenWindow
from pygan.figures.game import COLOURS, Stage, draw_game
from pygan.fit import Interrupted
from pygan.ops import discriminator_loss
from pygan.record import listed
from pygan.run import Run, load
from pygan.settings import check_seed
from pygan.train import train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_interpolation", "draw_samples", "paper", "play_on_the_line"]

_LINE: dict[str, Any] = {  # Figure 1's game: Algorithm 1, and noise of one number
    "recipe": "relativistic",
    "objective": "non_saturating",
    "noise": "uniform",
    "noise_size": 1,
    "batch_size": 5000,
    "generator_lr": 1e-3,
    "discriminator_lr": 1e-2,
    "adam_beta1": 0.5,
    "lr_anneal": "cosine",
    "averaging": 0.0,
    "evaluation_samples": 2000,
    "evaluate_every": 1000,
    "samples_every": 1000,
    "checkpoint_every": 1000,
}
_SILENT: dict[str, Any] = {"progress": False, "report": False}
_EPOCHS = (1, 4, 60)  # of 10 updates, in which Figure 1 looks at the game
_START = (-1.4, 0.7)  # mean and standard deviation of the generator's samples at the start
_ALONE = 600  # updates of D alone
_STEP = 2048  # points of either kind in each of them
_WIDTH = 4.0  # the line is drawn from -4 to 4
_BANDWIDTH = 0.1  # of the generator's density, from 20,000 samples
_VISIBLE = 0.01  # D* is drawn where both densities together exceed this share of their maximum
_COLUMNS = 6  # of Figure 2, the nearest training images included
_SHOWN = 24
_PANEL, _TITLE = 5.0, 0.4  # inches: width of a panel, height of its title
_STEPS, _PAIRS = 10, 4  # of an interpolation in Figure 3


@own_defaults(torch.device("cpu"))
def paper(
    number: int,
    runs: Sequence[str | Path | Run] | Run | str | Path | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
) -> Figure:
    """Draw a figure of the paper from live runs.

    Args:
        number: 1, a game on the line, which is trained for it in some ten seconds; 2, samples with the nearest
            training image beside them; 3, interpolation between noise vectors.
        runs: for 2 and 3, the runs to draw, or their folders: a panel for each. None: a run on digits, which is
            trained for it in a minute.
        seed: of what is trained, and of the noise.
        device: of what is trained.

    Returns:
        The figure; `figure.savefig("figure1.svg")` writes it.

    Raises:
        ValueError: another number, runs for 1, and whatever `pygan.load` and `run.splits` raise.
    """
    seed, given = check_seed("paper: seed", seed), listed(runs)
    if number == 1:
        if given:
            raise ValueError("paper: Figure 1 is a game of its own and takes no runs")
        return draw_game(play_on_the_line(seed, device))  # type: ignore[return-value]
    if number not in (2, 3):
        raise ValueError(f"paper: number must be 1, 2 or 3, got {number}")
    draw = draw_samples if number == 2 else draw_interpolation
    if given:
        return draw([run if isinstance(run, Run) else load(run) for run in given], seed)
    with _temporary_folder() as folder:
        return draw([train("digits", out=folder / "digits", seed=seed, device=device, **_SILENT)], seed)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder to train in. Ctrl-C is a plain KeyboardInterrupt, without advice to resume what is removed."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            yield Path(folder)
        except Interrupted:
            raise KeyboardInterrupt from None


@own_defaults(torch.device("cpu"))
def play_on_the_line(seed: int = 0, device: str = "auto") -> list[Stage]:
    """Train Algorithm 1 on N(0, 1), from uniform noise of one number, and return the four stages of Figure 1.

    (a) early; (b) the same with D trained alone, which brings it to D*; (c) later; (d) at the end.
    """
    stages: list[Stage] = []

    def look(run: Run) -> None:
        epoch = len(run.history)
        if epoch not in _EPOCHS:
            return
        updates = run.history[-1]["update"]
        stages.append(_stage(f"({'acd'[_EPOCHS.index(epoch)]}) {updates:,} updates", run))
        if epoch == _EPOCHS[0]:
            alone = replace(run, game=replace(run.game, discriminator=_trained_alone(run)))
            stages.append(_stage(f"(b) D alone, {_ALONE} more", alone))

    with torch.random.fork_rng(), _temporary_folder() as folder:
        torch.manual_seed(seed)
        players = {"generator": _LineGenerator(), "discriminator": nn.Sequential(nn.Flatten(), _network())}
        settings = {**_LINE, **players, "epochs": _EPOCHS[-1], "seed": seed, "device": device, **_SILENT}
        train("gaussian", out=folder / "line", on_epoch=look, **settings)
    return stages


class _LineGenerator(nn.Module):
    """Uniform noise [n, 1] to the line. At first the samples are normal, but for what a new network adds."""

    def __init__(self) -> None:
        super().__init__()
        self.correction = _network()

    def forward(self, noise: Tensor) -> Tensor:
        mean, std = _START
        normal = torch.special.ndtri(
            0.5 + 0.998 * noise / (2 * math.sqrt(3))
        )  # not quite 0 and 1, where it is infinite
        return mean + std * normal + self.correction(normal)


def _network() -> nn.Sequential:
    """[n, 1] -> [n, 1], smooth, as the densities are."""
    layers = (nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 1))
    return nn.Sequential(*layers)


def _trained_alone(run: Run) -> nn.Module:
    """A copy of the discriminator, trained on against the generator as it is, at a rate that falls to 0."""
    discriminator, game = copy.deepcopy(run.discriminator), run.game
    device = next(discriminator.parameters()).device
    real = game.scale.apply(as_float(run.splits.train.images)).to(device)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=0.01, betas=(0.9, 0.99))
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _ALONE)
    for _ in range(_ALONE):
        with torch.no_grad():
            fake = game.generate(game.draw_noise(_STEP, device=device))
        batch = real[torch.randint(len(real), (_STEP,), device=device)]
        loss = discriminator_loss(discriminator(batch).flatten(), discriminator(fake).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
    return discriminator


def _stage(title: str, run: Run) -> Stage:
    density = gaussian()
    x = torch.linspace(-_WIDTH, _WIDTH, 401)
    p_data = density.log_prob(x[:, None]).exp().float()
    samples = density.from_unit(run.sample(20_000, run.seed)).flatten(1)
    p_g = ParzenWindow(samples).log_density(x[:, None], _BANDWIDTH).exp()
    d = run.judge(density.to_unit(x).view(-1, 1, 1, 1)).sigmoid().cpu()
    visible = p_data + p_g > _VISIBLE * (p_data + p_g).max()
    best = torch.where(visible, theory.optimal_discriminator(p_data, p_g), torch.nan)
    z = torch.linspace(-0.97, 0.97, 17) * math.sqrt(3)
    g_z = density.from_unit(run.generate(z[:, None]).flatten().cpu())
    return Stage(title, x, p_data, p_g, d, z, g_z, best)


@own_defaults(torch.device("cpu"))
def draw_samples(runs: Sequence[Run], seed: int = 0) -> Figure:
    """Draw Figure 2: samples of each run that are not selected; in the last column, framed, what they may be copies of.

    That is the training image nearest to the sample in the column before, by the Euclidean distance of pixels.
    """

    def cells(run: Run) -> tuple[Tensor, int]:
        samples = run.sample(_SHOWN // _COLUMNS * (_COLUMNS - 1), seed).unflatten(0, (-1, _COLUMNS - 1))
        beside = run.nearest_training_images(samples[:, -1])
        return torch.cat([samples, beside[:, None]], 1).flatten(0, 1), _COLUMNS

    figure = _panels(runs, cells)
    for axes in figure.axes:
        _, right, bottom, _ = axes.get_images()[0].get_extent()
        frame = {"fill": False, "edgecolor": COLOURS["optimal"], "lw": 2, "clip_on": False}
        axes.add_patch(_rectangle(right * (1 - 1 / _COLUMNS), bottom, right, **frame))
    return figure


@own_defaults(torch.device("cpu"))
def draw_interpolation(runs: Sequence[Run], seed: int = 0) -> Figure:
    """Draw Figure 3: in each row, G at equal steps on the straight line between two noise vectors."""

    def cells(run: Run) -> tuple[Tensor, int]:
        start, end = run.noise(2 * _PAIRS, seed).unflatten(0, (2, _PAIRS))
        steps = torch.linspace(0, 1, _STEPS)[:, None]
        noise = torch.cat([torch.lerp(*pair, steps) for pair in zip(start, end, strict=True)])
        labels = torch.arange(_PAIRS).repeat_interleave(_STEPS) % run.game.classes if run.game.classes else None
        return run.generate(noise, labels).cpu(), _STEPS

    return _panels(runs, cells)


def _panels(runs: Sequence[Run], cells: Callable[[Run], tuple[Tensor, int]]) -> Figure:
    """One panel for each run, of images and the number of columns that they make."""
    from pygan.figures.canvas import new_figure

    columns = min(2, len(runs))
    rows = math.ceil(len(runs) / columns)
    drawn = [pictures.grid(*cells(run)).numpy() for run in runs]
    height = _PANEL * max(picture.shape[0] / picture.shape[1] for picture in drawn) + _TITLE
    figure = new_figure((_PANEL * columns, height * rows))
    for run, picture, axes in zip(runs, drawn, figure.subplots(rows, columns, squeeze=False).flat, strict=False):
        axes.imshow(picture.squeeze(2) if picture.shape[2] == 1 else picture, cmap="gray", vmin=0, vmax=255)
        names = dict.fromkeys((run.data.get("name", "own data"), run.recipe.name))  # digits have a recipe of that name
        axes.set_title(", ".join(names)).set_parse_math(False)
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def _rectangle(left: float, height: float, right: float, **how: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((left, -0.5), right - left, height + 0.5, **how)
