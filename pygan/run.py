"""The run folder, and the run that it holds.

    runs/mnist/config.toml              every setting, the data, the players
    runs/mnist/log.jsonl                one line for each epoch
    runs/mnist/samples/0005.png         samples after epoch 5, always from the same noise
    runs/mnist/checkpoints/             last.safetensors and best.safetensors
    runs/mnist/result.json              the log-likelihood, and all that it depends on; written at the end

Files are replaced as a whole: written beside, flushed to the disk, renamed. Whoever reads a folder whose run was
killed, at whatever moment, finds the old file or the new one.
"""

import hashlib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pygan.data
from pygan import models
from pygan.data import Splits, as_float
from pygan.evaluate import ParzenEstimate, ParzenWindow
from pygan.optim import with_prefix
from pygan.recipes import Recipe

__all__ = ["SIGMA_POINTS", "Run", "RunFolder", "choose_folder", "describe_data", "load", "load_weights", "player_name"]

SIGMA_POINTS = 1000  # The authors' script chooses sigma on the first 1000 validation points.
_SPLITS = ("train", "valid", "test")
_CONFIG = {  # what config.toml must hold, a table before what is in it
    "seed": int,
    "recipe": dict,
    "data": dict,
    "data.shape": list,
    "data.checksums": dict,
    **{f"data.checksums.{split}": str for split in _SPLITS},
    "players": dict,
    "players.generator": str,
    "players.discriminator": str,
}
OWN_PLAYER = "the recipe's"  # in config.toml, where no module of the user's takes the player's place
_BEFORE_CONFIG = (".lock", "config.toml.part")  # What a run that was killed at its very start leaves.


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
        return window.fit(as_float(self._splits().valid.images[:SIGMA_POINTS]))

    def log_likelihood(self) -> ParzenEstimate:
        """Mean log-likelihood of the test split in nats, by the protocol of 2014: sigma from the validation split.

        Raises, if the run was loaded, RuntimeError where its data were in memory only, and ValueError where they are
        not the same any more.
        """
        return self.window().score(as_float(self._splits().test.images))

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
            if changed := _changed(self.data["checksums"], _checksums(splits)):
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
        ValueError: another name of a checkpoint, a malformed file, or players that have to be given.
    """
    folder = RunFolder(Path(path))
    config = folder.read_config()
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
    _, progress = folder.read_checkpoint("last") or folder.read_checkpoint(checkpoint) or ({}, {"history": []})
    return Run(
        players["generator"].eval(),
        players["discriminator"].eval(),
        recipe,
        progress["history"],
        folder.path,
        config["seed"],
        tuple(data["shape"]),
        None,
        data,
    )


def load_weights(folder: "RunFolder", checkpoint: str, generator: nn.Module, discriminator: nn.Module) -> None:
    """Overwrite the players' weights by those of a checkpoint; the averaged generator's, if there is one."""
    state = folder.read_checkpoint(checkpoint)
    if state is None:
        raise FileNotFoundError(f"load: {folder.path} has no checkpoint {checkpoint!r} yet")
    tensors, _ = state
    generator.load_state_dict(with_prefix(tensors, "averaged.module.") or with_prefix(tensors, "generator."))
    discriminator.load_state_dict(with_prefix(tensors, "discriminator."))


class RunFolder:
    """The files of one run: what is where, and how it is written so that nothing is lost."""

    def __init__(self, path: Path, made: bool = False) -> None:
        self.path = path
        self._made = made  # by this process, and for this run

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, or raise RuntimeError if another process does. A killed process holds nothing.

        If an error ends this before a run was begun here, the folder is left as it was found.
        """
        import filelock  # here, as the others below: `import pygan` needs torch and numpy alone

        if not self.path.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            self._made = True
        try:
            with filelock.FileLock(self.path / ".lock", timeout=0):
                try:
                    yield
                except BaseException:
                    if not self.holds_run():
                        self._clear()
                    raise
        except filelock.Timeout:
            raise RuntimeError(
                f"train: another process is training in {self.path}; wait for it, or choose another out="
            ) from None

    def _clear(self) -> None:
        """Take away what a start that failed has left, and the folder if it was made for it."""
        for name in _BEFORE_CONFIG:
            (self.path / name).unlink(missing_ok=True)
        if self._made and not any(self.path.iterdir()):
            self.path.rmdir()

    def holds_run(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "config.toml").exists()

    def is_finished(self) -> bool:
        """Whether the run went through to its result."""
        return (self.path / "result.json").exists()

    def read_config(self) -> dict[str, Any]:
        """The settings that the run was begun with: "seed", the `Recipe` "recipe", and tables "data", "players"."""
        path = self.path / "config.toml"
        if not path.exists():
            raise FileNotFoundError(f"load: {self.path} holds no run (it has no config.toml)")
        try:
            config = tomllib.loads(path.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is malformed: {error}") from None
        for key, kind in _CONFIG.items():
            value: Any = config
            for name in key.split("."):
                value = value.get(name)
            if type(value) is not kind:
                raise ValueError(f"{path} is malformed: {key} must be of type {kind.__name__}, got {value!r}")
        try:
            return {**config, "recipe": Recipe().with_settings(**config["recipe"])}
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} is malformed, or of another version of pygan: {error}") from None

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Store what `read_config` returns."""
        import tomli_w

        _write(self.path / "config.toml", tomli_w.dumps({**config, "recipe": asdict(config["recipe"])}).encode())

    def write_log(self, lines: list[dict[str, Any]]) -> None:
        """Start the log anew with these lines: what a resumed run remembers."""
        _write(self.path / "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())

    def append_log(self, line: dict[str, Any]) -> None:
        """Add one line to the log."""
        with (self.path / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")

    def summary(self) -> str:
        """The result of a finished run in one line."""
        result = json.loads((self.path / "result.json").read_text())
        return (
            f"{self.path}: {result['log_likelihood']:.1f} +- {result['standard_error']:.1f} nats on the test split, "
            f"at epoch {result['best_epoch']} of {result['epochs']}"
        )

    def write_result(self, result: Mapping[str, Any] | None) -> None:
        """Store the result; None takes back that of a run that now goes on."""
        path = self.path / "result.json"
        if result is None:
            path.unlink(missing_ok=True)
        else:
            _write(path, (json.dumps(result, indent=2) + "\n").encode())

    def write_checkpoint(self, name: str, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Store "last" or "best": named tensors, and what JSON can hold."""
        import safetensors.torch

        # Copies, because safetensors refuses tensors that share memory, as tied weights do.
        copies = {
            key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()
        }
        path = self._checkpoint(name)
        path.parent.mkdir(exist_ok=True)
        _write(path, safetensors.torch.save(copies, {"progress": json.dumps(progress)}))

    def refuse_changes(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Raise ValueError, naming the setting, unless a run begun with `before` can go on with `now`."""
        flat = [{"seed": c["seed"], **asdict(c["recipe"]), **c["players"]} for c in (before, now)]
        for name, old in flat[0].items():
            new = flat[1][name]
            if new != old and not (name == "epochs" and new > old):
                rule = "epochs may only grow" if name == "epochs" else "only epochs may change"
                raise ValueError(f"train: {name} was {old!r} in {self.path}, got {new!r}; to resume, {rule}")
        if changed := _changed(before["data"]["checksums"], now["data"]["checksums"]):
            raise ValueError(f"train: data must be those that the run in {self.path} was begun with: {changed}")

    def read_checkpoint(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What `write_checkpoint` stored, on the CPU, or None if there is none."""
        import safetensors

        path = self._checkpoint(name)
        if not path.exists():
            return None
        try:
            with safetensors.safe_open(path, "pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dictionary)
                return tensors, json.loads(file.metadata()["progress"])
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a checkpoint of pygan, or damaged: {error}") from None

    def samples(self, epoch: int) -> Path:
        """Where the picture of an epoch goes."""
        return self.path / "samples" / f"{epoch:04}.png"

    def _checkpoint(self, name: str) -> Path:
        if name not in ("last", "best"):
            raise ValueError(f"checkpoint must be 'best' or 'last', got {name!r}")
        return self.path / "checkpoints" / f"{name}.safetensors"


def choose_folder(out: str | Path | None, name: str, resume: bool) -> RunFolder:
    """The folder `out`, or the next free one of runs/<name>, runs/<name>-2, ...; to resume, the last of these.

    Raises ValueError if the folder holds a run that is not to be resumed, or anything that is no run.
    """
    if out is None:
        number, last = 1, None
        while True:
            path = Path("runs", name if number == 1 else f"{name}-{number}")
            if resume and last and not path.exists():
                out = last
                break
            try:
                path.mkdir(parents=True)  # Fails for all but one of several processes that want the same name.
                return RunFolder(path, made=True)
            except FileExistsError:
                number, last = number + 1, path
    folder = RunFolder(Path(out))
    if folder.holds_run():
        if not resume:
            raise ValueError(f"train: {out} holds a run; resume=True continues it, another out= starts a new one")
    elif folder.path.exists() and any(entry.name not in _BEFORE_CONFIG for entry in folder.path.iterdir()):
        raise ValueError(f"train: {out} is not empty and holds no run; choose another out=")
    return folder


def describe_data(splits: Splits, **sources: Any) -> dict[str, Any]:
    """The data as config.toml has them: enough to know them again, and to load them if they came from files.

    Args:
        splits: the data.
        **sources: arguments of `pygan.data.load` that led to them.
    """
    described: dict[str, Any] = {
        "name": splits.name,
        "shape": list(splits.shape),
        "train": len(splits.train),
        "valid": len(splits.valid),
        "test": len(splits.test),
        "protocol": splits.protocol,
        "checksums": _checksums(splits),
    }
    given = {name: source for name, source in sources.items() if source is not None}
    if all(isinstance(source, str | Path) for source in given.values()):
        # Absolute, so that the run can be evaluated from another folder.
        described["sources"] = {
            name: source if source in pygan.data.NAMED else str(Path(source).expanduser().absolute())
            for name, source in given.items()
        }
    return described


def _checksums(splits: Splits) -> dict[str, str]:
    """The sha256 of each split: its dtype, its shape and its numbers."""
    checksums = {}
    for name in _SPLITS:
        images = getattr(splits, name).images.contiguous()
        digest = hashlib.sha256(f"{images.dtype} {tuple(images.shape)} ".encode())
        digest.update(images.numpy().data)
        checksums[name] = digest.hexdigest()
    return checksums


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Which splits differ, in words; empty if none does."""
    changed = [name for name in _SPLITS if before[name] != now[name]]
    return f"other images in {', '.join(changed)}" if changed else ""


def player_name(player: nn.Module | None) -> str:
    """How config.toml names a player; None stands for the one that the recipe describes."""
    return OWN_PLAYER if player is None else f"{type(player).__module__}.{type(player).__qualname__}"


def _write(path: Path, content: bytes) -> None:
    """Replace a file as a whole, so that a crash at any moment leaves the old one or the new one."""
    beside = path.with_name(f"{path.name}.part")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
