"""Generative Adversarial Nets (Goodfellow et al. 2014) on fused C++/CUDA kernels."""

from pygan._threads import short_spinning

# torch comes first: it brings the OpenMP runtime that the native core then shares.
with short_spinning():
    import torch  # noqa: F401

# Inside a clone, its source folder shadows the installed package, which holds the compiled core: look there too.
from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)

from pygan import (
    bigan,
    conditionals,
    data,
    export,
    figures,
    inference,
    latent,
    nn,
    ops,
    report,
    semi_supervised,
    theory,
)
from pygan._build import build_info
from pygan._version import __version__
from pygan.evaluate import ParzenEstimate, ParzenWindow
from pygan.recipes import RECIPES, Recipe
from pygan.run import Run, load
from pygan.table1 import table1
from pygan.train import train

__all__ = [
    "RECIPES",
    "ParzenEstimate",
    "ParzenWindow",
    "Recipe",
    "Run",
    "__version__",
    "bigan",
    "build_info",
    "conditionals",
    "data",
    "export",
    "figures",
    "inference",
    "latent",
    "load",
    "nn",
    "ops",
    "report",
    "semi_supervised",
    "table1",
    "theory",
    "train",
]
