"""The accuracy rule (docs/decisions): ours may err twice as much as torch does, plus one unit in the last place.

Both errors are taken against float64, as the maximum over the tensor; infinities and NaN must agree exactly. For
float64 itself there is nothing more exact to compare with, and four units stand for both errors.
"""

import torch
from torch import Tensor

__all__ = ["assert_no_worse_than_torch"]


def assert_no_worse_than_torch(ours: Tensor, torchs: Tensor, exact: Tensor, largest: Tensor | None = None) -> None:
    """Asserts max |ours - exact| <= 2 max |torchs - exact| + one ULP of the largest value, in ours' dtype.

    `largest` is the size of the largest number that each result is made of: |exact| unless larger ones cancel.
    """
    assert ours.shape == exact.shape
    assert ours.dtype == torchs.dtype
    exact = exact.double()
    finite = exact.to(ours.dtype).isfinite()
    assert torch.equal(ours.isnan(), exact.isnan())
    infinite = ~finite & ~exact.isnan()
    assert torch.equal(ours[infinite], exact.to(ours.dtype)[infinite])
    if not finite.any():
        return
    largest = (exact.abs() if largest is None else largest)[finite].max()
    exact = exact[finite]
    error = (ours[finite].double() - exact).abs().max()
    torchs_error = (torchs[finite].double() - exact).nan_to_num(0.0, 0.0, 0.0).abs().max()
    ulp = torch.finfo(ours.dtype).eps * largest * (4 if ours.dtype is torch.float64 else 1)
    assert error <= 2 * torchs_error + ulp, f"error {error:.3g}, torch's {torchs_error:.3g}, ulp {ulp:.3g}"
