"""The run: what a user holds, and how it is loaded from its folder."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pygan.data
from pygan import models
from pygan.checkpoint import Part, take_over
from pygan.data import Splits, as_float, fingerprint
from pygan.evaluate import ParzenEstimate, ParzenWindow
from pygan.folder import RunFolder, check_tables
from pygan.recipes import Recipe

__all__ = ["SIGMA_POINTS", "Run", "load", "load_weights", "player_name", "read_config", "refuse_changes", "summary"]

SIGMA_POINTS = 1000  # The authors' script chooses sigma on the first 1000 validation points.
_CONFIG = {  # what config.toml must hold
    "seed": int,
    "recipe": dict,
    "data": dict,
    "data.shape": list[int],
    "data.checksums": dict[str, str],
    "data.checksums.train": str,
    "data.checksums.valid": str,
    "data.checksums.test": str,
    "players": dict,
    "players.generator": str,
    "players.discriminator": str,
}
_RESULT = {"log_likelihood": float | None, "standard_error": float | None, "best_epoch": int, "epochs": int}
OWN_PLAYER = "the recipe's"  # in config.toml, where no module of the user's takes the player's place


@dataclass(eq=False)
class Run:
    """A generator and its discriminator, and how they came about.

    Attributes:
        generator, discriminator: the players. With the setting `averaging`, the generator is the averaged one.
        recipe: every setting.
        history: one dictionary for each epoch: "epoch", "update", "d_loss" and "g_loss" (nats), "d_real" = mean D(x),
            "d_fake" = mean D(G(z)); and, None where the epoch was not evaluated, "log_likelihood" (nats, mean over the
            validation split), its "sigma", and "spread" (standard deviation of the samples over that of the data).
        path: the run folder.
        seed: of the run; evaluation draws its samples by it.
        shape: (C, H, W) of the images.
        splits: the data; None in a loaded run until they are needed.
        data: what config.toml says of them.
    """

    generator: nn.Module = field(repr=False)
    discriminator: nn.Module = field(repr=False)
    recipe: Recipe
    history: list[dict[str, Any]] = field(repr=False)
    path: Path
    seed: int
    shape: tuple[int, ...]
    splits: Splits | None = field(repr=False)
    data: Mapping[str, Any] = field(repr=False)

    def sample(self, n: int, seed: int | None = None) -> Tensor:
        """n samples [n, C, H, W] in [0, 1], float32 on the CPU: the same for the same seed, new ones for None."""
        return self._sample(n, seed).cpu()

    def window(self) -> ParzenWindow:
        """The Parzen window on `evaluation_samples` samples, sigma chosen on the first 1000 validation images."""
        window = ParzenWindow(self._sample(self.recipe.evaluation_samples, self.seed))
        return window.fit(as_float(self._splits().valid[:SIGMA_POINTS]))

    def log_likelihood(self) -> ParzenEstimate:
        """Mean log-likelihood of the test split in nats, by the protocol of 2014: sigma from the validation split.

        Raises, if the run was loaded, RuntimeError where its data were in memory only, and ValueError where they are
        not the same any more.
        """
        return self.window().score(as_float(self._splits().test))

    def _sample(self, n: int, seed: int | None) -> Tensor:
        source = None if seed is None else torch.Generator().manual_seed(seed)
        return models.sample(self.generator, self.recipe, self.shape, n, source)

    def _splits(self) -> Splits:
        if self.splits is None:
            if "sources" not in self.data:
                raise RuntimeError(
                    f"run: the data of {self.path} were given in memory and are not stored with it; "
                    "use pygan.ParzenWindow(run.sample(10_000)).fit(valid).score(test)"
                )
            splits = pygan.data.load(**self.data["sources"], seed=self.seed)
            if changed := fingerprint.changed(self.data["checksums"], fingerprint.checksums(splits)):
                raise ValueError(
                    f"run: {self.data['sources']['data']} has changed since {self.path} was trained on it: {changed}"
                )
            self.splits = splits
        return self.splits


def load(
    path: str | Path,
    checkpoint: str = "best",
    *,
    generator: nn.Module | None = None,
    discriminator: nn.Module | None = None,
) -> Run:
    """The run that a folder holds, on the CPU and in eval mode.

    Args:
        path: the run folder.
        checkpoint: "best", by validation log-likelihood, or "last".
        generator, discriminator: where the run was trained with modules of the user's own, modules of the same make;
            their weights are overwritten.

    Raises:
        FileNotFoundError: no such run or checkpoint.
        ValueError: another name of a checkpoint, a damaged file, or players that have to be given. Where only the other
            checkpoint is damaged, a UserWarning says what is lost: epochs of the history.
    """
    folder = RunFolder(path)
    config = read_config(folder)
    recipe, data = config["recipe"], config["data"]
    own = models.make_players(recipe, data["shape"])
    players = {
        "generator": own[0] if generator is None else generator,
        "discriminator": own[1] if discriminator is None else discriminator,
    }
    for role, given in (("generator", generator), ("discriminator", discriminator)):
        if given is None and config["players"][role] != OWN_PLAYER:
            raise ValueError(f"load: {path} was trained with {config['players'][role]}; pass one as {role}=")
    load_weights(folder, checkpoint, *players.values())
    states = folder.read_checkpoints()
    for name, (_, progress) in states.items():
        check_tables(progress, {"history": list[dict[str, Any]]}, folder.checkpoint_path(name))
    return Run(
        players["generator"].eval(),
        players["discriminator"].eval(),
        recipe,
        max((progress["history"] for _, progress in states.values()), key=len),
        folder.path,
        config["seed"],
        tuple(data["shape"]),
        None,
        data,
    )


def load_weights(folder: RunFolder, checkpoint: str, generator: nn.Module, discriminator: nn.Module) -> None:
    """Overwrite the players' weights by those of a checkpoint; the averaged generator's, if there is one."""
    state = folder.read_checkpoint(checkpoint)
    if state is None:
        raise FileNotFoundError(f"load: {folder.path} has no checkpoint {checkpoint!r} yet")
    tensors, _ = state
    averaged = any(name.startswith("averaged.module.") for name in tensors)
    parts: dict[str, Part] = {"averaged.module" if averaged else "generator": generator, "discriminator": discriminator}
    take_over(parts, tensors, f"{folder.checkpoint_path(checkpoint)} (settings: {folder.path / 'config.toml'})")


def player_name(player: nn.Module | None) -> str:
    """How config.toml names a player; None stands for the one that the recipe describes."""
    return OWN_PLAYER if player is None else f"{type(player).__module__}.{type(player).__qualname__}"


def refuse_changes(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the setting, unless a run begun with `before` can go on with `now`."""
    flat = [{"seed": c["seed"], **asdict(c["recipe"]), **c["players"]} for c in (before, now)]
    for name, old in flat[0].items():
        new = flat[1][name]
        if new != old and not (name == "epochs" and new > old):
            rule = "epochs may only grow" if name == "epochs" else "only epochs may change"
            raise ValueError(f"train: {name} was {old!r} in {path}, got {new!r}; to resume, {rule}")
    if changed := fingerprint.changed(before["data"]["checksums"], now["data"]["checksums"]):
        raise ValueError(f"train: data must be those that the run in {path} was begun with: {changed}")


def read_config(folder: RunFolder) -> dict[str, Any]:
    """Return the settings that the run was begun with: "seed", the `Recipe` "recipe", tables "data" and "players"."""
    config = folder.read_config()
    check_tables(config, _CONFIG, folder.path / "config.toml")
    try:
        return {**config, "recipe": Recipe().with_settings(**config["recipe"])}
    except (TypeError, ValueError) as error:
        path = folder.path / "config.toml"
        raise ValueError(f"{path} is malformed, or of another version of pygan: {error}") from None


def summary(folder: RunFolder) -> str:
    """Return the result of a finished run in one line."""
    result = folder.read_result() or {}
    check_tables(result, _RESULT, folder.path / "result.json")
    mean, error = (math.nan if result[name] is None else result[name] for name in ("log_likelihood", "standard_error"))
    return (
        f"{folder.path}: {mean:.1f} +- {error:.1f} nats on the test split, "
        f"at epoch {result['best_epoch']} of {result['epochs']}"
    )
