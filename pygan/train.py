"""Training: from data and a recipe to a run whose generator has been evaluated.

`train` prepares the run, `pygan.fit.Fit` trains a `_Play` update by update, and `_result` evaluates the best
generator. The updates themselves, among them Algorithm 1 of the paper, are in `pygan/algorithm.py`.
"""

import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pygan.data
from pygan import health
from pygan._files import replace_file
from pygan._session import find_device, forked_randomness, hardware, own_defaults, own_randomness
from pygan._terminal import say
from pygan._threads import check_threads, choose_threads, own_threads
from pygan._version import __version__
from pygan.batches import Batches
from pygan.boards import NOWHERE, Board, Boards
from pygan.checkpoint import Part
from pygan.data import Data, Splits, fingerprint
from pygan.distributed import Ranks, join
from pygan.export import model_card
from pygan.fast import choose_products, make_step
from pygan.fast.products import Library
from pygan.fit import Cadence, Fit
from pygan.folder import DamagedError, RunFolder, SharedFolder, choose_folder
from pygan.game import Game, make_game
from pygan.memory import fits_one_core, refuse_too_large
from pygan.optim import MovingAverage
from pygan.progress import Task, introduce, is_live
from pygan.recipes import Recipe, find_recipe
from pygan.report.live import Live
from pygan.run import (
    SIGMA_POINTS,
    Run,
    left_open,
    load_weights,
    make_config,
    own_roles,
    read_config,
    refuse_changes,
    summary,
)
from pygan.settings import check_seed
from pygan.tensorboard import TensorBoard

__all__ = ["train"]

_SAMPLES_FOR_STATISTICS = 2000  # that the averaged generator's batch norm is measured on


def train(
    data: Data,
    recipe: str | Recipe | None = None,
    out: str | Path | None = None,
    epochs: int | None = None,
    device: str | torch.device = "auto",
    seed: int | None = None,
    resume: bool = False,
    progress: bool = True,
    generator: nn.Module | None = None,
    discriminator: nn.Module | None = None,
    valid: Data | None = None,
    test: Data | None = None,
    root: str | Path | None = None,
    on_epoch: Callable[[Run], object] | None = None,
    conditional: bool | None = None,
    image_size: int | None = None,
    threads: int | None = None,
    report: bool = True,
    **settings: Any,
) -> Run:
    """Train a generator and a discriminator against each other, and evaluate the generator.

    Args:
        data: "digits", "mnist", "cifar10", a folder of images, a tensor, an array or a Dataset; see `pygan.data.load`.
        recipe: the name of a recipe ("paper2014", "code2014", "digits", ...), a `Recipe`, or None for the data's own.
        out: the run folder; None makes runs/<data>, runs/<data>-2, ... A folder that holds a run is never overwritten.
        epochs: passes over the training images; None uses the recipe's number.
        device: "auto" (CUDA if there is one, else the CPU) or any torch device.
        seed: at least 0; None is 0, or that of the run that is resumed. On the CPU the same seed gives the same bits,
            with the same `threads` and `products`.
        resume: continue from the last checkpoint in the run folder; where no run has begun, start one and say so. A
            finished run is returned unchanged, unless `epochs` is larger than before. Of the other arguments, pass
            `data` again, and what was in memory or is a module of yours; what is not passed stays as it was, and what
            is must be the same as before.
        progress: show the progress on standard error: on a terminal or in a notebook as one line that is rewritten,
            elsewhere as a new line for each evaluation.
        generator, discriminator: your own modules instead of the recipe's, trained in place; see `pygan.models`.
        valid, test: images to use as these splits.
        root: the folder of data sets; see `pygan.data.load`.
        on_epoch: called with the run after each epoch. Random numbers that it draws from torch's generators do not
            change the run. If it returns False, the run ends there and is evaluated. If it raises, the run is saved.
        conditional: train p(x given c): both players also get the label of each image. The data must have labels.
            None is False, or as the run that is resumed.
        image_size: images are cropped and resized to squares with this side, in pixels; see `pygan.data.load`.
        threads: of the CPU. None: as many as torch uses, but one for nets so small that more do not help. A resumed run
            uses the number that it was begun with, since another one may change the last bits.
        report: draw the curves, an animated picture of the samples and a page, report.html, after evaluations and at
            the end. While it trains this takes 5 % of the time at most, and a second at the end. A finished run that is
            resumed gets the files that it does not have.
        **settings: any setting of `Recipe`: k, batch_size, objective, noise, precision, ...

    Returns:
        The run, with the weights of the best epoch on the validation split. `run.path / "result.json"` holds the test
        log-likelihood; the test split is used only for that, once, at the end.

    Raises:
        TypeError, ValueError: an unknown or impossible setting, unusable data, a folder that holds another run.
        RuntimeError: there is not enough memory (the message says for what), another process trains in the folder,
            another thread trains in this process, the device does not exist, another process of the run has ended.
        pygan.health.NonFiniteError: a NaN or an infinity appeared.
        KeyboardInterrupt: after Ctrl-C, when the run has been saved.
    """
    seed = None if seed is None else check_seed("train: seed", seed)
    players = {"generator": generator, "discriminator": discriminator}
    for role, player in players.items():
        if not isinstance(player, nn.Module | None):
            raise TypeError(f"train: {role} must be a torch.nn.Module or None, got {type(player).__name__}")
    threads = check_threads(threads)
    device = find_device(device)
    ranks = join(device)
    device = ranks.own(device)
    progress = progress and ranks.is_main
    begun = ranks.from_main(lambda: left_open(out, pygan.data.name_of(data)) if resume else {})
    seed = check_seed("train: seed", begun.get("seed", 0)) if seed is None else seed
    conditional = begun.get("conditional", False) if conditional is None else conditional
    sources: dict[str, Any] = {"root": root, "valid": valid, "test": test, "image_size": image_size}
    for name in [name for name, given in sources.items() if given is None]:
        sources[name] = begun.get(name)
    sources["data"] = data
    with own_defaults(device):
        splits = ranks.main_first(lambda: pygan.data.load(**sources, seed=seed))
    fingerprint.refuse_leak(splits)
    classes = splits.class_count() if conditional else 0
    changes = settings if epochs is None else {**settings, "epochs": epochs}

    def chosen(before: Recipe | None) -> Recipe:
        found = find_recipe(recipe, changes, splits, before, conditional)
        ranks.share(found.batch_size)  # refuses what cannot be shared
        return found

    if not resume:
        chosen(None)  # A mistyped setting is to be found before a folder is made.
    folder = _folder(ranks, lambda: choose_folder(out, splits.name, resume))
    with folder.locked(), own_defaults(device):
        before = read_config(folder) if folder.holds_run() else None
        used = chosen(None if before is None else before["recipe"])
        refuse_too_large(used, splits, classes, players, device)
        alike = before if ranks.count == 1 else None  # another number of processes needs another number of threads
        threads = choose_threads(threads, alike, fits_one_core(used, splits, classes, players))
        described = fingerprint.describe(splits, classes > 0, **sources) | {"classes": classes}
        config = make_config(seed, threads, used, described, players)
        same = {"seed": seed, **config["players"], **config["recipe"], **described["checksums"]}
        ranks.refuse_differences("train", same)
        if before is not None:
            refuse_changes(folder.path, before, config)
        with own_threads(threads), own_randomness(seed, device, used.deterministic):
            game = make_game(used, splits, classes, players, device)
            ranks.refuse_differences("train", _layouts(game))
            for player in (game.generator, game.discriminator):
                ranks.spread([*player.parameters(), *player.buffers()])
            config["data"]["scale"] = {"name": game.scale.name, **game.scale.state()}
            own = own_roles(config["players"])
            run = Run(game, used, folder.path, seed, config["data"], [], splits, threads, own)
            config["products"] = ranks.from_main(lambda: choose_products(game, used, device, before))
            play = _Play(run, game, splits, folder, device, config["products"], ranks)
            live = Live(run, device) if report and ranks.is_main else None
            board = _boards(used, live) if ranks.is_main else NOWHERE
            asks = ranks.from_main(lambda: on_epoch is not None)
            asking = _asking(on_epoch, run) if asks else None
            fit = Fit(play, folder, play.cadence(), device, asking, board, ranks)
            fit.restore(longer=before is not None and used.epochs > before["recipe"].epochs)
            run.history, play.fit = fit.history, fit
            folder.write_config(config)  # From here on the folder holds a run; what cannot begin leaves none.
            fit.open_log()
            if not (fit.finished and folder.is_finished()):
                folder.write_result(None)
                if progress:
                    introduce(run, play.reference)
                fit.play(progress)
            best, entry = _best_run(run, folder, game)
            if not folder.is_finished():
                with Task("evaluation on the test split", show=progress):
                    ranks.from_main(
                        lambda: _finish(best, entry, fit, RunFolder(folder.path), device, config["products"])
                    )
            if live is not None and not live.is_complete():
                live.finish(best, entry["epoch"])
    if progress and is_live():
        say(summary(RunFolder(folder.path)))
    return best


def _layouts(game: Game) -> dict[str, list[int]]:
    """The order in memory of each parameter. Gradients are exchanged in it."""
    players = {"generator": game.generator, "discriminator": game.discriminator}
    return {
        f"the strides of {role}.{name}": list(parameter.stride())
        for role, player in players.items()
        for name, parameter in player.named_parameters()
    }


def _folder(ranks: Ranks, choose: Callable[[], RunFolder]) -> RunFolder:
    return choose() if ranks.count == 1 else SharedFolder(ranks, choose)


class _Play:
    """A game that is being trained: the step that updates the players, the batches, and the evaluation of an epoch."""

    fit: Fit
    rates = ("generator_lr", "discriminator_lr")

    def __init__(
        self,
        run: Run,
        game: Game,
        splits: Splits,
        folder: RunFolder,
        device: torch.device,
        products: Library,
        ranks: Ranks,
    ) -> None:
        self.run, self.game, self.splits, self.folder = run, game, splits, folder
        self.device, self.ranks = device, ranks
        self.recipe = recipe = run.recipe
        self.averaged = None
        if recipe.averaging > 0:
            self.averaged = MovingAverage(game.generator, recipe.averaging)
            run.game = replace(game, generator=self.averaged.module)
        share = ranks.share(recipe.batch_size, recipe.batch_norm == "synchronised")
        self.step = make_step(game, replace(recipe, products=products), device, share)
        self.batches = Batches(splits.train, recipe.batch_size, run.seed, device, game.scale, recipe.flip, share)
        self.updates_per_epoch = max(1, self.batches.per_epoch // recipe.k)
        self.statistics = game.objective.statistics
        self.describe = game.objective.describe
        self.take_statistics = self.step.statistics

    def cadence(self) -> Cadence:
        """Return the recipe's settings about the length of the run, and how often something is done."""
        return Cadence(
            epochs=self.recipe.epochs,
            updates_per_epoch=self.updates_per_epoch,
            checkpoint_every=self.recipe.checkpoint_every,
            checkpoint_seconds=self.recipe.checkpoint_seconds,
            patience=self.recipe.patience,
            keep_every=self.recipe.keep_every,
        )

    def update(self, number: int) -> None:
        self.batches.position = number * self.recipe.k
        self.step(self.batches, self.recipe.rates(number, self.updates_per_epoch))
        if self.averaged is not None:
            self.averaged.update(self.game.generator)

    def parts(self) -> Mapping[str, Part]:
        parts: dict[str, Part]
        parts = {"generator": self.game.generator, "discriminator": self.game.discriminator, "step": self.step}
        return parts if self.averaged is None else {**parts, "averaged": self.averaged}

    def reload(self) -> None:
        self.step.reload()

    def diagnose(self, history: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, str]]:
        return health.diagnose(history) | self.game.objective.diagnose(history)

    def end_epoch(self, epoch: int, last: bool) -> dict[str, Any]:
        """Evaluate on the validation split and write a picture; the noise is always the same."""
        drawn = last or epoch % self.recipe.samples_every == 0
        judged = last or epoch % self.recipe.evaluate_every == 0
        if self.averaged is not None and (drawn or judged):
            with forked_randomness(self.device):  # of a generator with dropout
                self.averaged.recompute_statistics(self._passes())
        if judged:
            self.fit.check_finite()
        return self.ranks.from_main(lambda: self._look(epoch, drawn, judged))

    def _look(self, epoch: int, drawn: bool, judged: bool) -> dict[str, Any]:
        """Write the picture of an epoch, and evaluate it, if this is due."""
        if drawn:
            self.folder.write_picture(epoch, self.run.picture())
        if not judged:
            return {"log_likelihood": None, "sigma": None, "spread": None, "reference": None}
        return {**self.run.validation(), "reference": self.reference}

    @cached_property
    def reference(self) -> float:
        """The log-likelihood of the validation split with training images in place of samples."""
        return self.run.reference_log_likelihood("valid")["training images"]

    def _passes(self) -> Iterator[tuple[Tensor, ...]]:
        """Batches of the generator's inputs as in training, always the same."""
        source, labels, n = (
            torch.Generator().manual_seed(self.run.seed),
            self.splits.train.labels,
            self.batches.batch_size,
        )
        for _ in range(math.ceil(_SAMPLES_FOR_STATISTICS / n)):
            inputs = [self.game.draw_noise(n, source)]
            if self.game.classes and labels is not None:
                inputs.append(labels[torch.randint(len(labels), (n,), generator=source)])
            yield tuple(tensor.to(self.device) for tensor in inputs)


def _best_run(run: Run, folder: RunFolder, game: Game) -> tuple[Run, dict[str, Any]]:
    """The run with the weights of its best checkpoint, or of the last if that is damaged; and that epoch's entry."""
    name, state = "best", None
    with suppress(DamagedError):
        state = folder.read_checkpoint(name)
    if state is None:
        (name, state), *_ = folder.read_checkpoints().items()
    load_weights(folder, name, state, game.generator, game.discriminator)
    best = replace(run, game=replace(game, generator=game.generator.eval(), discriminator=game.discriminator.eval()))
    return best, state[1]["history"][-1]


def _asking(on_epoch: Callable[[Run], object] | None, run: Run) -> Callable[[], object]:
    """The user's function on the run; False where the function, or `run.stop`, ends the training."""
    return lambda: on_epoch is not None and on_epoch(run) is not False and not run.stopping


def _boards(recipe: Recipe, live: Live | None) -> Boards:
    """Where the history goes, besides the log."""
    boards: list[Board] = [TensorBoard()] if recipe.tensorboard else []
    return Boards([*boards, live] if live else boards)


def _finish(
    best: Run, entry: Mapping[str, Any], fit: Fit, folder: RunFolder, device: torch.device, products: Library
) -> None:
    """Write what a finished run leaves: the generator, the model card, and last the result."""
    result = _result(best, entry, fit, device, products)
    best.export(folder.path / "generator.safetensors")
    replace_file(folder.path / "README.md", model_card(best, result).encode())
    folder.write_result(result)


def _result(run: Run, entry: Mapping[str, Any], fit: Fit, device: torch.device, products: Library) -> dict[str, Any]:
    """Evaluate the best generator on the test split, which is used here for the first time, and return the result.

    `entry` is the entry of the history for the epoch of these weights.
    """
    estimate, seen = run.log_likelihood(), min(SIGMA_POINTS, len(run.splits.valid))
    return {
        "log_likelihood": estimate.mean,
        "standard_error": estimate.standard_error,
        "sigma": estimate.sigma,
        "n_test": estimate.n_test,
        "n_samples": estimate.n_samples,
        "protocol": "Parzen window on samples of the best validation epoch; sigma from the validation split's "
        f"first {seen} images ({run.recipe.sigma}); mean and standard error over the test split, in nats",
        "reference_log_likelihood": run.reference_log_likelihood(),
        "spread": entry["spread"],
        "splits": run.splits.protocol,
        "threads": run.threads,
        "products": products,
        "validation_log_likelihood": entry["log_likelihood"],
        "best_epoch": entry["epoch"],
        "epochs": len(fit.history),
        "stopped": fit.stopped,
        "seed": run.seed,
        "seconds": round(fit.seconds, 1),
        "versions": {"pygan": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "hardware": hardware(device),
        "recipe": run.recipe.flat(),
    }
