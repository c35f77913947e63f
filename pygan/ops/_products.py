"""Matrix products to float32's accuracy, whatever accuracy the user's switches allow his own products to lose.

On the CPU torch sends float32 products to MKL, which keeps to AVX2 on AMD processors. oneDNN, which torch carries too,
uses AVX-512 there, and from Zen 5 on, whose units have that width, it takes half the time. Its entry point, which
torch's own compiler uses, has no public name: it is looked for, and torch's ordinary functions serve where it is
missing.
"""

import torch
from torch import Tensor

from pygan import _core

__all__ = ["HAS_ONEDNN", "SUM_LENGTH", "exact", "half_products_are_exact", "inner", "multiply", "prepare"]

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
SUM_LENGTH = 196  # terms of a plain sum, which loses digits as it grows longer

_ZEN5 = 26  # a family of AMD processors
_ONEDNN_IS_FASTER = HAS_ONEDNN and _core.amd_family() >= _ZEN5 and _core.best_simd_level() == "avx512"


def exact(tensor: Tensor) -> bool:
    """Whether torch's products of such tensors have the accuracy of their dtype; its switches do not reach float64."""
    if tensor.dtype is torch.float64:
        return True
    backend = torch.backends.cuda if tensor.is_cuda else torch.backends.mkldnn
    precision = getattr(getattr(backend, "matmul", None), "fp32_precision", None)  # since torch 2.9
    return (precision or torch.get_float32_matmul_precision()) in ("highest", "ieee", "none")


def half_products_are_exact(x: Tensor) -> bool:
    """Whether torch multiplies float16 numbers into float32 sums (on CUDA since 2.8), and the user left them so."""
    if not x.is_cuda or x.dtype is torch.float64 or not hasattr(torch.ops.aten.mm, "dtype_out"):
        return False
    return not torch.backends.cuda.matmul.allow_fp16_accumulation


def multiply(a: Tensor, b: Tensor, out: Tensor) -> None:
    """out = a b, in float32 where a and b are float16, which torch can do on CUDA since 2.8."""
    if a.dtype is torch.float16:
        torch.mm(a, b, out_dtype=torch.float32, out=out)
    elif exact(a):
        torch.mm(a, b, out=out)
    else:
        out.copy_(torch.mm(a.double(), b.double()))


def prepare(rows: Tensor) -> Tensor | list[Tensor]:
    """`rows` [N, d] as the right side of `inner`: as they are for torch, cut into pieces of d for oneDNN."""
    if _ONEDNN_IS_FASTER and rows.dtype is torch.float32 and not rows.is_cuda and rows.numel() > 0 and exact(rows):
        return _cut(rows)
    return rows


def inner(x: Tensor, prepared: Tensor | list[Tensor], out: Tensor) -> Tensor:
    """x rows^T for x [n, d] and rows that were prepared, in the memory of `out` [n, N] or in some of its own."""
    if isinstance(prepared, Tensor):
        multiply(x, prepared.t(), out)
        return out
    first, *others = zip(_cut(x), prepared, strict=True)
    product = torch.ops.mkldnn._linear_pointwise(*first, None, "none", [], "")
    for a, b in others:
        product = torch.ops.mkldnn._linear_pointwise.binary(a, product, b, None, "add")
    return product


def _cut(rows: Tensor) -> list[Tensor]:
    return [piece.contiguous() for piece in rows.split(SUM_LENGTH, 1)]
