"""Random calls of every operator with arguments that nobody would write on purpose.

    python tests/fuzz_operators.py --calls 100000

A call starts from good arguments. Some of them are then disguised (another layout, stride, address, lazy sign, a zero
without memory, a tensor without numbers) or spoilt (another shape, dtype or number). A disguise that only changes how a
number is stored must give the result of the reference; all else may also end in a Python error. The process must not
die, no call may take long, and no result may differ from the reference. A failure prints the seed of its call, and
`--seed SEED --calls 1` repeats it.
"""

import argparse
import logging
import random
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.nn import Parameter

from pygan import ops
from pygan.ops import reference

OPS = torch.ops.pygan
DTYPES = (torch.float32, torch.float32, torch.float64, torch.bfloat16)
SECONDS = 10  # more than any call may take, on a busy machine
# What torch and we refuse to differentiate.
REFUSALS = ("Inference tensors cannot be saved for backward", "has no derivative of its own here")
# Messages of torch or Python that would mean that bad arguments came too far.
INTERNAL = ("INTERNAL ASSERT", "report a bug", "object has no attribute", "not supported between", "unpack")


# ---- disguises: the same numbers, stored in another way --------------------------------------------------------------


def misaligned(t: Tensor) -> Tensor:
    if t.numel() == 0:
        return t
    memory = bytearray(1 + t.numel() * t.element_size())
    out = torch.frombuffer(memory, dtype=t.dtype, offset=1).view(t.shape)
    return out.copy_(t)


def with_gaps(t: Tensor) -> Tensor:
    return t.repeat_interleave(2, -1)[..., ::2] if t.dim() else t


def transposed(t: Tensor) -> Tensor:
    return t.transpose(0, -1).contiguous().transpose(0, -1) if t.dim() > 1 else t


def negative(t: Tensor) -> Tensor:
    return torch._neg_view(-t) if t.is_floating_point() else t


def imaginary(t: Tensor) -> Tensor:
    return torch.complex(t, -t).conj().imag if t.dtype in (torch.float32, torch.float64) else t


def zero(t: Tensor) -> Tensor:
    return torch._efficientzerotensor(t.shape, dtype=t.dtype)


def expanded(t: Tensor) -> Tensor:
    return t[:1].expand(t.shape) if t.dim() and len(t) else t


def inference(t: Tensor) -> Tensor:
    with torch.inference_mode():
        return t.clone()


STORED_OTHERWISE: tuple[Callable[[Tensor], Tensor], ...] = (
    misaligned,
    with_gaps,
    transposed,
    negative,
    imaginary,
    zero,
    expanded,
    inference,
    lambda t: Parameter(t, requires_grad=False),
    lambda t: t.clone().requires_grad_() if t.is_floating_point() else t,
)


# ---- spoilt: it may be refused ---------------------------------------------------------------------------------------


def other_dtype(t: Tensor) -> Tensor:
    return t.to(
        random.choice((torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.complex64))
    )


def other_shape(t: Tensor) -> Tensor:
    return random.choice(
        (
            lambda: t.flatten(),
            lambda: t.unsqueeze(0),
            lambda: t.flatten()[:0],
            lambda: t[..., :-1] if t.dim() else t,
            lambda: t[:-1] if t.dim() else t,
            lambda: t.expand(2, *t.shape),
            lambda: torch.cat([t, t], -1) if t.dim() else t.expand(3),
            lambda: t.sum(),
        )
    )()


def other_layout(t: Tensor) -> Tensor:
    return random.choice(
        (
            lambda: t.to_sparse(),
            lambda: t.to_sparse_csr() if t.dim() == 2 else t.to_sparse(),
            lambda: t.to_mkldnn() if t.dtype is torch.float32 and t.numel() else t.to_sparse(),
            lambda: torch.nested.nested_tensor([t, t]),
            lambda: torch.nested.nested_tensor([t, t], layout=torch.jagged) if t.dim() else t.to_sparse(),
            lambda: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.quint8),
        )
    )()


def without_numbers(t: Tensor) -> Tensor:
    return t.to("meta")


def other_numbers(t: Tensor) -> Tensor:
    if not t.is_floating_point():
        return torch.randint(0, 256, t.shape).to(t.dtype)
    t = t.detach().contiguous().clone()
    if t.numel():
        t.view(-1)[random.randrange(t.numel())] = random.choice((torch.nan, torch.inf, -torch.inf, 1e4, 1e-40))
    return t


SPOILT = (other_dtype, other_shape, other_layout, without_numbers, other_numbers)
INTEGERS = (-(2**40), -1, 0, 1, 2, 3, 5, 255, 256, 257, 1000, 2**40)
FLOATS = (-1.0, 0.0, 1e-12, 0.3, 0.5, 1.0, 1.0001, float("nan"), float("inf"))


def spoil(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return random.choice(SPOILT)(argument)
    if isinstance(argument, bool):
        return not argument
    if isinstance(argument, int):
        return random.choice(INTEGERS)
    if isinstance(argument, float):
        return random.choice(FLOATS)
    if isinstance(argument, str):
        return random.choice(("", "split", "tf32", "float32", "saturating"))
    return argument


# ---- the operators: good arguments, and what must come out -----------------------------------------------------------


def normal(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape).to(dtype)


def layer() -> tuple[Tensor, Tensor, Tensor]:
    batch, size, units = (random.choice((1, 2, 3, 7, 17, 33)) for _ in range(3))
    pieces, dtype = random.choice((1, 2, 3, 5, 17)), random.choice(DTYPES)
    return (
        normal(batch, size, dtype=dtype),
        normal(units, pieces, size, dtype=dtype),
        normal(units, pieces, dtype=dtype),
    )


def backward() -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    x, weight, _ = layer()
    units, pieces, _ = weight.shape
    index = torch.randint(pieces, (len(x), units)).byte()
    return normal(len(x), units, dtype=x.dtype), x, weight, index, pieces


def maps() -> tuple[Tensor, int]:
    pieces = random.choice((1, 2, 3, 5))
    shape = (random.choice((1, 2, 9)), pieces * random.choice((1, 3, 70)), *random.choice(((), (1,), (3,), (2, 5))))
    return normal(*shape, dtype=random.choice(DTYPES)), pieces


def logits() -> Tensor:
    return 5 * normal(random.choice((1, 2, 7, 100, 300)), dtype=random.choice(DTYPES))


def points() -> tuple[Tensor, Tensor, Tensor]:
    n, count, d, dtype = *(random.choice((1, 2, 5, 20)) for _ in range(3)), random.choice(DTYPES[1:3])
    x, samples = normal(n, d, dtype=dtype), normal(count, d, dtype=dtype)
    return x, samples, (torch.rand(random.choice((1, 2, 5)), dtype=torch.float64) + 0.5)


def pulled() -> tuple[Any, ...]:
    x, samples, sigmas = points()
    log_sum = reference.parzen_logsumexp(x.double(), samples.double(), sigmas)
    return normal(*log_sum.shape, dtype=x.dtype), x, samples, sigmas, log_sum, "split"


def pulled_reference(grad: Tensor, x: Tensor, samples: Tensor, sigmas: Tensor, log_sum: Tensor, _: str) -> Any:
    inputs = [t.clone().requires_grad_() for t in (x, samples, sigmas)]
    expected = reference.parzen_logsumexp(*inputs)
    if not torch.allclose(expected, log_sum):  # somebody else's sums: there is no right answer
        return ()
    return torch.autograd.grad(expected, inputs, grad, materialize_grads=True)


def won(index: Tensor, pieces: int) -> Tensor:
    return torch.nn.functional.one_hot(index.long(), pieces).double()


def spread(grad: Tensor, index: Tensor, pieces: int) -> Tensor:
    z = grad.unsqueeze(2) * (index.unsqueeze(2) == torch.arange(pieces).view(1, 1, -1, *[1] * (grad.dim() - 2)))
    return z.flatten(1, 2)


def winners(z: Tensor, pieces: int) -> Tensor:
    return z.unflatten(1, (-1, pieces)).max(2).indices


def momentum(parameter: Tensor, velocity: Tensor, gradient: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
    parameter, velocity = parameter.detach().clone(), velocity.detach().clone()
    ops.momentum_update([parameter], [velocity], [gradient], rates)
    return parameter, velocity


def momentum_reference(parameter: Tensor, velocity: Tensor, gradient: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
    lists = [parameter.clone()], [velocity.clone()], [gradient]
    reference.momentum_update(*lists, rates)
    return lists[0][0], lists[1][0]


def good_momentum() -> tuple[Tensor, ...]:
    dtype, size = random.choice(DTYPES[1:3]), random.choice((1, 5, 100))
    return *(normal(size, dtype=dtype) for _ in range(3)), torch.rand(2, dtype=dtype)


def seeded() -> tuple[Tensor, Tensor]:
    return maps()[0], torch.tensor(random.randrange(-(2**63), 2**63))


def pair() -> tuple[Tensor, Tensor]:
    real = logits()
    return real, 5 * normal(random.choice((1, 3, 100)), dtype=real.dtype)


def picked(order: tuple[int, ...]) -> Callable[[], tuple[Any, ...]]:
    def make() -> tuple[Any, ...]:
        arguments = backward()
        return tuple(arguments[i] for i in order)

    return make


Make, Call = Callable[[], tuple[Any, ...]], Callable[..., Any]
# name -> good arguments, the call, the reference (in float64; None: nothing to compare with)
CALLS: dict[str, tuple[Make, Call, Call | None]] = {
    "pygan::maxout": (layer, lambda *a: OPS.maxout(*a)[0], reference.maxout),
    "pygan::maxout_pool": (maps, OPS.maxout_pool, lambda z, p: (reference.maxout_pool(z, p), winners(z, p))),
    "pygan::maxout_spread": (picked((0, 3, 4)), OPS.maxout_spread, spread),
    "pygan::maxout_grad_input": (
        picked((0, 2, 3)),
        OPS.maxout_grad_input,
        lambda g, w, i: torch.einsum("bu,bup,upi->bi", g, won(i, w.shape[1]), w),
    ),
    "pygan::maxout_grad_weight": (
        picked((0, 1, 3, 4)),
        OPS.maxout_grad_weight,
        lambda g, x, i, p: (
            torch.einsum("bu,bup,bi->upi", g, won(i, p), x),
            torch.einsum("bu,bup->up", g, won(i, p)),
        ),
    ),
    "pygan::discriminator_loss": (
        lambda: (*pair(), True),
        lambda *a: OPS.discriminator_loss(*a)[0],
        lambda r, f, _: reference.discriminator_loss(r, f),
    ),
    "pygan::generator_loss": (
        lambda: (logits(), False, True),
        lambda *a: OPS.generator_loss(*a)[0],
        lambda f, s, _: reference.generator_loss(f, "saturating" if s else "non_saturating"),
    ),
    "pygan::dropout": (
        lambda: (*seeded(), 0.5),
        OPS.dropout,
        lambda x, seed, keep: reference.dropout(x, 1 - keep, seed),
    ),
    "pygan::parzen_logsumexp": (
        lambda: (*points(), "split"),
        lambda *a: OPS.parzen_logsumexp(*a)[0],
        lambda x, samples, sigmas, _: reference.parzen_logsumexp(x, samples, sigmas),
    ),
    "pygan::parzen_logsumexp_backward": (pulled, OPS.parzen_logsumexp_backward, pulled_reference),
    "maxout": (layer, ops.maxout, reference.maxout),
    "maxout_pool": (maps, ops.maxout_pool, reference.maxout_pool),
    "discriminator_loss": (pair, ops.discriminator_loss, reference.discriminator_loss),
    "generator_loss": (lambda: (logits(), "saturating"), ops.generator_loss, reference.generator_loss),
    "dropout": (
        lambda: (*seeded(), 0.5),
        lambda x, seed, p: ops.dropout(x, p, seed),
        lambda x, seed, p: reference.dropout(x, p, seed),
    ),
    "parzen_logsumexp": (points, ops.parzen_logsumexp, reference.parzen_logsumexp),
    "momentum_update": (good_momentum, momentum, momentum_reference),
}


# ---- one call --------------------------------------------------------------------------------------------------------


def exact(argument: Any) -> Any:
    """The numbers that a disguised tensor stands for, in an ordinary tensor; float64 where they are floats."""
    if not isinstance(argument, Tensor):
        return argument
    argument = argument.detach().resolve_neg().resolve_conj().clone().contiguous()
    return argument.double() if argument.is_floating_point() else argument


TOLERANCES = {torch.bfloat16: 3e-2, torch.float16: 1e-2, torch.float32: 1e-4, torch.float64: 1e-9}


def assert_agrees(ours: Any, expected: Any, arguments: list[Any]) -> None:
    tolerance = max(TOLERANCES.get(a.dtype, 0) for a in arguments if isinstance(a, Tensor))
    ours, expected = ((t,) if isinstance(t, Tensor) else tuple(t) for t in (ours, expected))
    for a, b in zip(ours, expected, strict=False):
        if a.dtype is torch.uint8:
            assert torch.equal(a.long(), b), "the winning pieces differ"
            continue
        b = b.to(a.dtype).double()  # what overflows in the one dtype need not do so in the other
        scale = float(b.detach().abs().nan_to_num(0, 0, 0).max()) if b.numel() else 0
        torch.testing.assert_close(
            a.detach().double(), b, rtol=tolerance, atol=tolerance * max(scale, 1), equal_nan=True
        )


def call(seed: int) -> None:
    """The call of this seed. Raise AssertionError where it went wrong."""
    random.seed(seed)
    torch.manual_seed(seed)
    name = random.choice(list(CALLS))
    make, function, expect = CALLS[name]
    arguments = list(make())
    for i in random.sample(range(len(arguments)), random.choice((0, 1, 1, 2)) % (len(arguments) + 1)):
        if isinstance(arguments[i], Tensor):
            arguments[i] = random.choice(STORED_OTHERWISE)(arguments[i])
    may_be_refused = random.random() < 0.6
    if may_be_refused:
        for i in random.sample(range(len(arguments)), random.choice((1, 1, 2)) % (len(arguments) + 1)):
            arguments[i] = spoil(arguments[i])
    may_be_refused |= any(isinstance(a, Tensor) and a._is_zerotensor() for a in arguments)  # as sigmas, say
    if name == "momentum_update":  # wants contiguous tensors and changes two of them
        may_be_refused |= not all(a.is_contiguous() for a in arguments if isinstance(a, Tensor) and not a.is_nested)
    if random.random() < 0.02:
        fake(function, arguments)
        return
    start = time.monotonic()
    try:
        ours = function(*arguments)
    except (TypeError, ValueError, RuntimeError, NotImplementedError, IndexError, KeyError) as error:
        if not may_be_refused and not any(words in str(error) for words in REFUSALS):
            raise AssertionError(f"{name} refused good arguments: {error!r}") from error
        if isinstance(error, IndexError | KeyError) or any(words in str(error) for words in INTERNAL):
            raise AssertionError(f"{name}: {error!r} comes from the inside") from error
        return
    assert time.monotonic() - start < SECONDS, f"{name} took {time.monotonic() - start:.1f} s"
    if name == "dropout" and arguments[2] == 0:  # gives x itself, and no look at the seed
        return
    numbers = all(not isinstance(a, Tensor) or a.device.type == "cpu" for a in arguments)
    if (
        expect is not None
        and numbers
        and all(not isinstance(a, Tensor) or a.layout is torch.strided for a in arguments)
    ):
        finite = all(not isinstance(a, Tensor) or not a.is_floating_point() or a.isfinite().all() for a in arguments)
        if finite:
            assert_agrees(ours, expect(*map(exact, arguments)), arguments)


def fake(function: Call, arguments: list[Any]) -> None:
    """Under a mode that has only shapes there is nothing to compare, and nothing to read."""
    mode = FakeTensorMode()
    try:
        with mode:
            function(*[mode.from_tensor(a) if isinstance(a, Tensor) else a for a in arguments])
    except (TypeError, ValueError, RuntimeError, NotImplementedError, AssertionError):
        pass  # layouts that torch itself cannot fake


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000, help="how many calls (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the first call; the others count on (default 0)")
    parser.add_argument("--trace", action="store_true", help="print each seed before its call, to find one that dies")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable()  # torch reports each error under a FakeTensorMode there too
    torch.set_num_threads(1)
    assert {n for n in torch._C._dispatch_get_all_op_names() if n.startswith("pygan::")} <= set(CALLS)
    failures = 0
    for seed in range(arguments.seed, arguments.seed + arguments.calls):
        if arguments.trace:
            print(seed, flush=True)
        try:
            call(seed)
        except Exception as error:  # every kind is a failure, and the next calls are wanted too
            failures += 1
            if failures <= 20:
                print(f"--seed {seed}: {type(error).__name__}: {error}"[:600], flush=True)
    print(f"{arguments.calls} calls, {failures} failures")
    raise SystemExit(failures > 0)


if __name__ == "__main__":
    main()
