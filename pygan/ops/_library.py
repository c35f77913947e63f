"""How every op of pygan becomes a torch operator.

An op is one body, run on the CPU and on CUDA, that allocates its outputs with torch and hands addresses to
`pygan._core`, plus a fake kernel that only computes shapes. It is functional: it never returns or changes an input.

Gradients are attached outside the ops, by an `autograd.Function` whose forward and backward call ops (the cheapest
way that compiles without graph breaks, see docs/decisions). The bare op refuses to be differentiated, so that nobody
gets a silent zero.
"""

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pygan._build import build_info

__all__ = ["Function", "Impl", "address", "define", "dtype_code", "place", "plain", "under_autocast", "use_native"]

Impl = Literal["auto", "native", "reference"]

_DTYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}  # csrc/common/dtype.h
_NATIVE_DTYPES = {
    "cpu": (torch.float32, torch.float64, torch.bfloat16),
    "cuda": (torch.float32, torch.float64, torch.bfloat16, torch.float16),
}
_HAS_CUDA = build_info()["cuda"] is not None
_LIBRARY = torch.library.Library("pygan", "DEF")
_PLAIN = (Tensor, torch.nn.Parameter)
_noticed: set[str] = set()


def define(schema: str, body: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """Registers `pygan::<schema>` with one body for CPU and CUDA, a fake kernel, and a derivative that raises.

    Returns what a `Function` calls: the operator; its body at once where nothing else of torch would see the call.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema, tags=torch.Tag.pt2_compliant_tag)
    run = _without_autocast(body)
    for key in ("CPU", "CUDA"):
        _LIBRARY.impl(name, run, key)
    torch.library.register_fake(f"pygan::{name}", fake)
    op = getattr(torch.ops.pygan, name).default

    # A kernel at the Autograd key is the cheapest refusal; torch.library.register_autograd would cost 10 us a call.
    def refuse_derivative(keyset: torch._C.DispatchKeySet, *args: Any) -> Any:
        backward, forward = torch.is_grad_enabled(), forward_ad._current_level >= 0
        if (backward or forward) and any(
            (backward and arg.requires_grad) or (forward and forward_ad.unpack_dual(arg).tangent is not None)
            for arg in args
            if isinstance(arg, Tensor)
        ):
            raise RuntimeError(f"pygan::{name} has no derivative of its own: call the function of pygan.ops instead")
        return op.redispatch(keyset & torch._C._after_autograd_keyset, *args)

    _LIBRARY.impl(name, refuse_derivative, "Autograd", with_keyset=True)

    def call(*args: Any) -> Any:
        return run(*args) if plain(*args) else op(*args)

    return call


class Function(torch.autograd.Function):
    """An autograd.Function with `setup_context`, for positional arguments only.

    Where no transform of torch.func is active it skips torch's binding of default arguments by `inspect`: 8 us a call.
    """

    @classmethod
    def apply(cls, *args: Any) -> Any:
        if not plain(*args):
            return super().apply(*args)
        return super(torch.autograd.Function, cls).apply(*args)  # type: ignore[misc]


def plain(*args: Any) -> bool:
    """Whether these are ordinary tensors in eager mode: no compiler, no transform, no mode, no subclass looks on."""
    if (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
    ):
        return False
    for arg in args:  # noqa: SIM110 a generator would cost a microsecond
        if isinstance(arg, Tensor) and (type(arg) not in _PLAIN or arg.is_meta):
            return False
    return True


def _without_autocast(body: Callable[..., Any]) -> Callable[..., Any]:
    """Autocast would reach the matrix products inside a body; the public function has already chosen the dtype."""

    @wraps(body)
    def run(*args: Any) -> Any:
        device = args[0].device.type
        if not torch.is_autocast_enabled(device):
            return body(*args)
        with torch.autocast(device, enabled=False):
            return body(*args)

    return run


def under_autocast(tensor: Tensor) -> bool:
    """Whether autocast is on for the tensor's device; the public functions then choose the dtype."""
    return not tensor.is_meta and torch.is_autocast_enabled(tensor.device.type)


def use_native(op: str, impl: Impl, tensor: Tensor) -> bool:
    """Whether the native kernel serves this tensor's device and dtype.

    `auto` falls back to the reference and says so once.

    Raises:
        ValueError: `impl` is none of the three.
        RuntimeError: `impl="native"` where no kernel was built.
    """
    if impl not in ("auto", "native", "reference"):
        raise ValueError(f"{op}: impl must be 'auto', 'native' or 'reference', got {impl!r}")
    if impl == "reference":
        return False
    kind = tensor.device.type
    if kind == "meta" or (tensor.dtype in _NATIVE_DTYPES.get(kind, ()) and (kind != "cuda" or _HAS_CUDA)):
        return True
    reason = f"{op}: there is no native kernel for {tensor.dtype} on {kind!r} in this build (see pygan.build_info())"
    if impl == "native":
        raise RuntimeError(reason)
    if not torch.compiler.is_compiling():  # a warning would break the graph
        _notice(reason)
    return False


def _notice(reason: str) -> None:
    if reason not in _noticed:
        _noticed.add(reason)
        warnings.warn(f"{reason}; the plain torch reference runs instead", stacklevel=4)


def address(tensor: Tensor | None) -> int:
    """The address of a contiguous tensor's first element; 0 for None. Keep the tensor alive during the call."""
    return 0 if tensor is None else tensor.data_ptr()


def dtype_code(tensor: Tensor) -> int:
    """The number by which the core knows the tensor's dtype."""
    return _DTYPE_CODES[tensor.dtype]


def place(tensor: Tensor) -> tuple[int, int, int]:
    """(device, stream, threads): the last three arguments of every native call."""
    if tensor.is_cuda:
        return tensor.get_device(), torch.cuda.current_stream(tensor.device).cuda_stream, 1
    return -1, 0, torch.get_num_threads()
