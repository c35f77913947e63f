"""Recipes: all settings of a training run by name, and the named recipes as values.

`paper2014` is Algorithm 1 of Goodfellow et al. 2014 (arXiv 1406.2661). `code2014` is what the authors' released code
ran. They differ in the update and in the discriminator's loss. The paper's update alternates, each player on noise of
its own, and D's loss is a sum. The code moves both players at once, from one batch of samples, and D's loss is half
that sum.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple, Self, get_args, get_origin, get_type_hints

from pygan._nearest import nearest
from pygan.algorithm import ALGORITHMS
from pygan.data import Splits
from pygan.data.scaling import SCALES
from pygan.models import DCGAN, MLP, MODELS, ConditionalMLP, MaxoutConvolutional, MaxoutMLP, Model, ReluSigmoidMLP
from pygan.models.dcgan import fits_dcgan
from pygan.noise import NOISES
from pygan.objectives import OBJECTIVES, NonSaturating, Objective, Relativistic, Wasserstein, WassersteinPenalty
from pygan.optim import OPTIMIZERS, AdamSettings, MomentumSettings, OptimizerSettings, Rates, RMSpropSettings
from pygan.pictures import is_plottable
from pygan.settings import AT_LEAST_ONE, BELOW_ONE, NOT_NEGATIVE, POSITIVE, Settings, find, setting

__all__ = [
    "PARTS",
    "RECIPES",
    "KnownSetting",
    "Recipe",
    "default_recipe",
    "every_part",
    "find_recipe",
    "known_settings",
    "named_recipe",
    "start_of",
]

# The settings that name a part with settings of its own, and the parts by name.
_PART_HELP = {
    "objective": "what both players minimise; saturating and minimax are one",
    "optimizer": "the update rule: momentum, v <- m v - lr g, p <- p + v; Adam; or RMSprop",
    "model": "the architecture of both players",
}
PARTS: dict[str, Mapping[str, type[Any]]] = {"objective": OBJECTIVES, "optimizer": OPTIMIZERS, "model": MODELS}
"""The parts of a recipe that are chosen by name, and for each the registry that holds its choices."""


@dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """All settings of a training run: its own, and those of its objective, update rule and model.

    Every setting has a name of its own, by which `with_settings`, `pygan.train`, the command line and config.toml know
    it; `recipe.k` and `recipe.pieces` read them alike. The defaults are those of `code2014` on MNIST.

    Raises TypeError or ValueError, naming the setting, what was expected and what came, when a value is impossible.
    """

    name: str = setting("custom", "name of the recipe that the settings started from")
    epochs: int = setting(250, "maximal number of passes over the training images", AT_LEAST_ONE)
    patience: int = setting(
        0, "stop when the validation log-likelihood has not risen for so many epochs; 0 = never", NOT_NEGATIVE
    )
    least_updates: int = setting(
        0, "minimum of iterations: few images get more epochs, unless epochs is given", NOT_NEGATIVE
    )
    batch_size: int = setting(100, "real images, and as many samples, in one update", AT_LEAST_ONE)

    updates: str = setting(
        "simultaneous",
        "alternating: k discriminator updates, then the generator's; simultaneous: both from one batch",
        choices=ALGORITHMS,
    )
    k: int = setting(1, "discriminator updates before each generator update (alternating only)", AT_LEAST_ONE)
    objective: Objective = field(default_factory=lambda: NonSaturating(discriminator_loss_scale="half"))
    instance_noise: float = setting(
        0.0, "standard deviation of the normal noise on every image that the discriminator sees", NOT_NEGATIVE
    )

    model: Model = field(default_factory=MaxoutMLP)
    pixels: str = setting(
        "unit",
        "the pixel scale that both players see: unit, [0, 1]; signed, [-1, 1]; standard, mean 0 and deviation 1 over "
        "all values; gcn, each image normalised",
        choices=SCALES,
    )
    flip: bool = setting(False, "mirror training images left to right, at random; for photographs, not for digits")
    noise: str = setting(
        "uniform",
        "the generator's input: uniform, U(-sqrt 3, sqrt 3); normal, N(0, 1); unit_uniform, U(-1, 1)",
        choices=NOISES,
    )
    noise_size: int = setting(100, "numbers in one noise vector", AT_LEAST_ONE)

    optimizer: OptimizerSettings = field(default_factory=MomentumSettings)
    generator_lr: float = setting(0.1, "the generator's learning rate at the start", POSITIVE)
    discriminator_lr: float = setting(0.1, "the discriminator's learning rate at the start", POSITIVE)
    lr_decay: float = setting(1.000004, "both rates are divided by this after each update", AT_LEAST_ONE)
    lr_floor: float = setting(1e-6, "the division stops at this rate", NOT_NEGATIVE)
    lr_anneal: Literal["none", "linear", "cosine"] = setting(
        "none", "how both rates additionally fall to zero until the last epoch"
    )
    averaging: float = setting(
        0.0,
        "decay per update of the generator's averaged weights, which are then evaluated; 0 = off",
        BELOW_ONE,
    )

    precision: Literal["float32", "bf16"] = setting(
        "float32", "of the matrix products; weights, losses and evaluation stay float32"
    )
    step: Literal["auto", "plain"] = setting("auto", "auto: the fastest step for a game; plain: the reference")
    products: Literal["auto", "torch", "onednn"] = setting(
        "auto", "library of the fused step's matrix products on the CPU; auto measures which is the faster one"
    )
    batch_norm: Literal["synchronised", "local"] = setting(
        "synchronised",
        "batch norm's statistics in training with several processes: of the whole batch, or of each process's rows",
    )
    deterministic: bool = setting(False, "use deterministic algorithms only (CUDA; the CPU's always are)")

    evaluate_every: int = setting(5, "epochs between evaluations on the validation split", AT_LEAST_ONE)
    evaluation_samples: int = setting(10_000, "samples that make the Parzen window", AT_LEAST_ONE)
    sigma: Literal["grid", "refined"] = setting(
        "grid", "the window's bandwidth: grid, the best of the paper's ten from .1 to 1; refined, the best of all"
    )
    samples_every: int = setting(5, "epochs between pictures of samples", AT_LEAST_ONE)
    checkpoint_every: int = setting(1, "epochs between checkpoints", AT_LEAST_ONE)
    keep_every: int = setting(0, "epochs between checkpoints that are kept permanently; 0 = none", NOT_NEGATIVE)
    checkpoint_seconds: float = setting(60.0, "seconds after which a checkpoint is made within an epoch", POSITIVE)
    tensorboard: bool = setting(False, "also write TensorBoard files (needs the extra 'tensorboard')")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.updates == "simultaneous" and self.k > 1:
            raise ValueError(
                f"k must be 1 with updates='simultaneous', got {self.k}; updates='alternating' takes any k"
            )
        if self.lr_floor > min(self.generator_lr, self.discriminator_lr):
            raise ValueError(
                f"lr_floor must be at most the learning rates, {self.generator_lr} and {self.discriminator_lr}, "
                f"got {self.lr_floor}"
            )

    def __getattr__(self, name: str) -> Any:
        """A setting of the objective, update rule or model."""
        if not name.startswith("_"):
            for part in PARTS:
                of = self.__dict__.get(part)
                if of is not None and name in of.flat():
                    return getattr(of, name)
        raise AttributeError(f"Recipe has no setting {name!r}")

    def flat(self, own: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return every setting by name, parts by their names: what config.toml holds.

        Args:
            own: players ("generator", "discriminator") that are the user's modules; the settings that describe them
                are left out.
        """
        named: dict[str, Any] = {}
        for known in fields(self):
            value = getattr(self, known.name)
            if known.name not in PARTS:
                named[known.name] = value
            elif known.name != "model" or len(own) < 2:
                named[known.name] = value.name
                named |= {of.name: getattr(value, of.name) for of in fields(value) if of.metadata["player"] not in own}
        return named

    def with_settings(self, **settings: Any) -> Self:
        """Return a copy with some settings changed.

        "objective", "optimizer" and "model" take a name; settings that the new part shares with the old one are kept.
        An unknown setting is a TypeError that names the nearest right one.
        """
        changed: dict[str, Any] = {}
        rest = dict(settings)
        for kind, registry in PARTS.items():
            part = getattr(self, kind)
            if kind in rest:
                part = _switched(part, find(kind, rest.pop(kind), registry))
            mine = {name: rest.pop(name) for name in part.flat() if name in rest}
            changed[kind] = replace(part, **mine)
        own = [known.name for known in fields(self)]
        for name in rest:
            if name not in own:
                raise TypeError(self._unknown(name, [*own, *changed]))
        return replace(self, **changed, **rest)

    def rates(self, update: int, updates_per_epoch: int) -> Rates:
        """Return the rates of update number `update` (from 0), in double: float32 is off by 1 % after 250 epochs."""
        progress = min(1.0, update / (self.epochs * updates_per_epoch))
        anneal = {"none": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}[self.lr_anneal]
        decay = self.lr_decay**-update
        return Rates(
            anneal * max(self.generator_lr * decay, self.lr_floor),
            anneal * max(self.discriminator_lr * decay, self.lr_floor),
            self.optimizer.momentum_at(update // updates_per_epoch),
        )

    def _unknown(self, name: str, own: list[str]) -> str:
        """The message about a setting that this recipe has not: whose it is, or what is nearest."""
        elsewhere = [
            f"{kind}={key!r}" for kind, key, part in every_part() if name in {known.name for known in fields(part)}
        ]
        if elsewhere:
            return f"the setting {name!r} goes with {' or '.join(elsewhere)}, which this recipe does not use"
        known = [*own, *(of.name for kind in PARTS for of in fields(getattr(self, kind)))]
        return f"unknown setting {name!r}{nearest(name, known)}"


class KnownSetting(NamedTuple):
    """A setting that some recipe may have.

    Attributes:
        help: one line.
        hint: its type.
        choices: its values, if they are names.
    """

    help: str
    hint: Any
    choices: tuple[str, ...] | None


def known_settings() -> dict[str, KnownSetting]:
    """Return every setting that `Recipe.with_settings` takes with some objective, update rule and model, by name."""
    known: dict[str, KnownSetting] = {}
    owners: list[type[Any]] = [Recipe, *(part for _, _, part in every_part())]
    for owner in owners:
        hints = get_type_hints(owner)
        for of in fields(owner):
            if of.name in PARTS:
                known[of.name] = KnownSetting(_PART_HELP[of.name], str, tuple(PARTS[of.name]))
            elif of.name != "name" and of.name not in known:
                choices, hint = of.metadata["choices"], hints[of.name]
                if get_origin(hint) is Literal:
                    choices = get_args(hint)
                known[of.name] = KnownSetting(of.metadata["help"], hint, None if choices is None else tuple(choices))
    return known


def every_part() -> Iterator[tuple[str, str, type[Any]]]:
    """Every part that a recipe may have: its kind, its name, its settings' class."""
    return ((kind, key, part) for kind, registry in PARTS.items() for key, part in registry.items())


def _switched(before: Any, kind: type[Any]) -> Any:
    """A part of another kind, with the settings that both have."""
    if type(before) is kind:
        return before
    shared = {known.name for known in fields(kind)}
    return kind(**{name: value for name, value in before.flat().items() if name in shared})


_TO_THE_PLATEAU: dict[str, Any] = {"epochs": 2500, "patience": 100}  # The authors' file has no stopping criterion.

_CONVOLUTIONAL = Recipe(  # Radford, Metz and Chintala 2016 (arXiv 1511.06434)
    epochs=25,
    batch_size=128,
    updates="alternating",
    objective=NonSaturating(),
    model=DCGAN(),
    pixels="signed",
    noise="unit_uniform",
    optimizer=AdamSettings(),
    generator_lr=2e-4,
    discriminator_lr=2e-4,
    lr_decay=1.0,
    samples_every=1,
)

# What the authors' files for CIFAR-10 and for TFD have in common: they are `code2014` but for these settings. A
# checkpoint has 600 MB to 1 GB, so there are fewer. No published figure rests on the grid of sigmas for gcn.
_CIFAR = Recipe(
    pixels="gcn",
    noise="normal",
    model=ReluSigmoidMLP(),
    sigma="refined",
    evaluate_every=10,
    samples_every=10,
    checkpoint_every=10,
    checkpoint_seconds=600.0,
    **_TO_THE_PLATEAU,
)
_FACES_MODEL = ReluSigmoidMLP(
    generator_output="sigmoid", sigmoid_bias=-2.0, output_sparse=100, discriminator_hidden=(1200, 1200)
)
_FACES = Recipe(
    noise="normal",
    model=_FACES_MODEL,
    checkpoint_every=5,
    checkpoint_seconds=600.0,
    optimizer=MomentumSettings(max_column_norm=1.9365),
    generator_lr=0.05,
    discriminator_lr=0.05,
)

# What the recipes "wgan", "wgan_gp" and "relativistic" share: plain nets with a linear output, and alternating updates.
_PLAIN = Recipe(
    epochs=300,
    batch_size=64,
    updates="alternating",
    model=MLP(),
    pixels="standard",
    noise="normal",
    noise_size=16,
    lr_decay=1.0,
    sigma="refined",  # the details of points in the plane are finer than the authors' grid
    evaluate_every=20,
    samples_every=20,
    checkpoint_every=10,
)

RECIPES: dict[str, Recipe] = {
    "paper2014": Recipe(
        name="paper2014",
        updates="alternating",
        objective=NonSaturating(discriminator_loss_scale="sum"),
        **_TO_THE_PLATEAU,
    ),
    "code2014": Recipe(name="code2014", **_TO_THE_PLATEAU),
    "cifar2014": replace(_CIFAR, name="cifar2014", generator_lr=0.025, discriminator_lr=0.025),
    "cifar2014_convolutional": replace(
        _CIFAR,
        name="cifar2014_convolutional",
        model=MaxoutConvolutional(),
        batch_size=128,
        generator_lr=0.004,
        discriminator_lr=0.004,
    ),
    # TFD has 980 updates in an epoch. Of fewer faces there are more epochs, with two fifths of its updates at least.
    "tfd2014": replace(_FACES, name="tfd2014", epochs=50, least_updates=20_000),
    "tfd2014_phase2": replace(
        _FACES,
        name="tfd2014_phase2",
        epochs=22,
        least_updates=8_800,
        model=replace(_FACES_MODEL, front_units=8000),
    ),
    "averaged": Recipe(name="averaged", epochs=300, averaging=0.99998),  # our own, see docs/recipe_search.md
    "digits": Recipe(
        name="digits",
        epochs=200,
        least_updates=2800,
        noise_size=32,
        model=MaxoutMLP(
            generator_hidden=(256, 256), discriminator_hidden=(240, 240), pieces=3, discriminator_range=0.05
        ),
        optimizer=AdamSettings(),
        generator_lr=0.002,
        discriminator_lr=0.002,
        averaging=0.99,
        samples_every=10,
        checkpoint_every=10,
    ),
    "conditional2014": Recipe(  # Mirza and Osindero 2014 (arXiv 1411.1784), which gives no length: patience has it
        name="conditional2014", epochs=300, patience=50, model=ConditionalMLP(), lr_decay=1.00004
    ),
    "dcgan": replace(_CONVOLUTIONAL, name="dcgan"),
    "wgan": replace(
        _PLAIN,
        name="wgan",
        k=5,
        objective=Wasserstein(),
        optimizer=RMSpropSettings(),
        generator_lr=5e-5,
        discriminator_lr=5e-5,
    ),
    "wgan_gp": replace(
        _PLAIN,
        name="wgan_gp",
        k=5,
        objective=WassersteinPenalty(),
        optimizer=AdamSettings(adam_beta1=0.0, adam_beta2=0.9),
        generator_lr=5e-4,
        discriminator_lr=5e-4,
        averaging=0.999,
    ),
    "relativistic": replace(
        _PLAIN,
        name="relativistic",
        objective=Relativistic(),
        optimizer=AdamSettings(adam_beta1=0.0, adam_beta2=0.99),
        generator_lr=5e-4,
        discriminator_lr=5e-4,
        averaging=0.999,
    ),
    "pictures": replace(  # our own: an eighth of dcgan's maps, for a CPU, and long enough for few pictures
        _CONVOLUTIONAL,
        name="pictures",
        least_updates=2000,
        batch_size=64,
        model=DCGAN(channels=16),
        averaging=0.99,
        evaluate_every=2,
    ),
}
"""The recipes by name: the published ones, and our own. docs/recipes.md says which one is for what."""

_DEFAULTS = {
    "mnist": "code2014",
    "cifar10": "dcgan",  # its recipes of 2014 are for a GPU and hours
    "tfd": "tfd2014",
}  # Of other data: see `default_recipe`.
_MNIST_NUMBERS = 784  # in an image; of larger ones, fully connected nets learn little more than the mean from few
_STRETCHED = ("epochs", "evaluate_every", "samples_every", "checkpoint_every")  # where images are few
_CONDITIONAL_DEFAULTS = {"mnist": "conditional2014"}  # Of other data: "dcgan".


def find_recipe(
    recipe: str | Recipe | None,
    settings: Mapping[str, Any],
    splits: Splits,
    before: Recipe | None = None,
    conditional: bool = False,
) -> Recipe:
    """Return the recipe of a run: a named one fitted to the data, with the caller's settings.

    A named recipe is fitted in three ways. Its learning rates are multiplied by its model's `rate_scale` for images of
    this shape. Its batch is no larger than the data. Where its epochs hold fewer than `least_updates` updates, there
    are more epochs, with as many evaluations, pictures and checkpoints as before; epochs and cadences among `settings`
    stay as they are.

    Args:
        recipe: a name; a `Recipe`, which is taken as it is; or None, for that of `before` or else the data's default.
        settings: fields to change.
        splits: the data.
        before: what a run that is resumed was begun with; its epochs, and of a named recipe its cadences, stay unless
            `settings` has others.
        conditional: whether the game is, which has defaults of its own.

    Raises:
        TypeError, ValueError: an unknown recipe or setting (the message names the nearest right one), or a bad value.
    """
    images = len(splits.train)
    if recipe is None and before is not None:
        found = before
    elif isinstance(recipe, Recipe):
        found = recipe
    elif recipe is None or isinstance(recipe, str):
        name = default_recipe(splits.name, splits.shape, conditional) if recipe is None else recipe
        found = _fitted(name, splits.shape, images)
    else:
        hint = "; labels go with their images: train((images, labels))" if hasattr(recipe, "shape") else ""
        raise TypeError(
            f"recipe must be a name ({', '.join(RECIPES)}), a pygan.Recipe or None, got {type(recipe).__name__}{hint}"
        )
    if before is not None:  # how far it was stretched stays as it was
        kept = ("epochs",) if isinstance(recipe, Recipe) else _STRETCHED
        settings = {**{name: getattr(before, name) for name in kept}, **settings}
    found = found.with_settings(**settings)
    if before is None and not isinstance(recipe, Recipe) and "epochs" not in settings:
        found = _long_enough(found, images, settings)
    if found.batch_size > images:
        raise ValueError(f"batch_size must be at most {images}, the number of training images, got {found.batch_size}")
    return found


def _long_enough(recipe: Recipe, images: int, given: Mapping[str, Any]) -> Recipe:
    """The recipe with so many epochs that they hold `least_updates`; whatever is done every few epochs is stretched."""
    per_epoch = max(1, images // recipe.batch_size // recipe.k)
    longer = math.ceil(recipe.least_updates / per_epoch) / recipe.epochs
    if longer <= 1:
        return recipe
    stretched = set(_STRETCHED) - given.keys()
    return replace(recipe, **{name: round(longer * getattr(recipe, name)) for name in stretched})


def default_recipe(data: str, shape: Sequence[int] | None = None, conditional: bool = False) -> str:
    """Return the name of the recipe that data of this name have by default.

    `shape` is (C, H, W) of the images, or None where it is not known yet: then that of small images.
    """
    if conditional:
        return _CONDITIONAL_DEFAULTS.get(data, "dcgan")
    if data in _DEFAULTS or shape is None:
        return _DEFAULTS.get(data, "digits")
    if is_plottable(shape):
        return "relativistic"
    return "pictures" if math.prod(shape) > _MNIST_NUMBERS and fits_dcgan(shape) else "digits"


def named_recipe(name: str) -> Recipe:
    """Return a recipe as it stands, not fitted to data. ValueError with the nearest right name if there is none."""
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r} ({', '.join(RECIPES)}){nearest(name, RECIPES)}")
    return RECIPES[name]


def start_of(recipe: Recipe, shape: Sequence[int], images: int) -> Recipe | None:
    """Return the named recipe that the settings of a run started from, fitted to data of this shape and number.

    None if the name is none of RECIPES.
    """
    if recipe.name not in RECIPES:
        return None
    fitted = _fitted(recipe.name, shape, images)
    longer = _long_enough(fitted, images, {})
    return longer if recipe.epochs == longer.epochs else fitted  # Where epochs were given, nothing was stretched.


def _fitted(name: str, shape: Sequence[int], images: int) -> Recipe:
    recipe = named_recipe(name)
    scale = recipe.model.rate_scale(shape)
    rates = recipe.generator_lr * scale, recipe.discriminator_lr * scale
    return replace(
        recipe,
        generator_lr=rates[0],
        discriminator_lr=rates[1],
        lr_floor=min(recipe.lr_floor, *rates),
        batch_size=min(recipe.batch_size, images),
    )
