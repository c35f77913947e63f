"""What one of several processes computes on its rows of a batch, as if it had all of the batch.

`AsWholeBatch` is a mode of torch: it sees the calls of torch's functions, in the players of this package and in those
of a user alike, and replaces those that depend on more than one row or draw random numbers.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode, resolve_name

from pygan._terminal import warn
from pygan.ops.dropout import draw_seed, dropout

if TYPE_CHECKING:
    from pygan.distributed import Share, _Group

__all__ = ["AsWholeBatch"]


class AsWholeBatch(TorchFunctionMode):
    """Inside, a tensor of as many rows as this process has, or a multiple of them, is a part of whole batches.

    * Random numbers are drawn for the whole batch, and the rows of this process are taken: `torch.rand`, `randn`,
      `rand_like`, `randn_like`, `normal_`, `uniform_`, `bernoulli_` of one number, torch's dropout. So all processes
      use up their generators alike. `pygan.ops.dropout` draws its own rows alone.
    * Batch norm in training takes its statistics from the whole batch.
    * Torch's other random functions are not divided: each process draws for its own rows. The first call of each warns.

    Tensors of other sizes are left alone, and so is what one of torch's functions calls inside, such as the dropout of
    attention.

    Args:
        share: the rows of this process.
        ranks: for batch norm; None leaves it local to the process.
    """

    def __init__(self, share: "Share", ranks: "_Group | None") -> None:
        super().__init__()
        self.active, self.share, self.ranks = False, share, ranks
        self._warned: set[Any] = set()

    def __enter__(self) -> "AsWholeBatch":
        self.active = True
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.active = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        replacement = _REPLACEMENTS.get(func)
        if replacement is None:
            return func(*args, **(kwargs or {}))
        return replacement(self, func, *args, **(kwargs or {}))

    def whole_shape(self, shape: Any) -> tuple[int, ...] | None:
        """Return the shape of the whole batch's tensor, or None if this is not a part of one."""
        if not shape or shape[0] == 0 or shape[0] % self.share.size:
            return None
        return (shape[0] // self.share.size * self.share.total, *shape[1:])

    def mine(self, whole: Tensor) -> Tensor:
        """Return the rows of this process, of one or more whole batches that are stacked."""
        batches = whole.unflatten(0, (-1, self.share.total))
        return batches[:, self.share.first : self.share.first + self.share.size].flatten(0, 1)

    def warn_once(self, func: Callable[..., Any]) -> None:
        """Warn that a random function has drawn numbers for the rows of this process alone."""
        if func not in self._warned:
            self._warned.add(func)
            name = resolve_name(func) or func.__name__
            warn(
                f"train: {name} is not divided among the processes: each one draws numbers for its own "
                "rows, so the result will differ from that of one process (docs/distributed.md)"
            )


def _made(mode: AsWholeBatch, func: Callable[..., Tensor], *sizes: Any, **options: Any) -> Tensor:
    """`torch.rand` and its relatives."""
    size = options.pop("size", sizes[0] if sizes and isinstance(sizes[0], tuple | list) else sizes)
    whole = mode.whole_shape(tuple(size))
    return func(size, **options) if whole is None else mode.mine(func(whole, **options))


def _made_like(mode: AsWholeBatch, func: Callable[..., Tensor], input: Tensor, **options: Any) -> Tensor:
    whole = mode.whole_shape(input.shape)
    return func(input, **options) if whole is None else mode.mine(func(_empty(input, whole), **options))


def _filled(mode: AsWholeBatch, func: Callable[..., Tensor], out: Tensor, *args: Any, **options: Any) -> Tensor:
    """`Tensor.normal_` and its relatives. A probability for each element is known for this process's rows alone."""
    whole = mode.whole_shape(out.shape)
    if whole is None:
        return func(out, *args, **options)
    if any(isinstance(value, Tensor) and value.dim() > 0 for value in (*args, *options.values())):
        return _undivided(mode, func, out, *args, **options)
    return out.copy_(mode.mine(func(_empty(out, whole), *args, **options)))


def _empty(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a tensor of another shape in the order in memory of x, for in this order random numbers are drawn."""
    strides = torch.empty_like(x, device="meta").stride()  # an expanded x has its copies' order
    order = sorted(range(x.dim()), key=strides.__getitem__, reverse=True)
    return x.new_empty([shape[d] for d in order]).permute([order.index(d) for d in range(x.dim())])


def _torch_dropout(
    mode: AsWholeBatch,
    func: Callable[..., Tensor],
    x: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Tensor:
    whole = mode.whole_shape(x.shape)
    if not training or whole is None:
        return func(x, p, training, inplace)
    mask = mode.mine(func(_empty(x, whole).fill_(1), p, training))
    return x.mul_(mask) if inplace else x * mask


def _own_dropout(
    mode: AsWholeBatch, func: Callable[..., Tensor], x: Tensor, p: float, seed: Tensor | None = None, **options: Any
) -> Tensor:
    """`pygan.ops.dropout`, whose mask is a function of an element's place in the whole batch."""
    if p == 0 or mode.whole_shape(x.shape) is None:
        return func(x, p, seed, **options)
    seed, width = draw_seed(x.device) if seed is None else seed, math.prod(x.shape[1:])
    pieces = mode.share.pieces(0, x)
    return torch.cat([func(piece, p, seed, **{**options, "first": row * width}) for row, (piece,) in pieces])


def _undivided(mode: AsWholeBatch, func: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
    """A random function that has no replacement."""
    result = func(*args, **options)
    if mode.whole_shape(result.shape) is not None:
        mode.warn_once(func)
    return result


def _undivided_in_training(mode: AsWholeBatch, func: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
    """One that is random in training alone."""
    training = inspect.signature(func).bind(*args, **options).arguments.get("training", False)
    return _undivided(mode, func, *args, **options) if training else func(*args, **options)


def _batch_norm(
    mode: AsWholeBatch,
    func: Callable[..., Tensor],
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training or mode.ranks is None:
        return func(x, running_mean, running_var, weight, bias, training, momentum, eps)
    if len(x) % mode.share.size != 0:
        raise ValueError(
            f"train: in several processes batch norm must get all of a process's {mode.share.size} rows, or a multiple "
            f'of them, got {len(x)}; batch_norm="local" takes the statistics of each process by itself'
        )
    mean, variance = _statistics(x.detach(), mode.share, mode.ranks)
    count = x.numel() / x.shape[1] * mode.share.total / mode.share.size
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        if running_var is not None:
            running_var.lerp_((variance * (count / (count - 1))).to(running_var.dtype), momentum)
    return _BatchNorm.apply(x, weight, bias, mean, variance, count, eps, mode.ranks)


def _statistics(x: Tensor, share: "Share", ranks: "_Group") -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel over the rows of all processes."""
    x = x if x.dtype == torch.float64 else x.float()
    parts = ranks.gather(torch.cat(torch.batch_norm_update_stats(x, None, None, 0.0)), ranks.data)
    means, variances = parts.chunk(2, dim=1)
    weights = parts.new_tensor(share.sizes).unsqueeze(1) / share.total
    mean = (weights * means).sum(0)
    variance = (weights * (variances + (means - mean).square())).sum(0)
    return mean, variance


class _BatchNorm(torch.autograd.Function):
    """Batch norm by the given statistics, and its derivative, in which the statistics depend on all rows."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        count: float,
        eps: float,
        ranks: "_Group",
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.count, ctx.eps, ctx.ranks = count, eps, ranks
        return functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        grad = grad if grad.stride() == x.stride() else torch.empty_like(x).copy_(grad)
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        # Gradients are of a mean over the rows of one process: each counts as many times as it has rows.
        mine = x.numel() / x.shape[1]
        sums = torch.cat([grad_weight, grad_bias]) * mine
        ctx.ranks.reduce(sums, ctx.ranks.data)
        by_weight, by_bias = sums.div_(mine * ctx.count).chunk(2)
        scale = (variance + ctx.eps).rsqrt()
        gain = scale if weight is None else scale * weight
        slope = gain * scale * by_weight
        shape = (1, -1, *[1] * (x.dim() - 2))
        grad_x.addcmul_(x, slope.view(shape).to(x.dtype), value=-1)
        grad_x.sub_((gain * by_bias - slope * mean).view(shape))
        affine = weight is not None
        return grad_x, grad_weight if affine else None, grad_bias if affine else None, None, None, None, None, None


_REPLACEMENTS: Mapping[Any, Callable[..., Tensor]] = {
    torch.rand: _made,
    torch.randn: _made,
    torch.rand_like: _made_like,
    torch.randn_like: _made_like,
    Tensor.normal_: _filled,
    Tensor.uniform_: _filled,
    Tensor.bernoulli_: _filled,
    functional.dropout: _torch_dropout,
    functional.dropout1d: _torch_dropout,
    functional.dropout2d: _torch_dropout,
    functional.dropout3d: _torch_dropout,
    dropout: _own_dropout,
    functional.batch_norm: _batch_norm,
    **dict.fromkeys(
        (
            torch.bernoulli,
            torch.binomial,
            torch.multinomial,
            torch.normal,
            torch.poisson,
            torch.randint,
            torch.randint_like,
            torch.randperm,
            torch._standard_gamma,  # torch.distributions
            torch._sample_dirichlet,
            Tensor.bernoulli,
            Tensor.cauchy_,
            Tensor.exponential_,
            Tensor.geometric_,
            Tensor.log_normal_,
            Tensor.multinomial,
            Tensor.random_,
            functional.gumbel_softmax,
        ),
        _undivided,
    ),
    **dict.fromkeys(
        (functional.alpha_dropout, functional.feature_alpha_dropout, functional.rrelu), _undivided_in_training
    ),
}
