"""The update rules, under one interface: rates come with each step, state is a flat dictionary of named tensors.

`OPTIMIZERS` has their settings by name; `Settings.make` makes one for a player.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from pygan.nn import Maxout
from pygan.ops import momentum_update, reference
from pygan.settings import AT_LEAST_ONE, BELOW_ONE, NOT_NEGATIVE, Settings, setting

__all__ = [
    "OPTIMIZERS",
    "Adam",
    "AdamSettings",
    "Momentum",
    "MomentumSettings",
    "MovingAverage",
    "Optimizer",
    "OptimizerSettings",
    "RMSprop",
    "RMSpropSettings",
    "Rates",
    "trainable",
    "with_prefix",
]


class Rates(NamedTuple):
    """What the optimisers use in one update: both learning rates and the momentum, as doubles."""

    generator_lr: float
    discriminator_lr: float
    momentum: float


class Optimizer(Protocol):
    """Updates the parameters of one player in place."""

    parameters: dict[str, nn.Parameter]

    def step(self, gradients: Sequence[Tensor], lr: float | Tensor, momentum: float | Tensor) -> None:
        """Do one update, with one gradient for each parameter, in the order of the parameters.

        Rates may be 0-dimensional tensors on the device of the parameters, so that a captured CUDA graph can use new
        values. It draws no random numbers from torch's default generators: the fast step has drawn those of G's update
        by then, so that it would no longer give the numbers of step="plain".
        """

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state tensors by name, "<parameter>.<kind>"; not copies. They exist from the start."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy the state from another optimiser's `state_dict`."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings(Settings):
    """The base class of an update rule's settings."""

    name: ClassVar[str]

    def make(self, module: nn.Module) -> Optimizer:
        """Return the update rule for the parameters of one player."""
        raise NotImplementedError

    def momentum_at(self, epoch: int) -> float:
        """Return the `momentum` of `Optimizer.step` in an epoch, counted from 0; 0 if the rule has none."""
        return 0.0


class _State:
    """State tensors that exist from the start, and are only ever written to."""

    def state_dict(self) -> dict[str, Tensor]:
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])


class Momentum(_State):
    """v <- m v - lr g; p <- p + v, the form of the 2014 code.

    torch.optim.SGD keeps the learning rate out of the velocity, so that the two differ as soon as the rate changes.

    Args:
        module: the player.
        max_column_norm: if not 0, a unit whose weights have a larger L2 norm is scaled down to it, at once and after
            each update: max_col_norm of the 2014 code. Units are those of `nn.Linear`, `nn.Conv2d` and, one for each
            piece, `pygan.nn.Maxout`.
    """

    def __init__(self, module: nn.Module, max_column_norm: float = 0.0) -> None:
        self.parameters = trainable(module)
        self.velocities = [torch.zeros_like(parameter) for parameter in self.parameters.values()]
        self.copies: list[Tensor] = []  # bfloat16 tensors, if any, that are to follow the parameters
        self._max_column_norm = max_column_norm
        self._columns = _columns(module) if max_column_norm else []
        self._constrain()

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], lr: float | Tensor, momentum: float | Tensor) -> None:
        parameters: list[Tensor] = list(self.parameters.values())
        if not parameters:
            return
        rates = _as_tensor([lr, momentum], parameters[0])
        kind = rates.dtype in (torch.float32, torch.float64) and {(p.dtype, p.is_contiguous()) for p in parameters}
        if kind == {(rates.dtype, True)}:
            gradients = [gradient.contiguous() for gradient in gradients]
            momentum_update(parameters, self.velocities, gradients, rates, self.copies)
        else:  # half precision, channels last, and the like
            reference.momentum_update(parameters, self.velocities, gradients, rates)
            if self.copies:
                torch._foreach_copy_(self.copies, parameters)
        if self._columns:
            self._constrain()
            if self.copies:
                torch._foreach_copy_(self.copies, parameters)

    def state_dict(self) -> dict[str, Tensor]:
        return {f"{name}.velocity": v for name, v in zip(self.parameters, self.velocities, strict=True)}

    @torch.no_grad()
    def _constrain(self) -> None:
        for weights in self._columns:
            weights.renorm_(2, 0, self._max_column_norm)


@dataclass(frozen=True, kw_only=True)
class MomentumSettings(OptimizerSettings):
    """Momentum that rises linearly by epoch, as in the 2014 code."""

    name = "momentum"
    momentum: float = setting(0.5, "momentum in the first epoch", BELOW_ONE)
    momentum_final: float = setting(0.7, "momentum from epoch momentum_epochs on; linear in between", BELOW_ONE)
    momentum_epochs: int = setting(250, "the epoch in which momentum_final is reached", AT_LEAST_ONE)
    max_column_norm: float = setting(
        0.0,
        "largest L2 norm of the weights of one unit of a linear, maxout or convolution layer; 0 = no bound",
        NOT_NEGATIVE,
    )

    def make(self, module: nn.Module) -> Momentum:
        return Momentum(module, self.max_column_norm)

    def momentum_at(self, epoch: int) -> float:
        rise = min(1.0, epoch / (self.momentum_epochs - 1)) if self.momentum_epochs > 1 else 1.0
        return self.momentum + rise * (self.momentum_final - self.momentum)


class _OfTorch(_State):
    """An optimiser of torch, with its state as named tensors; the momentum argument of `step` is not used.

    Args:
        module: the player.
        kind: the class, of torch.
        averages: what it keeps for each parameter, in the parameter's shape, by torch's names.
        options: its keyword arguments.
    """

    def __init__(
        self, module: nn.Module, kind: Callable[..., torch.optim.Optimizer], averages: Sequence[str], **options: Any
    ) -> None:
        self.parameters = trainable(module)
        on_cuda = any(parameter.is_cuda for parameter in self.parameters.values())
        self.optimizer = kind(self.parameters.values(), capturable=on_cuda, **options)
        for parameter in self.parameters.values():  # what torch would make at the first step
            self.optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                **{name: torch.zeros_like(parameter, memory_format=torch.preserve_format) for name in averages},
            }

    def step(self, gradients: Sequence[Tensor], lr: float | Tensor, momentum: float | Tensor) -> None:
        for parameter, gradient in zip(self.parameters.values(), gradients, strict=True):
            # in the parameter's order in memory, which torch's fused update takes for granted
            like = gradient.stride() == parameter.stride()
            parameter.grad = gradient.to(parameter.dtype) if like else torch.empty_like(parameter).copy_(gradient)
        self.optimizer.param_groups[0]["lr"] = lr if self.optimizer.defaults["capturable"] else float(lr)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Tensor]:
        state = self.optimizer.state
        return {f"{name}.{key}": t for name, p in self.parameters.items() for key, t in state[p].items()}


class Adam(_OfTorch):
    """torch.optim.Adam."""

    def __init__(self, module: nn.Module, betas: tuple[float, float]) -> None:
        dense = all(map(torch.ops.aten.is_non_overlapping_and_dense, trainable(module).values()))
        how = {"fused": True} if dense else {"foreach": True}
        super().__init__(module, torch.optim.Adam, ("exp_avg", "exp_avg_sq"), betas=betas, **how)


class RMSprop(_OfTorch):
    """torch.optim.RMSprop, without momentum."""

    def __init__(self, module: nn.Module, alpha: float) -> None:
        super().__init__(module, torch.optim.RMSprop, ("square_avg",), alpha=alpha, foreach=True)


@dataclass(frozen=True, kw_only=True)
class AdamSettings(OptimizerSettings):
    """Adam, Kingma and Ba 2014 (arXiv 1412.6980)."""

    name = "adam"
    adam_beta1: float = setting(0.5, "Adam's decay of the mean gradient", BELOW_ONE)
    adam_beta2: float = setting(0.999, "Adam's decay of the mean squared gradient", BELOW_ONE)

    def make(self, module: nn.Module) -> Adam:
        return Adam(module, (self.adam_beta1, self.adam_beta2))


@dataclass(frozen=True, kw_only=True)
class RMSpropSettings(OptimizerSettings):
    """RMSprop, Tieleman and Hinton 2012 (Coursera, Neural networks for machine learning, lecture 6.5)."""

    name = "rmsprop"
    rmsprop_alpha: float = setting(0.99, "RMSprop's decay of the mean squared gradient", BELOW_ONE)

    def make(self, module: nn.Module) -> RMSprop:
        return RMSprop(module, self.rmsprop_alpha)


OPTIMIZERS: dict[str, type[OptimizerSettings]] = {
    "momentum": MomentumSettings,
    "adam": AdamSettings,
    "rmsprop": RMSpropSettings,
}
"""The update rules by name, as settings that make an optimizer. A new one is one entry."""


def _as_tensor(rates: Sequence[float | Tensor], like: Tensor) -> Tensor:
    if any(isinstance(rate, Tensor) for rate in rates):
        return torch.stack([torch.as_tensor(rate, device=like.device) for rate in rates]).to(like.dtype)
    return torch.tensor(rates, dtype=like.dtype, device=like.device)


class MovingAverage(nn.Module):
    """Exponential average of a module's parameters and buffers, over at most the last quarter of the updates so far.

    Without this limit the initial weights would stay in the average for several times 1 / (1 - decay) updates. Counters
    are copied. For batch norm see `recompute_statistics`. torch's AveragedModel would wait for a CUDA device at every
    update.

    Attributes:
        module: a copy of the module that holds the average.
    """

    n_averaged: Tensor  # on the CPU, wherever the module is

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__()
        self.module, self.decay = copy.deepcopy(module), decay
        self.register_buffer("n_averaged", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        weight = max(1 - self.decay, 1 / (1 + int(self.n_averaged) / 4))  # 1 at first: a copy
        tensors = (chain(m.parameters(), m.buffers()) for m in (self.module, module))
        for mine, current in zip(*tensors, strict=True):
            if mine.is_floating_point():
                mine.lerp_(current, weight)
            else:
                mine.copy_(current)
        self.n_averaged += 1

    def recompute_statistics(self, passes: Iterable[tuple[Tensor, ...]]) -> None:
        """Replace batch norm's running statistics by their means over these passes, each the inputs of one `forward`.

        The average of the statistics of many weights is not the statistics of the average: its variances are too large.
        Without batch norm nothing is done, and the passes are not evaluated.
        """
        update_bn(([inputs] for inputs in passes), _Unpacked(self.module).train(self.module.training))


class _Unpacked(nn.Module):
    """A module of several inputs as one of a tuple."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        output: Tensor = self.module(*inputs)
        return output


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that require a gradient, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def _columns(module: nn.Module) -> list[Tensor]:
    """The trainable weights of each layer, [units, ...]: views, whatever their order in memory."""
    columns = []
    for name, part in module.named_modules():
        if not isinstance(part, nn.Linear | nn.Conv2d | Maxout) or not part.weight.requires_grad:
            continue
        if "weight" not in part._parameters:
            raise ValueError(f"max_column_norm: cannot bound {name}.weight, which is computed from other parameters")
        weight = part.weight.detach()
        columns.append(weight.view(-1, part.in_features) if isinstance(part, Maxout) else weight)
    return columns


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
