"""Training: Algorithm 1 of Goodfellow et al. 2014, and what surrounds it so that nothing of a run is lost.

`train` sets the run up, `_Game.play` is the loop, and the rest of the class is what happens at the end of an epoch. The
update itself, one iteration of the paper's algorithm, is `pygan.step`; its readable form is in `pygan/step/plain.py`.
"""

import math
import platform
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import pygan.data
from pygan import health, models, pictures, recipes
from pygan._session import CpuRandomness, Interrupt, find_device, forked_randomness, hardware, own_randomness
from pygan._terminal import is_terminal, say
from pygan._version import __version__
from pygan.batches import Batches
from pygan.checkpoint import Part, state_of, take_over
from pygan.data import Data, Splits, as_float, fingerprint
from pygan.folder import RunFolder, check_tables, choose_folder
from pygan.optim import MovingAverage
from pygan.recipes import Recipe
from pygan.run import SIGMA_POINTS, Run, load_weights, player_name, read_config, refuse_changes, summary
from pygan.step import STATISTICS, make_step
from pygan.tensorboard import Board

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["train"]

_READ_EVERY = 100  # updates between looks at the statistics; each look waits for the GPU
_PICTURES = 64


def train(
    data: Data,
    recipe: str | Recipe | None = None,
    out: str | Path | None = None,
    epochs: int | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    resume: bool = False,
    progress: bool = True,
    generator: nn.Module | None = None,
    discriminator: nn.Module | None = None,
    valid: Data | None = None,
    test: Data | None = None,
    root: str | Path | None = None,
    on_epoch: Callable[[Run], object] | None = None,
    **settings: Any,
) -> Run:
    """Train a generator and a discriminator against each other, and say how good the generator is.

    Args:
        data: "digits", "mnist", "cifar10", a folder of images, a tensor, an array or a Dataset; see `pygan.data.load`.
        recipe: the name of a recipe ("paper2014", "code2014", "digits", ...), a `Recipe`, or None for the data's own.
        out: the run folder; None makes runs/<data>, runs/<data>-2, ... A folder that holds a run is never overwritten.
        epochs: passes over the training images; None takes the recipe's.
        device: "auto" (CUDA if there is one, else the CPU) or any torch device.
        seed: at least 0. On the CPU the same seed gives the same bits.
        resume: continue from the last checkpoint in the run folder, or start if there is none. A finished run is
            returned as it is, unless `epochs` is larger than before. Anything else that is given must be what it was.
        progress: show a progress bar if standard error is a terminal.
        generator, discriminator: modules of your own in place of the paper's, trained in place; see `pygan.models`.
        valid, test: images to use as these splits.
        root: the folder of data sets; see `pygan.data.load`.
        on_epoch: called with the run after each epoch; what it draws from torch's generators does not change the run.
        **settings: any field of `Recipe`: k, batch_size, objective, noise, precision, ...

    Returns:
        The run, with the weights that did best on the validation split. `run.path / "result.json"` holds the test
        log-likelihood; the test split is used once, for that, at the end.

    Raises:
        TypeError, ValueError: an unknown or impossible setting, unusable data, a folder that holds another run.
        RuntimeError: another process trains in the folder, or the device is not there.
        pygan.health.NonFiniteError: a NaN or an infinity appeared; the last checkpoint is from before.
        KeyboardInterrupt: after Ctrl-C, when the run has been saved.
    """
    if type(seed) is not int or seed < 0:
        raise ValueError(f"train: seed must be an int of at least 0, got {seed!r}")
    splits = pygan.data.load(data, root=root, seed=seed, valid=valid, test=test)
    place = find_device(device)
    find_recipe = partial(
        recipes.find,
        recipe,
        settings if epochs is None else {**settings, "epochs": epochs},
        data=splits.name,
        pixels=splits.train[0].numel(),
        images=len(splits.train),
    )
    if not resume:
        find_recipe()  # A mistyped setting is to be found before a folder is made.
    folder = choose_folder(out, splits.name, resume)
    with folder.locked():
        before = read_config(folder) if folder.holds_run() else None
        chosen = find_recipe(before=None if before is None else before["recipe"])
        described = fingerprint.describe(splits, data=data, valid=valid, test=test, root=root)
        config = {
            "seed": seed,
            "recipe": chosen,
            "data": described,
            "players": {"generator": player_name(generator), "discriminator": player_name(discriminator)},
        }
        if before is not None:
            refuse_changes(folder.path, before, config)
        with own_randomness(seed, place, chosen.deterministic):
            mean_image = as_float(splits.train).mean(0)
            shape = tuple(mean_image.shape)
            own = models.make_players(chosen, shape, mean_image)
            players = (own[0] if generator is None else generator, own[1] if discriminator is None else discriminator)
            run = Run(*players, chosen, [], folder.path, seed, shape, splits, described)
            game = _Game(run, splits, folder, place, on_epoch)
            game.restore()
            folder.write_config(
                {**config, "recipe": asdict(chosen)}
            )  # From here on the folder holds a run; what cannot begin leaves none.
            folder.write_config({**config, "recipe": asdict(chosen)})
            game.open_logs()
            if game.update < game.updates or not folder.is_finished():
                folder.write_result(None)
                game.play(progress)
                game.finish()
        if progress and is_terminal(sys.stderr):
            say(summary(folder))
        return game.best_run()


class _Game:
    """Both players, the step that moves them, and where the run stands."""

    def __init__(
        self,
        run: Run,
        splits: Splits,
        folder: RunFolder,
        device: torch.device,
        on_epoch: Callable[[Run], object] | None,
    ) -> None:
        self.run, self.splits, self.folder, self.device, self.on_epoch = run, splits, folder, device, on_epoch
        self.recipe = recipe = run.recipe
        self.generator, self.discriminator = run.generator.to(device).train(), run.discriminator.to(device).train()
        models.check_players(self.generator, self.discriminator, recipe, run.shape)
        self.averaged = None
        if recipe.averaging > 0:
            self.averaged = MovingAverage(self.generator, recipe.averaging)
            run.generator = self.averaged.module
        self.step = make_step(self.generator, self.discriminator, recipe, run.shape, device)
        self.batches = Batches(splits.train, recipe.batch_size, run.seed, device)
        self.updates_per_epoch = max(1, self.batches.per_epoch // recipe.k)
        self.updates = recipe.epochs * self.updates_per_epoch

        self.update = 0
        self.totals = [0.0] * len(STATISTICS)  # of this epoch so far
        self.history = run.history
        self.best: float | None = None  # validation log-likelihood of the best checkpoint
        self.times: list[float] = []  # seconds at the end of each epoch
        self.seconds = 0.0
        self.warned: list[str] = []
        self.last_is_old = False  # "best" was read instead
        self.board = Board() if recipe.tensorboard else None

    def play(self, show: bool) -> None:
        """Train to the end of the last epoch; save as the recipe says, and when interrupted."""
        from tqdm import tqdm

        started, saved = time.monotonic() - self.seconds, time.monotonic()
        # The line has no room for a bar if all of it is to fit into 80 columns.
        line = "{desc} [{elapsed}<{remaining}]{postfix}"
        show = show and is_terminal(sys.stderr)
        bar = tqdm(total=self.updates, initial=self.update, bar_format=line, disable=not show)
        with bar, Interrupt() as interrupt:
            while self.update < self.updates:
                self.step(self.batches, self.recipe.rates(self.update, self.updates_per_epoch))
                if self.averaged is not None:
                    self.averaged.update(self.generator)
                self.update += 1
                self.seconds = time.monotonic() - started
                bar.update()

                epoch, within = divmod(self.update, self.updates_per_epoch)
                if self.update % _READ_EVERY == 0 or within == 0:
                    self.show(bar)
                if within == 0:
                    self.end_epoch(epoch)
                due = within == 0 and (epoch % self.recipe.checkpoint_every == 0 or epoch == self.recipe.epochs)
                if due or interrupt.asked or time.monotonic() - saved > self.recipe.checkpoint_seconds:
                    self.save("last")
                    saved = time.monotonic()
                if interrupt.asked:
                    done = f"{self.update / self.updates_per_epoch:.1f} of {self.recipe.epochs} epochs"
                    message = f"interrupted after {done}, saved in {self.folder.path}; go on with resume=True"
                    bar.close()  # or the message would stand in its line
                    say(message)
                    raise KeyboardInterrupt(message)

    def end_epoch(self, epoch: int) -> None:
        """Write down how the epoch went: history, log, picture, best checkpoint, warnings."""
        self.read_statistics()
        means = [total / self.updates_per_epoch for total in self.totals]
        self.totals = [0.0] * len(STATISTICS)
        entry: dict[str, Any]
        entry = {"epoch": epoch, "update": self.update, **dict(zip(STATISTICS, means, strict=True))}
        entry |= {"log_likelihood": None, "sigma": None, "spread": None}
        last = epoch == self.recipe.epochs
        if last or epoch % self.recipe.evaluate_every == 0:
            entry |= self.evaluate()
        self.history.append(entry)
        self.times.append(round(self.seconds, 3))
        self.folder.append_log({**entry, "seconds": self.times[-1]})
        if self.board is not None:
            self.board.write(entry)
        if last or epoch % self.recipe.samples_every == 0:
            pictures.save_png(self.folder.samples(epoch), self.run.sample(_PICTURES, self.run.seed))
        health.warn_once(self.history, self.warned)
        if entry["log_likelihood"] is not None and (self.best is None or entry["log_likelihood"] > self.best):
            self.best = entry["log_likelihood"]
            self.save("best")  # all of the run: one that is killed before it saves "last" goes on from here
        if self.on_epoch is not None:
            with forked_randomness(self.device):
                self.on_epoch(self.run)

    def evaluate(self) -> dict[str, Any]:
        """Log-likelihood of the validation split, and how much the samples vary, from noise that is always the same."""
        self.check_finite()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Young generators lie at the edge of the grid of sigmas.
            window = self.run.window()
        assert window.sigma is not None
        assert isinstance(window.samples, Tensor)
        valid = as_float(self.splits.valid)
        density = window.log_density(valid, window.sigma)
        of_data = health.spread(valid)
        return {
            "log_likelihood": density.double().mean().item(),
            "sigma": window.sigma,
            "spread": health.spread(window.samples) / of_data if of_data > 0 else None,  # where images are all alike
        }

    def read_statistics(self) -> None:
        """Add the updates since the last look to the epoch's totals, one by one: how often we look changes nothing."""
        rows = self.step.statistics().tolist()
        for update, row in enumerate(rows, start=self.update - len(rows) + 1):
            if not all(map(math.isfinite, row)):
                raise health.not_finite(update, dict(zip(STATISTICS, row, strict=True)), self.tensors())
            self.totals = [total + value for total, value in zip(self.totals, row, strict=True)]

    def show(self, bar: "tqdm[Any]") -> None:
        """The progress bar's line: means over the epoch so far, and the last log-likelihood."""
        self.read_statistics()
        epoch, within = divmod(self.update - 1, self.updates_per_epoch)
        d_loss, g_loss, d_real, d_fake = (total / (within + 1) for total in self.totals)
        judged = [past["log_likelihood"] for past in self.history if past["log_likelihood"] is not None]
        bar.set_description_str(f"epoch {epoch + 1}/{self.recipe.epochs}")
        bar.set_postfix_str(
            f"D(x) {d_real:.2f} D(G(z)) {d_fake:.2f} losses {d_loss:.2f} {g_loss:.2f}"
            + (f" {judged[-1]:.0f} nats" if judged else "")
        )

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that the run goes on from, by name."""
        named = state_of({**self.parts(), "random": CpuRandomness()})
        if self.device.type == "cuda":
            named["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return named

    def save(self, name: str) -> None:
        """Write a checkpoint, after a look that all of it is finite."""
        self.read_statistics()
        self.check_finite()
        self.folder.write_checkpoint(name, self.tensors(), {name: getattr(self, name) for name in _PROGRESS})

    def check_finite(self) -> None:
        """Raise NonFiniteError if anything that a checkpoint holds is NaN or infinite."""
        health.check_finite(self.update, self.tensors())

    def restore(self) -> None:
        """Go back to the newest checkpoint that can be read, if there is one. The folder is only read."""
        states = self.folder.read_checkpoints()
        for name, (_, progress) in states.items():
            check_tables(progress, _PROGRESS, self.folder.checkpoint_path(name))
        if states:
            newest = max(states, key=lambda name: (states[name][1]["update"], name))  # "last", if both are equally new
            tensors, progress = states[newest]
            cuda = tensors.pop("random.cuda", None)  # A run may move from one device to another.
            parts = {**self.parts(), "random": CpuRandomness()}
            take_over(parts, tensors, str(self.folder.checkpoint_path(newest)))
            for name in _PROGRESS:
                setattr(self, name, progress[name])
            self.last_is_old = newest == "best"
            if "best" not in states:
                self.best = None  # The best of the epochs to come is kept, or at least the last.
            self.run.history = self.history
            self.batches.position = self.update * self.recipe.k
            if self.device.type == "cuda" and cuda is not None:
                torch.cuda.set_rng_state(cuda, self.device)

    def open_logs(self) -> None:
        """Take up the logs where the history ends; what was logged after the last checkpoint is forgotten."""
        if self.last_is_old:
            self.save("last")
        if self.board is not None:
            self.board.open(self.folder.path, len(self.history))
        self.folder.write_log([{**e, "seconds": s} for e, s in zip(self.history, self.times, strict=True)])

    def best_run(self) -> Run:
        """The run with the weights of its best checkpoint, or of the last if the best is damaged."""
        name = "best" if "best" in self.folder.read_checkpoints() else "last"
        load_weights(self.folder, name, self.generator, self.discriminator)
        return replace(self.run, generator=self.generator.eval(), discriminator=self.discriminator.eval())

    def finish(self) -> None:
        """Judge the best generator on the test split, which is used here for the first time, and write the result."""
        run = self.best_run()
        estimate = run.log_likelihood()
        states = self.folder.read_checkpoints()
        _, progress = states.get("best") or states["last"]
        best = progress["history"][-1]
        self.folder.write_result(
            {
                "log_likelihood": estimate.mean,
                "standard_error": estimate.standard_error,
                "sigma": estimate.sigma,
                "n_test": estimate.n_test,
                "n_samples": estimate.n_samples,
                "protocol": "Parzen window on samples of the best validation epoch; sigma from the validation split's "
                f"first {SIGMA_POINTS} images; mean and standard error over the test split, in nats",
                "splits": self.splits.protocol,
                "validation_log_likelihood": best["log_likelihood"],
                "best_epoch": best["epoch"],
                "epochs": self.recipe.epochs,
                "seed": self.run.seed,
                "seconds": round(self.seconds, 1),
                "versions": {"pygan": __version__, "torch": torch.__version__, "python": platform.python_version()},
                "hardware": hardware(self.device),
                "recipe": asdict(self.recipe),
            }
        )

    def parts(self) -> dict[str, Part]:
        """What has a state of its own."""
        parts: dict[str, Part]
        parts = {"generator": self.generator, "discriminator": self.discriminator, "step": self.step}
        return parts if self.averaged is None else {**parts, "averaged": self.averaged}


_PROGRESS = {  # of a _Game, besides its tensors
    "update": int,
    "totals": list[float],
    "history": list[dict[str, Any]],
    "times": list[float],
    "best": float | None,
    "seconds": float,
    "warned": list[str],
}
