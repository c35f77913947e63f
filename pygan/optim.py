"""The two update rules, under one interface: rates come with each step, state is a flat dictionary of named tensors."""

import copy
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor, nn

from pygan.ops import momentum_update, reference
from pygan.recipes import Recipe

__all__ = ["Adam", "Momentum", "MovingAverage", "Optimizer", "make_optimizer", "trainable", "with_prefix"]


class Optimizer(Protocol):
    """Updates the parameters of one player in place."""

    parameters: dict[str, nn.Parameter]

    def step(self, gradients: Sequence[Tensor], lr: float | Tensor, momentum: float | Tensor) -> None:
        """One update, with one gradient for each parameter, in the parameters' order.

        Rates that are tensors, 0-dimensional and on the parameters' device, may change under a captured CUDA graph.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """The live state tensors by name: "<parameter>.<what it is>"."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy the state from another optimiser's `state_dict`."""


class Momentum:
    """v <- m v - lr g; p <- p + v, the form of the 2014 code.

    torch.optim.SGD keeps the learning rate out of the velocity, so that the two differ as soon as the rate changes.
    """

    def __init__(self, module: nn.Module) -> None:
        self.parameters = trainable(module)
        self.velocities = [torch.zeros_like(parameter) for parameter in self.parameters.values()]
        self.copies: Sequence[Tensor] = ()  # bfloat16 tensors, if any, that are to follow the parameters

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], lr: float | Tensor, momentum: float | Tensor) -> None:
        parameters = list(self.parameters.values())
        if not parameters:
            return
        rates = _as_tensor([lr, momentum], parameters[0])
        kind = rates.dtype in (torch.float32, torch.float64) and {(p.dtype, p.is_contiguous()) for p in parameters}
        if kind == {(rates.dtype, True)}:
            gradients = [gradient.contiguous() for gradient in gradients]
            momentum_update(parameters, self.velocities, gradients, rates, self.copies)
        else:  # half precision, channels last, and the like
            reference.momentum_update(parameters, self.velocities, gradients, rates)

    def state_dict(self) -> dict[str, Tensor]:
        return {f"{name}.velocity": v for name, v in zip(self.parameters, self.velocities, strict=True)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, velocity in self.state_dict().items():
            velocity.copy_(state[name])


class Adam:
    """torch.optim.Adam, with its state as named tensors; the momentum argument of `step` is not used."""

    def __init__(self, module: nn.Module, betas: tuple[float, float]) -> None:
        self.parameters = trainable(module)
        on_cuda = any(parameter.is_cuda for parameter in self.parameters.values())
        self.adam = torch.optim.Adam(self.parameters.values(), betas=betas, capturable=on_cuda, fused=True)
        for parameter in self.parameters.values():  # as Adam would at the first step; here, so that names are known
            self.adam.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }

    def step(self, gradients: Sequence[Tensor], lr: float | Tensor, momentum: float | Tensor) -> None:
        for parameter, gradient in zip(self.parameters.values(), gradients, strict=True):
            parameter.grad = gradient.to(parameter.dtype)
        self.adam.param_groups[0]["lr"] = lr if self.adam.defaults["capturable"] else float(lr)
        self.adam.step()
        self.adam.zero_grad()

    def state_dict(self) -> dict[str, Tensor]:
        state = self.adam.state
        return {f"{name}.{key}": t for name, p in self.parameters.items() for key, t in state.get(p, {}).items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])


def make_optimizer(module: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's update rule for the parameters of one player."""
    if recipe.optimizer == "adam":
        return Adam(module, (recipe.adam_beta1, recipe.adam_beta2))
    return Momentum(module)


def _as_tensor(rates: Sequence[float | Tensor], like: Tensor) -> Tensor:
    if any(isinstance(rate, Tensor) for rate in rates):
        return torch.stack([torch.as_tensor(rate, device=like.device) for rate in rates]).to(like.dtype)
    return torch.tensor(rates, dtype=like.dtype, device=like.device)


class MovingAverage(nn.Module):
    """Exponential average of a module's parameters and buffers, over at most the last quarter of the updates so far.

    Without that limit the weights of the start would stay in the average for several times 1 / (1 - decay) updates.
    Counters, such as batch norm's, are copied. torch's AveragedModel would wait for a CUDA device at every update.

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


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
