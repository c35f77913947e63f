import math

import pytest
import torch
from torch import nn

from pygan.data import Batch
from pygan.data.densities import gaussians8, gaussians25
from pygan.data.stacked import stack_digits
from pygan.evaluate import Classifier, class_modes, gaussian_modes, stacked_digit_modes


def test_the_mixture_itself_finds_every_mode():
    grid = gaussians25()
    found = gaussian_modes(grid.sample(20_000, seed=0), grid.centres, grid.std)
    assert (found.found, found.modes) == (25, 25)
    assert found.near == pytest.approx(1 - math.exp(-4.5), abs=0.003)
    assert found.kl == pytest.approx(24 / 40_000, abs=6e-4)
    assert int(found.counts.sum()) == round(found.near * 20_000)


def test_collapse_onto_two_of_eight():
    ring = gaussians8()
    samples = ring.centres[[0] * 30 + [4] * 10].float()
    found = gaussian_modes(samples, ring.centres, ring.std)
    assert (found.found, found.near) == (2, 1)
    assert found.kl == pytest.approx(0.75 * math.log(0.75 * 8) + 0.25 * math.log(0.25 * 8))
    assert found.counts.tolist() == [30, 0, 0, 0, 10, 0, 0, 0]
    assert str(found) == f"2 of 8 modes, 100.0% of the samples near one, KL {found.kl:.3f} nats"


def test_three_standard_deviations_and_not_more():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    samples = torch.tensor([[0.0, 2.99], [0.0, 3.01], [10.0, -2.99], [5.0, 0.0], [torch.nan, 0.0], [torch.inf, 0.0]])
    assert gaussian_modes(samples, centres, 1.0).counts.tolist() == [1, 1]
    assert gaussian_modes(samples, centres, 1.0).near == 2 / 6
    assert gaussian_modes(samples, centres, 1.0, within=4).counts.tolist() == [2, 1]


def test_no_sample_near_a_mode():
    found = gaussian_modes(torch.full((5, 1, 1, 2), 100.0), gaussians8().centres, 0.02)
    assert (found.found, found.near) == (0, 0)
    assert math.isnan(found.kl)


def test_the_unit_box_gives_the_same():
    grid = gaussians25()
    samples, unit = grid.sample(2000, seed=0), grid.in_unit_box()
    raw = gaussian_modes(samples, grid.centres, grid.std)
    mapped = gaussian_modes(grid.to_unit(samples)[:, None, None], unit.centres, unit.std)
    assert (mapped.found, mapped.near, mapped.kl) == (raw.found, raw.near, raw.kl)


def test_class_modes():
    found = class_modes(torch.tensor([0, 0, 2, 2]), 4)
    assert (found.found, found.modes, found.near) == (2, 4, 1)
    assert found.kl == pytest.approx(math.log(2))
    assert class_modes(torch.arange(4), 4).kl == 0


class Exact(Classifier):
    """Knows the digit from the brightness of the first pixel."""

    def __init__(self) -> None:
        super().__init__((1, 4, 4), 10, "exact")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot((images[:, 0, 0, 0] * 255).round().long(), 10).float()


def test_stacked_digits_are_counted_by_channel():
    digits = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 1, 4, 4)
    stacked = stack_digits(Batch(digits, torch.arange(10)), 3000, seed=0)
    images, labels = stacked.images, stacked.labels
    found = stacked_digit_modes(images, Exact())
    assert torch.equal(found.counts, torch.bincount(labels, minlength=1000))
    assert found.found == len(labels.unique())
    assert found.modes == 1000
    same = stacked_digit_modes(images[:1].expand(50, 3, 4, 4), Exact())
    assert same.found == 1
    assert same.kl == pytest.approx(math.log(1000))


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (lambda: gaussian_modes(torch.zeros(3, 3), torch.zeros(4, 2), 1.0), "with 2 values per sample, got .3, 3."),
        (lambda: gaussian_modes(torch.zeros(0, 2), torch.zeros(4, 2), 1.0), "with 2 values per sample, got .0, 2."),
        (lambda: class_modes(torch.tensor([0, 4]), 4), r"classes must be in 0\.\.3, got 0\.\.4"),
        (lambda: class_modes(torch.zeros(2, 2, dtype=torch.int64), 4), "classes must have shape .n >= 1., got .2, 2."),
        (lambda: stacked_digit_modes(torch.zeros(2, 1, 4, 4), Exact()), "images must have shape .n >= 1, 3, H, W."),
        (
            lambda: stacked_digit_modes(torch.zeros(2, 3, 4, 4), Classifier((1, 4, 4), 2, "two")),
            "classifier must know 10 classes, got 2",
        ),
    ],
)
def test_refused(count, message):
    with pytest.raises(ValueError, match=message):
        count()
