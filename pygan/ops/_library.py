"""How every op of pygan becomes a torch operator, and the one gate through which tensors reach the native core.

An op is one body, run on the CPU and on CUDA, that allocates its outputs with torch and hands addresses to
`pygan._core`, plus a check of its arguments and a fake kernel that only computes shapes. It is functional: it never
returns or changes an input. `define` puts the check before the body and before the fake kernel, whoever
calls: a public function, autograd, a compiled or exported graph, or a user of `torch.ops.pygan`.

The core reads plain memory. A tensor whose numbers are not simply its memory (a lazy negative bit, a subclass) is
recognised by `plain`, one without memory or between two multiples of its element size by `address`: such calls take the
way through torch's dispatcher, which makes ordinary tensors of the first ones, and `define` copies the others.

Gradients are attached outside the ops, by an `autograd.Function` whose forward and backward call ops (the cheapest
way that compiles without graph breaks, see docs/decisions). A call of the bare op that needs a derivative is sent to
that Function, and refused where there is none, so that nobody gets a silent zero.
"""

import types
import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch._functorch import eager_transforms
from torch.autograd import forward_ad

from pygan._build import build_info
from pygan.ops._checks import FLOATS, check_place

__all__ = [
    "Function",
    "Impl",
    "UnreadableError",
    "address",
    "define",
    "dtype_code",
    "is_recorded",
    "may_be_differentiated",
    "place",
    "plain",
    "save",
    "under_autocast",
    "use_native",
]

Impl = Literal["auto", "native", "reference"]

_DTYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}  # csrc/common/dtype.h
_NATIVE_DTYPES = {
    "cpu": (torch.float32, torch.float64, torch.bfloat16),
    "cuda": (torch.float32, torch.float64, torch.bfloat16, torch.float16),
}
_HAS_CUDA = build_info()["cuda"] is not None
_LIBRARY = torch.library.Library("pygan", "DEF")
_PLAIN = (Tensor, torch.nn.Parameter)
_SCALARS = (bool, int, float, str, type(None))
_OTHER_LAYOUTS = (
    *(layout + device for layout in ("Sparse", "SparseCsr", "Quantized", "NestedTensor") for device in ("CPU", "CUDA")),
    "MkldnnCPU",
    "AutogradNestedTensor",
)
_COMPILER_EXPORTS = getattr(torch.compiler, "is_exporting", lambda: False)  # since torch 2.7
_noticed: set[str] = set()


def define(
    schema: str,
    check: Callable[..., None],
    body: Callable[..., Any],
    fake: Callable[..., Any],
    derivative: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Register `pygan::<schema>`.

    Args:
        schema: name, arguments and results, as torch writes them.
        check: raises for dtypes, shapes and numbers that `body` cannot serve; it runs before `body` and before `fake`.
            Layouts and devices are checked for every op alike.
        body: the op on the CPU and on CUDA, for ordinary tensors.
        fake: its results' shapes, dtypes and devices.
        derivative: a differentiable equivalent, which serves calls that need a derivative; None refuses them.

    Returns:
        What a `Function` and the fast step call: the operator, or its body at once where no transform or dispatch mode
        would see the call. (torch.profiler and function modes see only the operator.)
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema, tags=torch.Tag.pt2_compliant_tag)

    op = getattr(torch.ops.pygan, name).default
    names = [
        None if "Tensor" not in str(argument.type) else argument.name + "?" * ("Optional" in str(argument.type))
        for argument in op._schema.arguments
    ]

    def check_all(*args: Any) -> None:
        check_place(name, names, args)
        check(*args)

    def run(*args: Any) -> Any:
        """For arguments on devices that were checked, by the dispatcher's CPU key or by `plain`."""
        check(*args)
        device = "cuda" if args[0].is_cuda else "cpu"
        if torch.is_autocast_enabled(device):  # the public function has already chosen the dtype
            with torch.autocast(device, enabled=False):
                return run(*args)
        try:
            return body(*args)
        except UnreadableError:
            return body(*[arg.clone() if isinstance(arg, Tensor) else arg for arg in args])

    def run_anywhere(*args: Any) -> Any:
        check_place(name, names, args)
        return run(*args)

    def checked_fake(*args: Any) -> Any:
        check_all(*args)
        return fake(*args)

    _LIBRARY.impl(name, run, "CPU")
    for key in ("CUDA", *_OTHER_LAYOUTS):
        _LIBRARY.impl(name, run_anywhere, key)
    torch.library.register_fake(f"pygan::{name}", checked_fake)
    torch.library.register_vmap(f"pygan::{name}", _one_by_one(op, fake))

    # A kernel at the Autograd key is the cheapest way; torch.library.register_autograd would cost 10 us a call.
    def autograd(keyset: torch._C.DispatchKeySet, *args: Any) -> Any:
        recorded = torch.is_grad_enabled() or forward_ad._current_level >= 0
        if not recorded or not _needs_derivative(args):
            return op.redispatch(keyset & torch._C._after_autograd_keyset, *args)
        if derivative is None or torch._C._are_functorch_transforms_active():
            raise RuntimeError(
                f"pygan::{name} has no derivative of its own here: call the function of pygan.ops instead"
            )
        return derivative(*args)

    _LIBRARY.impl(name, autograd, "Autograd", with_keyset=True)

    def call(*args: Any) -> Any:
        if plain(*args):
            try:
                return run(*args)
            except AttributeError:  # a number where a tensor belongs?
                check_place(name, names, args)
                raise
        if not torch.compiler.is_compiling():
            check_all(*args)  # before a tensor subclass of torch's refuses the operator in words of its own
        return op(*args)

    return call


def _needs_derivative(args: tuple[Any, ...]) -> bool:
    backward, forward = torch.is_grad_enabled(), _forward_mode()
    return (backward or forward) and any(
        (backward and arg.requires_grad) or (forward and forward_ad.unpack_dual(arg).tangent is not None)
        for arg in args
        if isinstance(arg, Tensor)
    )


def _forward_mode() -> bool:
    return forward_ad._current_level >= 0 and torch._C._is_fwd_grad_enabled()


def _one_by_one(op: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """The vmap rule of every op: one call for each element of the batch."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        elements = [
            [arg] * max(info.batch_size, 1) if d is None else list(arg.unbind(d)) or [arg.sum(d)]
            for arg, d in zip(args, in_dims, strict=True)
        ]
        # Of an empty batch, the shapes of one result are wanted.
        results = list(map(op if info.batch_size > 0 else fake, *elements))
        if isinstance(results[0], Tensor):
            return torch.stack(results)[: info.batch_size], 0
        stacked = [torch.stack(parts)[: info.batch_size] for parts in zip(*results, strict=True)]
        return tuple(stacked), (0,) * len(stacked)

    return rule


class Function(torch.autograd.Function):
    """An autograd.Function with `setup_context`, for positional arguments only, under vmap and in forward mode too.

    A subclass gives its forward-mode formula as `tangent`, with the arguments of torch's `jvp`. torch.compile refuses
    every Function that has a `jvp`, so only a second class has one, which serves while forward mode is on.

    Where no transform of torch.func is active, `apply` skips torch's binding of default arguments by `inspect`, 8 us a
    call; and where no derivative can be asked for, all of torch's bookkeeping.
    """

    generate_vmap_rule = True
    _dual: type[torch.autograd.Function]

    def __init_subclass__(cls) -> None:
        if "jvp" in vars(cls):
            return

        def jvp(ctx: Any, *tangents: Any) -> Any:
            if _is_nested_forward_mode():
                raise RuntimeError("pygan.ops: forward mode inside forward mode needs impl='auto' or 'reference'")
            return cls.tangent(ctx, *tangents)

        cls._dual = types.new_class(cls.__name__, (cls,), exec_body=lambda names: names.update(jvp=staticmethod(jvp)))

    @classmethod
    def apply(cls, *args: Any) -> Any:
        function = cls._dual if forward_ad._current_level >= 0 else cls
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return super(Function, function).apply(*args)  # type: ignore[misc]
        if not may_be_differentiated(*args):
            return cls.forward(*args)
        return super(torch.autograd.Function, function).apply(*args)  # type: ignore[misc]

    @staticmethod
    def tangent(ctx: Any, *tangents: Any) -> Any:
        """Refuse forward mode where there is no formula."""
        raise RuntimeError("pygan.ops: this has no forward-mode derivative; use impl='reference', which has one")


def save(ctx: Any, *tensors: Tensor | None) -> None:
    """Keep tensors for `backward` and, in forward mode, for `tangent`; both find them in `ctx.saved_tensors`."""
    ctx.save_for_backward(*tensors)
    if forward_ad._current_level >= 0:
        ctx.save_for_forward(*tensors)


def is_recorded() -> bool:
    """Whether what a backward pass computes may itself be differentiated, in reverse or in forward mode."""
    return torch.is_grad_enabled() or forward_ad._current_level >= 0


def may_be_differentiated(*args: Any) -> bool:
    """Whether a derivative with respect to any of the tensors among these arguments may be asked for."""
    if forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active():
        return True
    if torch.is_grad_enabled():
        for arg in args:
            if isinstance(arg, Tensor) and arg.requires_grad:
                return True
    return False


def plain(*args: Any) -> bool:
    """Whether a call with these arguments may go straight to the core, past torch's dispatcher.

    That is: eager mode without a transform or mode; dense tensors of one device, no subclass, no sign that is yet to be
    changed; and besides tensors only numbers, strings and None.
    """
    if (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
    ):
        return False
    device = None
    for arg in args:
        if type(arg) in _PLAIN:
            try:
                arg.data_ptr()
            except RuntimeError:  # sparse, of MKL-DNN, or batched by a transform
                return False
            if arg.is_neg() or arg.is_nested:
                return False
            where = -1 if arg.is_cpu else arg.get_device() if arg.is_cuda else None
            if where is None or (device is not None and where != device):
                return False
            device = where
        elif type(arg) not in _SCALARS:
            return False
    return True


def under_autocast(tensor: Tensor) -> bool:
    """Whether autocast is on for the tensor's device; the public functions then choose the dtype."""
    if not isinstance(tensor, Tensor) or tensor.is_meta:
        return False
    return torch.is_autocast_enabled("cpu" if tensor.is_cpu else tensor.device.type)


def use_native(op: str, impl: Impl, tensor: Tensor) -> bool:
    """Whether the native kernel serves this tensor's device and dtype. Where not, the caller checks the arguments.

    `auto` falls back to the reference and says so once. It also uses the reference during torch.export, ONNX export and
    torch.jit.trace, so that what they write consists of torch's own operators and runs without pygan; and for forward
    mode inside forward mode, in which torch loses the outer derivative of any autograd.Function.

    Raises:
        ValueError: `impl` is none of the three.
        RuntimeError: `impl="native"` where no kernel was built.
    """
    if impl not in ("auto", "native", "reference"):
        raise ValueError(f"{op}: impl must be 'auto', 'native' or 'reference', got {impl!r}")
    if impl == "reference" or not isinstance(tensor, Tensor) or (impl == "auto" and _needs_reference()):
        return False
    if tensor.is_cpu and tensor.dtype in _NATIVE_DTYPES["cpu"]:
        return True
    if tensor.dtype not in FLOATS:  # the check of the arguments will say so
        return False
    kind = tensor.device.type
    if kind == "meta" or (kind == "cuda" and _HAS_CUDA and tensor.dtype in _NATIVE_DTYPES["cuda"]):
        return True
    reason = f"{op}: there is no native kernel for {tensor.dtype} on {kind!r} in this build (see pygan.build_info())"
    if impl == "native":
        raise RuntimeError(reason)
    if not torch.compiler.is_compiling():  # a warning would break the graph
        _notice(reason)
    return False


def _needs_reference() -> bool:
    if torch.compiler.is_compiling():
        return _COMPILER_EXPORTS()
    return torch._C._is_tracing() or _is_nested_forward_mode()


def _is_nested_forward_mode() -> bool:
    return forward_ad._current_level >= 0 and eager_transforms.JVP_NESTING > 1


def _notice(reason: str) -> None:
    if reason not in _noticed:
        _noticed.add(reason)
        warnings.warn(f"{reason}; the plain torch reference runs instead", stacklevel=4)


class UnreadableError(Exception):
    """A tensor has no memory, or begins between two multiples of its element size."""


def address(tensor: Tensor | None) -> int:
    """The address of a contiguous tensor's first element; 0 for None and for empty tensors.

    Keep the tensor alive during the call.

    Raises:
        UnreadableError: the core cannot read there.
    """
    if tensor is None:
        return 0
    start = tensor.data_ptr()
    if (start == 0 and tensor.numel() > 0) or (start & 7 and start % tensor.element_size()):
        raise UnreadableError
    return start


def dtype_code(tensor: Tensor) -> int:
    """The number by which the core knows the tensor's dtype."""
    return _DTYPE_CODES[tensor.dtype]


def place(tensor: Tensor) -> tuple[int, int, int]:
    """(device, stream, threads): the last three arguments of every native call."""
    if tensor.is_cuda:
        device = tensor.get_device()
        return device, torch._C._cuda_getCurrentRawStream(device), 1  # as torch's own compiler finds the stream
    return -1, 0, torch.get_num_threads()
