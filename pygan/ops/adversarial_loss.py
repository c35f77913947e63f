"""The adversarial losses of the paper (sections 3 and 4, Algorithm 1), from logits, with their gradients in one pass.

With logit x, D = sigmoid(x), and so -log D = softplus(-x) and -log(1 - D) = softplus(x); no probability is ever formed.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from pygan import _core
from pygan.ops import reference
from pygan.ops._checks import check_dtypes, check_place
from pygan.ops._library import (
    Function,
    Impl,
    address,
    define,
    dtype_code,
    is_recorded,
    may_be_differentiated,
    place,
    plain,
    save,
    under_autocast,
    use_native,
)

__all__ = ["Objective", "discriminator_loss", "generator_loss"]

Objective = Literal["non_saturating", "saturating", "minimax"]

# Whether the backward pass that runs keeps the graph; torch has no public name for it.
_keeps_graph: Callable[[], bool] = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, *, impl: Impl = "auto") -> Tensor:
    """-mean log D(x) - mean log(1 - D(G(z))), which the discriminator minimises (Algorithm 1, first gradient).

    Args:
        real_logits: any shape, at least one element; logits of D on data. float32, float64, bfloat16, on CUDA float16.
        fake_logits: any shape, at least one element, its size may differ; logits of D on samples. Same dtype, device.
        impl: "auto", "native" or "reference" (plain torch).

    Returns:
        The loss in nats, 0-dimensional, >= 0, in the dtype of the logits (float32 under autocast). Differentiable
        any number of times. Relative error at most 4 eps wherever it is a normal number, for logits of any size.

    Raises:
        TypeError: not tensors, not floating point, or of different dtypes.
        ValueError: an empty tensor, different devices, an unknown `impl`.
    """
    real, fake = _float32_under_autocast(real_logits), _float32_under_autocast(fake_logits)
    if not use_native("discriminator_loss", impl, real):
        check_place("discriminator_loss", ("real_logits", "fake_logits"), (real, fake))
        _check_discriminator_loss(real, fake)
        return reference.discriminator_loss(real, fake)
    return _DiscriminatorLoss.apply(real, fake, may_be_differentiated(real, fake))[0]


def generator_loss(fake_logits: Tensor, objective: Objective = "non_saturating", *, impl: Impl = "auto") -> Tensor:
    """The loss of the generator (Algorithm 1, second gradient, and the end of section 3).

    Args:
        fake_logits: any shape, at least one element; logits of D on samples. float32, float64, bfloat16, on CUDA
            float16.
        objective: "non_saturating", -mean log D(G(z)) >= 0, whose gradient stays strong while D rejects the samples;
            or "saturating" (alias "minimax"), +mean log(1 - D(G(z))) <= 0, the generator's part of the value function.
        impl: "auto", "native" or "reference" (plain torch).

    Returns:
        The loss in nats, 0-dimensional, in the dtype of the logits (float32 under autocast). Differentiable any number
        of times.

    Raises:
        TypeError: not a tensor or not floating point.
        ValueError: an empty tensor, an unknown `objective` or `impl`.
    """
    op = "generator_loss"
    if objective not in ("non_saturating", "saturating", "minimax"):
        raise ValueError(f"{op}: objective must be 'non_saturating' or 'saturating', got {objective!r}")
    saturating = objective != "non_saturating"
    fake = _float32_under_autocast(fake_logits)
    if not use_native(op, impl, fake):
        check_place(op, ("fake_logits",), (fake,))
        _check_generator_loss(fake)
        return reference.generator_loss(fake, "saturating" if saturating else "non_saturating")
    return _GeneratorLoss.apply(fake, saturating, may_be_differentiated(fake))[0]


def _float32_under_autocast(logits: Tensor) -> Tensor:
    return logits.float() if under_autocast(logits) and logits.is_floating_point() else logits


# ---- the ops --------------------------------------------------------------------------------------------------------


def _check_discriminator_loss(real: Tensor, fake: Tensor, _with_gradient: bool = False) -> None:
    op = "discriminator_loss"
    check_dtypes(op, ("real_logits", "fake_logits"), real, fake)
    _check_not_empty(op, "real_logits", real)
    _check_not_empty(op, "fake_logits", fake)


def _check_generator_loss(fake: Tensor, _saturating: bool = False, _with_gradient: bool = False) -> None:
    check_dtypes("generator_loss", ("fake_logits",), fake)
    _check_not_empty("generator_loss", "fake_logits", fake)


def _check_not_empty(op: str, name: str, logits: Tensor) -> None:
    if logits.numel() == 0:
        raise ValueError(f"{op}: {name} must have at least one element, got shape {list(logits.shape)}")


def _scratch(logits: Tensor, size: int) -> Tensor | None:
    if not logits.is_cuda:
        return None
    return logits.new_empty(_core.adversarial_loss_scratch(size), dtype=torch.float64)


def _discriminator_loss(real: Tensor, fake: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor, Tensor]:
    real, fake = real.contiguous(), fake.contiguous()
    loss, real_gradient, fake_gradient = _discriminator_loss_fake(real, fake, with_gradient)
    scratch = _scratch(real, max(real.numel(), fake.numel()))
    _core.discriminator_loss(
        address(real),
        real.numel(),
        address(fake),
        fake.numel(),
        address(real_gradient),
        address(fake_gradient),
        address(scratch),
        address(loss),
        dtype_code(real),
        *place(real),
    )
    return loss, real_gradient, fake_gradient


def _discriminator_loss_fake(real: Tensor, fake: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor, Tensor]:
    return real.new_empty(()), _gradient_like(real, with_gradient), _gradient_like(fake, with_gradient)


def _generator_loss(fake: Tensor, saturating: bool, with_gradient: bool) -> tuple[Tensor, Tensor]:
    fake = fake.contiguous()
    loss, gradient = _generator_loss_fake(fake, saturating, with_gradient)
    scratch = _scratch(fake, fake.numel())
    _core.generator_loss(
        address(fake),
        fake.numel(),
        saturating,
        address(gradient),
        address(scratch),
        address(loss),
        dtype_code(fake),
        *place(fake),
    )
    return loss, gradient


def _generator_loss_fake(fake: Tensor, saturating: bool, with_gradient: bool) -> tuple[Tensor, Tensor]:
    return fake.new_empty(()), _gradient_like(fake, with_gradient)


def _gradient_like(logits: Tensor, wanted: bool) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format) if wanted else logits.new_empty(0)


discriminator_loss_op = define(
    "discriminator_loss(Tensor real_logits, Tensor fake_logits, bool with_gradient) -> (Tensor, Tensor, Tensor)",
    _check_discriminator_loss,
    _discriminator_loss,
    _discriminator_loss_fake,
    lambda *args: _discriminator_loss_with_derivative(*args),
)
generator_loss_op = define(
    "generator_loss(Tensor fake_logits, bool saturating, bool with_gradient) -> (Tensor, Tensor)",
    _check_generator_loss,
    _generator_loss,
    _generator_loss_fake,
    lambda *args: _generator_loss_with_derivative(*args),
)


# ---- derivatives ----------------------------------------------------------------------------------------------------


def _discriminator_loss_with_derivative(real: Tensor, fake: Tensor, with_gradient: bool) -> tuple[Tensor, ...]:
    loss, *gradients = _DiscriminatorLoss.apply(real, fake, True)
    return (loss, *gradients) if with_gradient else (loss, real.new_empty(0), fake.new_empty(0))


def _generator_loss_with_derivative(fake: Tensor, saturating: bool, with_gradient: bool) -> tuple[Tensor, Tensor]:
    loss, gradient = _GeneratorLoss.apply(fake, saturating, True)
    return (loss, gradient) if with_gradient else (loss, fake.new_empty(0))


class _DiscriminatorLoss(Function):
    """(real, fake) -> loss, and the loss's gradient with respect to each logit, computed in the same pass."""

    @staticmethod
    def forward(real: Tensor, fake: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor, Tensor]:
        return discriminator_loss_op(real, fake, with_gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        real, fake, _ = inputs
        _, real_gradient, fake_gradient = output
        ctx.mark_non_differentiable(real_gradient, fake_gradient)
        ctx.set_materialize_grads(False)
        save(ctx, real, fake, real_gradient, fake_gradient)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        real, fake, real_gradient, fake_gradient = ctx.saved_tensors
        if grad is None:
            return None, None, None
        need_real, need_fake, _flag = ctx.needs_input_grad
        return (
            _scaled(grad, real, real_gradient, 1) if need_real else None,
            _scaled(grad, fake, fake_gradient, 1) if need_fake else None,
            None,
        )

    @staticmethod
    def tangent(ctx: Any, real_tangent: Tensor | None, fake_tangent: Tensor | None, *_: None) -> tuple[Any, None, None]:
        real, fake, real_gradient, fake_gradient = ctx.saved_tensors
        terms = (real_tangent, real, real_gradient), (fake_tangent, fake, fake_gradient)
        return sum(_ScaledGradient.apply(*term, 1).sum() for term in terms if term[0] is not None), None, None


class _GeneratorLoss(Function):
    """fake -> loss, and the loss's gradient with respect to each logit, computed in the same pass."""

    @staticmethod
    def forward(fake: Tensor, saturating: bool, with_gradient: bool) -> tuple[Tensor, Tensor]:
        return generator_loss_op(fake, saturating, with_gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        fake, ctx.saturating, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        save(ctx, fake, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        fake, gradient = ctx.saved_tensors
        if grad is None:
            return None, None, None
        return _scaled(grad, fake, gradient, -1 if ctx.saturating else 1), None, None

    @staticmethod
    def tangent(ctx: Any, tangent: Tensor, *_: None) -> tuple[Tensor, None]:
        fake, gradient = ctx.saved_tensors
        return _ScaledGradient.apply(tangent, fake, gradient, -1 if ctx.saturating else 1).sum(), None


def _scaled(grad: Tensor, logits: Tensor, gradient: Tensor, curvature: int) -> Tensor:
    if is_recorded():
        return _ScaledGradient.apply(grad, logits, gradient, curvature)
    if plain(grad) and grad.device.type == "cpu" and grad.item() == 1 and not _keeps_graph():
        return gradient  # loss.backward(); on CUDA, looking would wait. A kept graph must not see what becomes of it.
    return grad * gradient


class _ScaledGradient(Function):
    """grad * gradient, where gradient is d loss / d logits and d^2 loss / d logits^2 = curvature D (1 - D) / size.

    grad is 0-dimensional, as the loss, or has the logits' shape.
    """

    @staticmethod
    def forward(grad: Tensor, logits: Tensor, gradient: Tensor, curvature: int) -> Tensor:
        return grad * gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        grad, logits, gradient, ctx.curvature = inputs
        ctx.set_materialize_grads(False)
        save(ctx, grad, logits, gradient)

    @staticmethod
    def backward(ctx: Any, outer: Tensor | None) -> tuple[Tensor | None, ...]:
        grad, logits, gradient = ctx.saved_tensors
        if outer is None:
            return None, None, None, None
        # While this is recorded, `gradient` has to be known as a function of the logits.
        product = _ScaledGradient.apply(outer, logits, gradient, ctx.curvature) if is_recorded() else outer * gradient
        return product.sum_to_size(grad.shape), outer * grad * _second(logits, ctx.curvature), None, None

    @staticmethod
    def tangent(ctx: Any, grad_tangent: Tensor | None, logits_tangent: Tensor | None, *_: None) -> Any:
        grad, logits, gradient = ctx.saved_tensors
        result: Any = 0
        if grad_tangent is not None:
            result = _ScaledGradient.apply(grad_tangent, logits, gradient, ctx.curvature)
        if logits_tangent is not None:
            result = result + grad * _second(logits, ctx.curvature) * logits_tangent
        return result


def _second(logits: Tensor, curvature: int) -> Tensor:
    # sigmoid(x) sigmoid(-x), not p (1 - p): exact in the tails
    return logits.sigmoid() * (-logits).sigmoid() * (curvature / logits.numel())
