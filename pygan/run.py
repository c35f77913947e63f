"""`Run`, what `train` and `load` return, and how it is loaded from its folder."""

import base64
import html
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

import pygan.data
from pygan import health, pictures
from pygan._session import own_defaults
from pygan._terminal import counted
from pygan.checkpoint import Checkpoint, Part, take_over
from pygan.data import Batch, Splits, as_float, fingerprint
from pygan.data.scaling import SCALES
from pygan.evaluate import ParzenEstimate, ParzenWindow
from pygan.evaluate._pixels import check_images
from pygan.evaluate.neighbours import nearest
from pygan.evaluate.references import result_rows
from pygan.features import hidden_layers
from pygan.folder import RunFolder, begun_with, check_numbers, check_tables
from pygan.game import Game, evaluating
from pygan.memory import WINDOW_BYTES
from pygan.recipes import Recipe
from pygan.settings import find, random_generator, whole_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "FORMAT",
    "SIGMA_POINTS",
    "Run",
    "left_open",
    "load",
    "load_weights",
    "make_config",
    "own_roles",
    "read_config",
    "recipe_of",
    "refuse_changes",
    "summary",
]

SIGMA_POINTS = 1000  # The authors' script chooses sigma on the first 1000 validation points.
OWN_PLAYER = "the recipe's"  # in config.toml, where no module of the user's takes the player's place
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
_PICTURES = 64  # samples in a picture
_PICTURES_OF_A_CLASS = 10
_POINTS = 2000  # in a plot
_CPU = torch.device("cpu")
_AT_ONCE = 1000  # images in one pass
_SHOWN = 36  # samples in a notebook
_NEAREST_AT_ONCE = 5000  # training images that are compared at a time
_RESULT = {"log_likelihood": float | None, "standard_error": float | None, "best_epoch": int, "epochs": int}
_NUMBERS = (
    "log_likelihood",
    "standard_error",
    "sigma",
    "spread",
    "validation_log_likelihood",
    "n_samples",
    "n_test",
    "best_epoch",
    "epochs",
    "seconds",
)
FORMAT = 2  # of config.toml
_PLAYERS = ("generator", "discriminator")
_ARGUMENTS = {"name": "recipe", "classes": "conditional"}  # of `train`, by the name in config.toml


@dataclass(eq=False)
class Run:
    """A generator and its discriminator, and how they were trained.

    Attributes:
        game: both players and the rules between them. With the setting `averaging`, its generator is the averaged one.
        recipe: every setting.
        path: the run folder.
        seed: of the run; evaluation uses it for its samples.
        data: what config.toml says about the data.
        history: one dictionary for each epoch: "epoch"; "update"; the objective's statistics, for the logistic ones
            "d_loss" and "g_loss" (nats), "d_real" = mean D(x) and "d_fake" = mean D(G(z)), for others see
            docs/training.md; and, None where the epoch was not evaluated, "log_likelihood" (nats, mean over the
            validation split), its "sigma", "spread" (standard deviation of the samples over that of the data), and
            "reference" (the log-likelihood with training images in place of samples).
        threads: number of CPU threads of the training.
        own_players: "generator" or "discriminator" or both, where the user supplied the module.
    """

    game: Game = field(repr=False)
    recipe: Recipe = field(repr=False)
    path: Path
    seed: int
    data: Mapping[str, Any] = field(repr=False)
    history: list[dict[str, Any]] = field(default_factory=list, repr=False)
    known_splits: Splits | None = field(default=None, repr=False)  # None in a loaded run until they are needed
    threads: int | None = field(default=None, repr=False)
    own_players: tuple[str, ...] = field(default=(), repr=False)
    stopping: bool = field(default=False, repr=False)  # set by `stop`

    def __repr__(self) -> str:
        judged = [entry["log_likelihood"] for entry in self.history if entry.get("log_likelihood") is not None]
        score = f", {judged[-1]:.1f} nats on the validation split" if judged else ""
        return f"Run({str(self.path)!r}: {self.recipe.name}, {counted(len(self.history), 'epoch')}{score})"

    @own_defaults(_CPU)
    def _repr_html_(self) -> str:
        """Return HTML for notebooks: a table of what the run has reached, and samples, which are always the same."""
        rows = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in self._facts().items())
        points = pictures.is_plottable(self.shape)
        samples = self.sample(_POINTS if points else _SHOWN, self.seed)
        picture = pictures.points_png(samples) if points else pictures.png(pictures.grid(samples))
        source = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
        return f'<table>{rows}</table><img alt="samples" src="{source}">'

    def _facts(self) -> dict[str, str]:
        """What a notebook shows in its table."""
        shape, last = " x ".join(map(str, self.shape)), next(reversed(self.history), None)
        judged = [entry for entry in self.history if entry.get("log_likelihood") is not None]
        facts = {
            "run": str(self.path),
            "data": f"{self.data['name']}, {shape}" if "name" in self.data else shape,
            "recipe": self.recipe.name,
            "epochs": f"{len(self.history)} of {self.recipe.epochs}",
        }
        if judged:
            best = max(judged, key=health.rank)
            facts["best epoch"] = f"{best['epoch']}: {best['log_likelihood']:.1f} nats on the validation split"
        if judged and judged[-1].get("reference") is not None:
            facts["training images"] = f"{judged[-1]['reference']:.1f} nats in place of samples"
        if last is not None:
            facts["last epoch"] = self.recipe.objective.describe(last)
        return facts

    def plot(self) -> "Figure":
        """Return the curves of the run as a matplotlib figure, which a notebook shows; see `pygan.figures.draw_curves`.

        Raises ValueError if no epoch has been completed.
        """
        from pygan.figures.curves import draw_curves  # it needs to know what a run is

        return draw_curves([self])

    @property
    def splits(self) -> Splits:
        """The data of the training; a loaded run reads them again when they are needed.

        Raises RuntimeError if they were only in memory, and ValueError if they have changed.
        """
        if self.known_splits is None:
            self.known_splits = self._read_splits()
        return self.known_splits

    @splits.setter
    def splits(self, splits: Splits) -> None:
        self.known_splits = splits

    @property
    def generator(self) -> nn.Module:
        """Maps noise [n, noise_size] to images in the recipe's pixel scale."""
        return self.game.generator

    @property
    def discriminator(self) -> nn.Module:
        """Maps images in the recipe's pixel scale to logits."""
        return self.game.discriminator

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of the images."""
        return self.game.shape

    @own_defaults(_CPU)
    def sample(self, n: int, seed: int | None = None, labels: Any = None) -> Tensor:
        """Return n samples [n, C, H, W] in [0, 1], float32 on the CPU.

        Args:
            n: number of samples.
            seed: the same samples for the same seed; None for new ones.
            labels: of a conditional run: one int or n of them; None for the classes in turn, 0, 1, 2, ...
        """
        return self._pictures(self._sample(n, seed, labels)).cpu()

    @own_defaults(_CPU)
    def noise(self, n: int, seed: int | None = None) -> Tensor:
        """Return noise [n, noise_size], float32 on the CPU: the same for the same seed, new for None."""
        return self.game.draw_noise(whole_number("noise: n", n, 1), random_generator("noise: seed", seed))

    @own_defaults(_CPU)
    @torch.no_grad()
    def generate(self, noise: Tensor, labels: Any = None) -> Tensor:
        """Return the images [n, C, H, W] in [0, 1] that noise [n, noise_size] becomes, on the generator's device."""
        device = _device(self.generator)
        with evaluating(self.generator):
            images = self.game.generate(noise.to(device), self._labels(labels, len(noise), device))
        return self._pictures(images.float())

    @own_defaults(_CPU)
    @torch.no_grad()
    def judge(self, images: Tensor, labels: Any = None) -> Tensor:
        """Return the discriminator's logits (a critic's values) [n] of images [n, C, H, W] in [0, 1] or uint8."""
        device = _device(self.discriminator)
        seen = self.game.scale.apply(as_float(images.to(device)))
        with evaluating(self.discriminator):
            return self.game.judge(seen, self._labels(labels, len(images), device))

    @own_defaults(_CPU)
    @torch.no_grad()
    def features(self, images: Tensor, layers: Sequence[int] | None = None, pool: int = 4) -> Tensor:
        """Return the discriminator's hidden layers as features for a classifier, flattened side by side: [n, F], CPU.

        As in Radford et al. 2016 (arXiv 1511.06434, section 5.1), maps of more than `pool` x `pool` pixels are brought
        to that size by taking the maximum over parts of them. Dropout and noise are off.

        Args:
            images: [n, C, H, W], n >= 1, uint8 or float32 in [0, 1].
            layers: which hidden layers, counted from 0; negative ones from the last, -1. None is all of them.
            pool: side of the maps, at least 1.

        Raises:
            ValueError: no such layer; a discriminator of the user's own without an attribute `hidden` that has its
                hidden layers in order (an `nn.Sequential`, an `nn.ModuleList` or a list).
        """
        check_images("features", "images", images, self.shape)
        pieces = [hidden_layers(self.game, piece, layers, pool).cpu() for piece in images.split(_AT_ONCE)]
        return torch.cat(pieces)

    @own_defaults(_CPU)
    def window(self) -> ParzenWindow:
        """Return the Parzen window on `evaluation_samples` samples; sigma is from the first 1000 validation images.

        Samples of more than 512 MiB in total are not kept; they are drawn again, in pieces, whenever they are needed.
        """
        return self._window(self.recipe.evaluation_samples, self.splits.valid)

    @own_defaults(_CPU)
    def log_likelihood(self) -> ParzenEstimate:
        """Return the mean log-likelihood of the test split in nats, by the protocol of 2014: sigma from validation.

        The density is that of pixels in [0, 1]. The pixel scale "gcn" has no exact inverse; there it is the density of
        the normalised values.

        A loaded run raises RuntimeError if its data were only in memory, and ValueError if they have changed.
        """
        return self.window().score(self.density_images(self.splits.test))

    @own_defaults(_CPU)
    def reference_log_likelihood(self, split: Literal["valid", "test"] = "test") -> dict[str, float]:
        """Return the log-likelihood of a split in nats, with other images in place of the samples.

        "training images": as many as there are samples, or all; a good generator scores about as much. "their mean":
        the mean training image alone; samples that are all alike score about as much.
        """
        train, valid, judged = self.splits.train, self.splits.valid, getattr(self.splits, split)
        order = torch.randperm(len(train), generator=random_generator("seed", self.seed))
        drawn = order[: self.recipe.evaluation_samples]
        rows = [self.density_images(batch) for batch in (train[drawn], valid, judged)]
        return result_rows(*rows, refine=self.recipe.sigma == "refined")

    @own_defaults(_CPU)
    def validation(self) -> dict[str, float | None]:
        """Return the evaluation of samples for the history: "log_likelihood", "sigma" and "spread"."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Young generators lie at the edge of the grid of sigmas.
            window = self.window()
        assert window.sigma is not None
        valid = self.density_images(self.splits.valid)
        of_data = health.spread([valid])
        samples = window.samples
        pieces = [samples] if isinstance(samples, Tensor) else map(torch.as_tensor, samples)
        return {
            "log_likelihood": window.log_density(valid, window.sigma).double().mean().item(),
            "sigma": window.sigma,
            "spread": health.spread(pieces) / of_data if of_data > 0 else None,  # where images are all alike
        }

    @own_defaults(_CPU)
    def picture(self) -> bytes:
        """Return samples, always the same, as a PNG file; points of a line or plane are plotted beside the data."""
        if pictures.is_plottable(self.shape):
            data = as_float(self.splits.train.images[:_POINTS])
            return pictures.points_png(self.sample(len(data), self.seed), data)
        return pictures.png(pictures.grid(*samples_in_rows(self, self.seed)))

    @own_defaults(_CPU)
    @torch.no_grad()
    def nearest_training_images(self, images: Tensor) -> Tensor:
        """Return the training image nearest to each image, by the Euclidean distance of pixels: [n, C, H, W] in [0, 1].

        Args:
            images: [n, C, H, W], float32 in [0, 1], on the CPU: samples that may be copies.

        Raises what `splits` raises.
        """
        found = []
        for chunk in self.splits.train.images.split(_NEAREST_AT_ONCE):
            candidates = as_float(chunk)
            distances, indices = nearest(images, candidates)
            found.append((distances[:, 0], candidates[indices[:, 0]]))
        distances, closest = (torch.stack(part) for part in zip(*found, strict=True))
        return closest[distances.argmin(0), torch.arange(len(images))]

    @own_defaults(_CPU)
    def log_likelihood_by_class(self) -> dict[str, ParzenEstimate]:
        """Return the mean of log p(x given c) over the test images of each class c, in nats, by the name of the class.

        It is measured as in `log_likelihood`, but each class has a separate window, on evaluation_samples / classes
        samples of that class; sigma is chosen on the first 1000 validation images of the class. A class without
        validation or test images is left out.

        Raises ValueError if the run is not conditional, and whatever `log_likelihood` raises.
        """
        classes = self.game.classes
        if not classes:
            raise ValueError("log_likelihood_by_class: this run is not conditional; train with conditional=True")
        splits = self.splits
        scores = {}
        for label, name in enumerate(splits.classes or ()):
            valid, test = splits.valid.of_class(label), splits.test.of_class(label)
            if len(valid) and len(test):
                window = self._window(max(1, self.recipe.evaluation_samples // classes), valid, label)
                scores[name] = window.score(self.density_images(test))
        return scores

    def density_images(self, batch: Batch) -> Tensor:
        """Return the images of a split in the scale in which their log-likelihood is measured."""
        images = as_float(batch.images)
        return images if self.game.scale.exact else self.game.scale.apply(images)

    def export(self, path: str | Path) -> Path:
        """Write the generator to a file, and return the path of the file.

        Args:
            path: the file; its suffix selects the format. `.safetensors`: the weights under the names of the module,
                and what `pygan.export.load_generator` needs to build it. `.pt2`: a program of `torch.export`. `.onnx`:
                a model for ONNX, which needs the packages onnx and onnxscript. The last two map noise [n, noise_size],
                and labels [n] if conditional, to images [n, C, H, W] in [0, 1].

        Raises:
            ValueError: another suffix.
            OSError: the file cannot be written.
        """
        from pygan.export import export  # it needs to know what a run is

        return export(self, path)

    def stop(self) -> None:
        """End the training after this epoch; the run is then finished and evaluated. For use in `on_epoch`."""
        self.stopping = True

    def _window(self, n: int, valid: Batch, labels: Any = None) -> ParzenWindow:
        """The window on n samples, its sigma chosen on the first validation images."""
        samples = _Samples(self, n, self._labels(labels, n, _CPU))
        small = n * math.prod(self.shape) * 4 <= WINDOW_BYTES
        window = ParzenWindow(torch.cat(list(samples)) if small else samples)
        return window.fit(self.density_images(valid[:SIGMA_POINTS]), refine=self.recipe.sigma == "refined")

    def _sample(self, n: int, seed: int | None, labels: Any = None) -> Tensor:
        return self.game.sample(
            whole_number("sample: n", n, 1), self._labels(labels, n, _CPU), random_generator("sample: seed", seed)
        )

    def _pictures(self, images: Tensor) -> Tensor:
        return self.game.scale.invert(images).contiguous()

    def _labels(self, labels: Any, n: int, device: torch.device) -> Tensor | None:
        """Labels [n] as the game wants them; ValueError names what is wrong with the user's."""
        if not self.game.classes:
            if labels is not None:
                raise ValueError("labels: this run is not conditional; train with conditional=True")
            return None
        if labels is None:
            return torch.arange(n, device=device) % self.game.classes
        given = torch.as_tensor(labels, device=device)
        if given.is_floating_point() or given.dtype == torch.bool or given.shape not in ((), (n,)):
            raise ValueError(f"labels: must be one int or {n} ints, got {given.dtype} of shape {list(given.shape)}")
        if bool((given < 0).any() or (given >= self.game.classes).any()):
            raise ValueError(f"labels: must lie in 0..{self.game.classes - 1}, got {given.unique().tolist()}")
        return given.long().expand(n)

    @own_defaults(_CPU)
    def _read_splits(self) -> Splits:
        if "sources" not in self.data:
            raise RuntimeError(
                f"run: the data of {self.path} were given in memory and are not stored with it; "
                "use pygan.ParzenWindow(run.sample(10_000)).fit(valid).score(test)"
            )
        splits = pygan.data.load(**self.data["sources"], seed=self.seed)
        if changed := fingerprint.changed(self.data["checksums"], fingerprint.checksums(splits, self.game.classes > 0)):
            raise ValueError(
                f"run: {self.data['sources']['data']} has changed since {self.path} was trained on it: {changed}"
            )
        return splits


class _Samples:
    """The samples that a run is judged by, in pieces; they are drawn anew, and are the same, in each iteration."""

    def __init__(self, run: Run, n: int, labels: Tensor | None) -> None:
        self._run, self._n, self._labels = run, n, labels

    def __iter__(self) -> Iterator[Tensor]:
        run = self._run
        pieces = run.game.sample_pieces(self._n, self._labels, random_generator("seed", run.seed))
        return (run.game.scale.invert(piece) if run.game.scale.exact else piece for piece in pieces)


@own_defaults(_CPU)
def samples_in_rows(run: Run, seed: int | None) -> tuple[Tensor, int | None]:
    """Return the samples of a picture, and how many make a row, None for a square.

    Of a conditional run a row is a class, and a column a noise vector.
    """
    classes = run.game.classes
    if not classes:
        return run.sample(_PICTURES, seed), None
    noise = run.noise(_PICTURES_OF_A_CLASS, seed).repeat(classes, 1)
    labels = torch.arange(classes).repeat_interleave(_PICTURES_OF_A_CLASS)
    return run.generate(noise, labels), _PICTURES_OF_A_CLASS


@own_defaults(_CPU)
def load(
    path: str | Path,
    checkpoint: str | int = "best",
    *,
    generator: nn.Module | None = None,
    discriminator: nn.Module | None = None,
) -> Run:
    """Return the run that a folder holds, on the CPU and in eval mode.

    Args:
        path: the run folder.
        checkpoint: "best", by validation log-likelihood among the epochs whose samples vary most like the data; "last";
            or the number of an epoch that `keep_every` kept, such as 100.
        generator, discriminator: if you trained modules of your own, modules of the same structure; their weights are
            overwritten.

    Raises:
        FileNotFoundError: no such run or checkpoint.
        ValueError: an unknown name of a checkpoint, a damaged file, or a player that must be passed is missing. If only
            the other checkpoint is damaged, a UserWarning says what is lost: epochs of the history.
    """
    folder, checkpoint = RunFolder(path), str(checkpoint)
    config = read_config(folder)
    recipe, data = config["recipe"], config["data"]
    shape, classes = tuple(data["shape"]), data["classes"]
    for role, given in zip(_PLAYERS, (generator, discriminator), strict=True):
        if given is None and config["players"][role] != OWN_PLAYER:
            raise ValueError(f"load: {path} was trained with {config['players'][role]}; pass one as {role}=")
    if generator is None:
        generator = recipe.model.make_generator(shape, recipe.noise_size, classes)
    if discriminator is None:
        discriminator = recipe.model.make_discriminator(shape, classes)
    if set(config["players"].values()) == {OWN_PLAYER}:
        generator, discriminator = (recipe.model.place(player, _CPU) for player in (generator, discriminator))
    state = folder.read_checkpoint(checkpoint)
    if state is None:
        yet = "" if folder.is_finished() else " yet"
        kept = ", ".join(folder.kept_checkpoints()) or "none"
        raise FileNotFoundError(f"load: {folder.path} has no checkpoint {checkpoint!r}{yet}; kept: {kept}")
    load_weights(folder, checkpoint, state, generator, discriminator)
    states = folder.read_checkpoints({checkpoint: state})
    for name, (_, progress) in states.items():
        check_tables(progress, {"history": list[dict[str, Any]]}, folder.checkpoint_path(name))
    history = max((progress["history"] for _, progress in states.values()), key=len)
    scale = dict(data["scale"])
    game = Game(
        generator.eval(),
        discriminator.eval(),
        shape,
        recipe.objective,
        recipe.noise,
        recipe.noise_size,
        find("scale", scale.pop("name"), SCALES)(**scale),
        classes,
    )
    own = own_roles(config["players"])
    return Run(game, recipe, folder.path, config["seed"], data, history, None, config.get("threads"), own)


def load_weights(
    folder: RunFolder, checkpoint: str, state: Checkpoint, generator: nn.Module, discriminator: nn.Module
) -> None:
    """Overwrite the players' weights by those of a checkpoint; the averaged generator's, if there is one."""
    tensors, _ = state
    averaged = any(name.startswith("averaged.module.") for name in tensors)
    parts: dict[str, Part] = {"averaged.module" if averaged else "generator": generator, "discriminator": discriminator}
    take_over(parts, tensors, f"{folder.checkpoint_path(checkpoint)} (settings: {folder.path / 'config.toml'})")


def player_name(player: nn.Module | None) -> str:
    """How config.toml names a player; None stands for the one that the recipe describes."""
    return OWN_PLAYER if player is None else f"{type(player).__module__}.{type(player).__qualname__}"


def own_roles(names: Mapping[str, str]) -> tuple[str, ...]:
    """The players that are the user's modules, by what config.toml calls them."""
    return tuple(role for role in _PLAYERS if names[role] != OWN_PLAYER)


def make_config(
    seed: int, threads: int, recipe: Recipe, data: dict[str, Any], players: Mapping[str, nn.Module | None]
) -> dict[str, Any]:
    """Return what config.toml holds; `read_config` reads it."""
    names = {role: player_name(player) for role, player in players.items()}
    own = own_roles(names)
    return {
        "format": FORMAT,
        "seed": seed,
        "threads": threads,
        "recipe": recipe.flat(own),
        "data": data,
        "players": names,
    }


def refuse_changes(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the setting, unless a run that was started with `before` can continue with `now`.

    Both are contents of config.toml, except that the recipe of `before` is a `Recipe`.
    """
    own = own_roles(before["players"])
    old_settings = {"seed": before["seed"], **before["players"], **before["recipe"].flat(own)}
    new_settings = {"seed": now["seed"], **now["players"], **now["recipe"]}
    old_settings["classes"], new_settings["classes"] = before["data"]["classes"], now["data"]["classes"]
    for name in old_settings | new_settings:
        old, new = old_settings.get(name), new_settings.get(name)
        if new != old and not (name == "epochs" and now["recipe"]["epochs"] > before["recipe"].epochs):
            rule = "epochs may only grow" if name == "epochs" else "only epochs may change"
            if name not in ("epochs", *own_roles(before["players"]), *own_roles(now["players"])):
                rule += f": leave {_ARGUMENTS.get(name, name)} out, and it stays as it was"
            raise ValueError(f"train: {name} was {old!r} in {path}, got {new!r}; to resume, {rule}")
    if changed := fingerprint.changed(before["data"]["checksums"], now["data"]["checksums"]):
        raise ValueError(f"train: data must be the same as at the start of the run in {path}: {changed}")


def left_open(out: str | Path | None, name: str) -> dict[str, Any]:
    """Return the arguments of `train` that a run to be resumed was begun with, for those that are not passed again.

    Empty where no game has begun. The data, if they were not in memory, and their sources are among them.

    Args:
        out: the folder, or None for the last of runs/<name>, runs/<name>-2, ...
        name: of the data.
    """
    config = begun_with(out, name)
    if not config or "task" in config:  # which `read_config` refuses
        return {}
    check_tables(config, _CONFIG, Path(out or "runs") / "config.toml")
    data = config["data"]
    return {**data.get("sources", {}), "seed": config["seed"], "conditional": data.get("classes", 0) > 0}


def read_config(folder: RunFolder) -> dict[str, Any]:
    """Return the settings at the start of the run: "seed", the `Recipe` "recipe", tables "data" and "players"."""
    config = folder.read_config()
    if "task" in config:
        task = config["task"]
        raise ValueError(
            f"{folder.path} holds what pygan.{task} has trained, and no game; in Python it is returned by the same "
            f"call with this folder: pygan.{task}.train(..., out=..., resume=True)"
        )
    check_tables(config, _CONFIG, folder.path / "config.toml")
    try:
        recipe = recipe_of(config["recipe"], config.get("format", 1))
    except (TypeError, ValueError) as error:
        path = folder.path / "config.toml"
        raise ValueError(f"{path} is malformed, or of another version of pygan: {error}") from None
    return {**config, "recipe": recipe, "data": {"classes": 0, "scale": {"name": "unit"}, **config["data"]}}


def read_result(folder: RunFolder) -> dict[str, Any] | None:
    """Return what result.json holds, or None for a run that is not finished.

    Entries that version 0.1 did not write may be missing.

    Raises:
        DamagedError: a number is none, or too large.
    """
    result = folder.read_result()
    if result is None:
        return None
    path, rows = folder.path / "result.json", result.get("reference_log_likelihood")
    check_numbers({name: result.get(name) for name in _NUMBERS}, path, {"seconds": 0})
    check_numbers(rows if isinstance(rows, Mapping) else {"reference_log_likelihood": rows}, path)
    return result


def summary(folder: RunFolder) -> str:
    """Return the result of a finished run as text: the log-likelihood, and the numbers to compare it with."""
    result = read_result(folder) or {}
    check_tables(result, _RESULT, folder.path / "result.json")
    mean, error = (math.nan if result[name] is None else result[name] for name in ("log_likelihood", "standard_error"))
    return (
        f"{folder.path}: {mean:.1f} +- {error:.1f} nats on the test split, "
        f"at epoch {result['best_epoch']} of {result['epochs']}" + _beside(result)
    )


def _beside(result: Mapping[str, Any]) -> str:
    """The numbers to compare a log-likelihood with. Results of version 0.1 have none of them."""
    lines = []
    rows = result.get("reference_log_likelihood")
    if isinstance(rows, Mapping) and rows:
        scores = ", ".join(f"{name} {score:.1f}" for name, score in rows.items() if isinstance(score, int | float))
        lines.append(f"For comparison, scores of other images in place of samples: {scores}.")
        best = rows.get("training images")
        if isinstance(best, int | float) and (result["log_likelihood"] or -math.inf) > best:
            lines.append("A score above that of the training images is not a success: blurred samples reach it too.")
    spread = result.get("spread")
    if isinstance(spread, int | float):
        lines.append(f"The samples vary {spread:.2f} times as much as the data.")
        if spread < health.LEAST_SPREAD:
            mean = rows.get("their mean") if isinstance(rows, Mapping) else None
            high = not isinstance(mean, int | float) or (result["log_likelihood"] or -math.inf) >= mean
            misled = ", so the log-likelihood is misleadingly high" if high else ""
            lines.append(f"They are much alike{misled}: look at the pictures.")
    return "".join(f"\n  {line}" for line in lines)


def recipe_of(settings: Mapping[str, Any], version: int) -> Recipe:
    """Return the recipe that a table of config.toml describes, of this version of the format.

    Version 1 wrote unused settings too, and always halved D's loss.
    """
    if version == FORMAT:
        return Recipe().with_settings(**settings)
    if version != 1:
        raise ValueError(f"its format is {version}; this version reads 1 and {FORMAT}")
    unused = {"momentum": ("adam_beta1", "adam_beta2"), "adam": ("momentum", "momentum_final", "momentum_epochs")}
    kept = {name: value for name, value in settings.items() if name not in unused[settings["optimizer"]]}
    return Recipe().with_settings(**kept, discriminator_loss_scale="half")


def _device(module: nn.Module) -> torch.device:
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
