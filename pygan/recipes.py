"""Every setting of a training run in one dataclass, and the named recipes as values of it.

`paper2014` is Algorithm 1 of Goodfellow et al. 2014 (arXiv 1406.2661); `code2014` is what the authors' released code
ran. They differ in the update: the paper's alternates, each player on noise of its own; the code's moves both players
at once, from one batch of samples, and D by half the gradient.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple, Self, get_args, get_origin, get_type_hints

from pygan._nearest import nearest

__all__ = ["RECIPES", "Rates", "Recipe", "find"]

MNIST_PIXELS = 784

_AT_LEAST_ONE = ("at least 1", lambda value: value >= 1)
_NOT_NEGATIVE = ("at least 0", lambda value: value >= 0)
_POSITIVE = ("greater than 0", lambda value: value > 0)
_BELOW_ONE = ("in [0, 1)", lambda value: 0 <= value < 1)
_KEPT = ("in (0, 1]", lambda value: 0 < value <= 1)
_SIZES = ("at least one size, each at least 1", lambda value: len(value) > 0 and min(value) >= 1)
_ANYTHING = ("anything", lambda value: True)


def _setting(default: Any, help: str, rule: tuple[str, Callable[[Any], bool]] = _ANYTHING) -> Any:
    return field(default=default, metadata={"help": help, "rule": rule})


class Rates(NamedTuple):
    """What the optimisers use in one update: both learning rates and the momentum, as doubles."""

    generator_lr: float
    discriminator_lr: float
    momentum: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a training run. The defaults are those of `code2014` on MNIST.

    Raises TypeError or ValueError, naming the setting, what was expected and what came, when a value is impossible.
    """

    name: str = _setting("custom", "name of the recipe that the settings started from")
    epochs: int = _setting(250, "passes over the training images", _AT_LEAST_ONE)
    batch_size: int = _setting(100, "images, and samples, in one update of a player", _AT_LEAST_ONE)

    updates: Literal["alternating", "simultaneous"] = _setting(
        "simultaneous", "alternating: k discriminator updates, then the generator's; simultaneous: both from one batch"
    )
    k: int = _setting(1, "discriminator updates before each generator update (alternating only)", _AT_LEAST_ONE)
    objective: Literal["non_saturating", "saturating", "minimax"] = _setting(
        "non_saturating", "the generator minimises -log D(G(z)), or (saturating, alias minimax) log(1 - D(G(z)))"
    )

    noise: Literal["uniform", "normal"] = _setting(
        "uniform", "distribution of the generator's input, of mean 0 and variance 1: U(-sqrt 3, sqrt 3) or N(0, 1)"
    )
    noise_size: int = _setting(100, "numbers in one noise vector", _AT_LEAST_ONE)
    generator_hidden: tuple[int, ...] = _setting((1200, 1200), "units of the generator's ReLU layers", _SIZES)
    generator_range: float = _setting(0.05, "the generator's weights start in U(-range, range)", _POSITIVE)
    discriminator_hidden: tuple[int, ...] = _setting((240, 240), "units of the discriminator's maxout layers", _SIZES)
    pieces: int = _setting(5, "linear pieces of one maxout unit", ("in 1..256", lambda value: 1 <= value <= 256))
    discriminator_range: float = _setting(0.005, "the discriminator's weights start in U(-range, range)", _POSITIVE)
    keep_input: float = _setting(0.8, "share of the discriminator's inputs that dropout keeps", _KEPT)
    keep_hidden: float = _setting(0.5, "share of the inputs of its other layers that dropout keeps", _KEPT)

    gradient_penalty: float = _setting(
        0.0, "R1: half of this times the mean of |grad logit|^2 at the data is added to D's two losses", _NOT_NEGATIVE
    )
    instance_noise: float = _setting(
        0.0, "standard deviation of the normal noise on every image that the discriminator sees", _NOT_NEGATIVE
    )

    optimizer: Literal["momentum", "adam"] = _setting(
        "momentum", "momentum: v <- m v - lr g, p <- p + v; adam: Kingma and Ba's, which ignores the momentum settings"
    )
    generator_lr: float = _setting(0.1, "the generator's learning rate at the start", _POSITIVE)
    discriminator_lr: float = _setting(0.1, "the discriminator's learning rate at the start", _POSITIVE)
    lr_decay: float = _setting(
        1.000004, "both rates are divided by this after each update", ("at least 1", lambda value: value >= 1)
    )
    lr_floor: float = _setting(1e-6, "the division stops at this rate", _NOT_NEGATIVE)
    lr_anneal: Literal["none", "linear", "cosine"] = _setting(
        "none", "how both rates fall, on top, to zero at the end of the run's epochs"
    )
    momentum: float = _setting(0.5, "momentum in the first epoch", _BELOW_ONE)
    momentum_final: float = _setting(0.7, "momentum from epoch momentum_epochs on; linear in between", _BELOW_ONE)
    momentum_epochs: int = _setting(250, "the epoch in which momentum_final is reached", _AT_LEAST_ONE)
    adam_beta1: float = _setting(0.5, "Adam's decay of the mean gradient", _BELOW_ONE)
    adam_beta2: float = _setting(0.999, "Adam's decay of the mean squared gradient", _BELOW_ONE)
    averaging: float = _setting(
        0.0, "decay an update of the generator's average, which is then what is judged and kept; 0 = off", _BELOW_ONE
    )

    precision: Literal["float32", "bf16"] = _setting(
        "float32", "of the matrix products; weights, losses and evaluation stay float32"
    )
    step: Literal["auto", "plain"] = _setting("auto", "auto: the fastest that applies; plain: the reference, in torch")
    deterministic: bool = _setting(False, "use deterministic algorithms only (CUDA; the CPU's always are)")

    evaluate_every: int = _setting(5, "epochs between evaluations on the validation split", _AT_LEAST_ONE)
    evaluation_samples: int = _setting(10_000, "samples that make the Parzen window", _AT_LEAST_ONE)
    samples_every: int = _setting(5, "epochs between pictures of samples", _AT_LEAST_ONE)
    checkpoint_every: int = _setting(1, "epochs between checkpoints", _AT_LEAST_ONE)
    checkpoint_seconds: float = _setting(60.0, "seconds after which a checkpoint is made within an epoch", _POSITIVE)
    tensorboard: bool = _setting(False, "also write TensorBoard files (needs the extra 'tensorboard')")

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for setting in fields(self):
            value = _of_type(setting.name, getattr(self, setting.name), hints[setting.name])
            rule, holds = setting.metadata["rule"]
            if not holds(value):
                raise ValueError(f"{setting.name} must be {rule}, got {value!r}")
            object.__setattr__(self, setting.name, value)
        if self.objective == "minimax":
            object.__setattr__(self, "objective", "saturating")
        if self.updates == "simultaneous" and self.k > 1:
            raise ValueError(f"k must be 1 with simultaneous updates, got {self.k}; updates='alternating' takes any k")
        if self.lr_floor > min(self.generator_lr, self.discriminator_lr):
            raise ValueError(
                f"lr_floor must be at most the learning rates, {self.generator_lr} and {self.discriminator_lr}, "
                f"got {self.lr_floor}"
            )

    def with_settings(self, **settings: Any) -> Self:
        """A copy with some settings changed; an unknown one is a TypeError that names the nearest right one."""
        known = [setting.name for setting in fields(self)]
        for name in settings:
            if name not in known:
                raise TypeError(f"unknown setting {name!r}{nearest(name, known)}")
        return replace(self, **settings)

    def rates(self, update: int, updates_per_epoch: int) -> Rates:
        """The rates of update number `update` (from 0), in double: float32 would be off by 1 % after 250 epochs."""
        epoch = update // updates_per_epoch
        rise = min(1.0, epoch / (self.momentum_epochs - 1)) if self.momentum_epochs > 1 else 1.0
        progress = min(1.0, update / (self.epochs * updates_per_epoch))
        anneal = {"none": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}[self.lr_anneal]
        decay = self.lr_decay**-update
        return Rates(
            anneal * max(self.generator_lr * decay, self.lr_floor),
            anneal * max(self.discriminator_lr * decay, self.lr_floor),
            self.momentum + rise * (self.momentum_final - self.momentum),
        )


def _of_type(name: str, value: Any, hint: Any) -> Any:
    """`value` as the type of its setting: an int will do for a float, a list or one int for a tuple."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{name} must be one of {', '.join(map(repr, get_args(hint)))}, got {value!r}")
        return value
    if hint is float and type(value) is int:
        return float(value)
    if get_origin(hint) is tuple:
        value = tuple(value) if isinstance(value, list | tuple) else (value,)
        if all(type(size) is int for size in value):
            return value
    elif type(value) is hint:
        if hint is float and not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value!r}")
        return value
    expected = "a tuple of ints" if get_origin(hint) is tuple else hint.__name__
    raise TypeError(f"{name} must be {expected}, got {value!r}")


RECIPES: dict[str, Recipe] = {
    # The paper's loss for D is a sum, ours half of it, as the code's: twice the rate makes up for that (decision 0007).
    "paper2014": Recipe(name="paper2014", updates="alternating", discriminator_lr=0.2),
    "code2014": Recipe(name="code2014"),
    "averaged": Recipe(name="averaged", epochs=300, averaging=0.99998),  # our own, see docs/recipe_search.md
    "digits": Recipe(
        name="digits",
        epochs=200,
        noise_size=32,
        generator_hidden=(256, 256),
        discriminator_hidden=(240, 240),
        pieces=3,
        discriminator_range=0.05,
        optimizer="adam",
        generator_lr=0.002,
        discriminator_lr=0.002,
        averaging=0.99,
        samples_every=10,
        checkpoint_every=10,
    ),
}

_DEFAULTS = {"mnist": "code2014", "cifar10": "code2014"}  # Of other data: "digits", which learns from few images.


def find(
    recipe: str | Recipe | None,
    settings: Mapping[str, Any],
    *,
    data: str,
    pixels: int,
    images: int,
    before: Recipe | None = None,
) -> Recipe:
    """The recipe of a run: a named one fitted to the data, with the caller's settings.

    A named recipe is fitted in two ways. Its learning rates are scaled by 784 / pixels for images with more numbers
    than MNIST's: the authors' own rate for CIFAR-10, .025 at 3072, follows that rule. Its batch is no larger than the
    data.

    Args:
        recipe: a name; a `Recipe`, which is taken as it is; or None, for that of `before` or else the data's default.
        settings: fields to change.
        data: name of the data set.
        pixels: numbers in one image.
        images: training images.
        before: what a run that is resumed was begun with; its number of epochs stays unless `settings` has one.

    Raises:
        TypeError, ValueError: an unknown recipe or setting (the message names the nearest right one), or a bad value.
    """
    if recipe is None and before is not None:
        found = before
    elif isinstance(recipe, Recipe):
        found = recipe
    else:
        found = _fitted(_DEFAULTS.get(data, "digits") if recipe is None else recipe, pixels, images)
    if before is not None:
        settings = {"epochs": before.epochs, **settings}
    found = found.with_settings(**settings)
    if found.batch_size > images:
        raise ValueError(f"batch_size must be at most {images}, the number of training images, got {found.batch_size}")
    return found


def _fitted(name: str, pixels: int, images: int) -> Recipe:
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r} ({', '.join(RECIPES)}){nearest(name, RECIPES)}")
    recipe = RECIPES[name]
    scale = min(1.0, MNIST_PIXELS / pixels)
    return replace(
        recipe,
        generator_lr=recipe.generator_lr * scale,
        discriminator_lr=recipe.discriminator_lr * scale,
        batch_size=min(recipe.batch_size, images),
    )
