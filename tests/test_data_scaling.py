"""The scales on which the players see pixels: formulas, the way back, state, and a scale of one's own."""

import math
import weakref
from dataclasses import dataclass

import pytest
import torch

from pygan.data import SCALES, Batch, Scale, as_float, make_scale, scaling
from pygan.data.scaling import Gcn


def images(n=50, seed=0):
    return torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["unit", "signed", "standard", "gcn"])
def test_a_scale_is_built_again_from_its_state(name):
    scale = make_scale(name, Batch(images()))
    state = scale.state()
    assert scale.name == name
    assert all(type(value) is float for value in state.values())
    again = SCALES[name](**state)
    assert again == scale
    x = images(5).float() / 255
    assert torch.equal(again.apply(x), scale.apply(x))


@pytest.mark.parametrize(("name", "low", "high"), [("unit", 0, 1), ("signed", -1, 1)])
def test_exact_scales_reach_their_range_and_come_back(name, low, high):
    scale = make_scale(name, Batch(images()))
    x = torch.arange(256).view(1, 1, 16, 16) / 255
    assert scale.exact
    assert scale.apply(x).aminmax() == (low, high)
    torch.testing.assert_close(scale.invert(scale.apply(x)), x, rtol=0, atol=6e-8)
    values = torch.tensor([low, 0.3, high]).view(1, 1, 1, 3)
    assert scale.invert(values).aminmax() == (0, 1)


@pytest.mark.parametrize("n", [50, 2500])  # several chunks
def test_standard_values_have_mean_0_and_deviation_1(n):
    data = images(n)
    scale, x = make_scale("standard", Batch(data)), data.float() / 255
    values = scale.apply(x).double()
    assert values.mean().item() == pytest.approx(0, abs=1e-6)
    assert values.std(correction=0).item() == pytest.approx(1, rel=1e-6)
    torch.testing.assert_close(scale.invert(scale.apply(x)), x)
    assert scale.invert(torch.tensor([-9.0, 9.0])).tolist() == [0, 1]
    assert make_scale("standard", Batch(torch.full((2, 1, 1, 2), 0.5))).apply(torch.full((1, 1, 1, 2), 0.5)).sum() == 0


def test_standard_holds_no_more_than_two_chunks_at_a_time(monkeypatch):
    made, most = [], []

    def counted(images):
        values = as_float(images).double()
        made.append(weakref.ref(values))
        most.append(sum(one() is not None for one in made))
        return values

    monkeypatch.setattr(scaling, "_CHUNK", 10)
    monkeypatch.setattr(scaling, "as_float", counted)
    make_scale("standard", Batch(images()))
    assert len(made) == 10  # two passes
    assert max(most) <= 2


def test_gcn_is_the_formula_of_2014():
    x = images(20).double() / 255
    values = make_scale("gcn", Batch(images())).apply(x)
    for image, value in zip(x, values, strict=True):
        centred = image - image.mean()
        torch.testing.assert_close(value, centred / centred.square().sum().sqrt() * 55)
    torch.testing.assert_close(values.flatten(1).norm(dim=1), torch.full((20,), 55.0).double())


@pytest.mark.parametrize("gray", [0.0, 0.1, 1 / 3, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gcn_of_a_constant_image_is_zero(gray, dtype):
    flat = torch.full((1, 3, 32, 32), gray, dtype=dtype)
    flat[0, 0, 0, 0] = flat[0, 0, 0, 0].nextafter(torch.tensor(0.5, dtype=dtype))  # one rounding away from constant
    assert not make_scale("gcn", Batch(images())).apply(flat).any()


def test_gcn_keeps_the_faintest_picture_that_8_bits_can_hold():
    faint = torch.zeros(1, 3, 128, 128)
    faint[0, 0, 0, 0] = 1 / 255
    assert make_scale("gcn", Batch(images())).apply(faint).norm().item() == pytest.approx(55, rel=1e-4)


def test_the_inverse_of_gcn_has_the_mean_and_contrast_of_the_training_images():
    train = images(2500)  # more than are measured at a time
    scale = make_scale("gcn", Batch(train))
    x = train.float() / 255
    centred = (x - x.mean((1, 2, 3), keepdim=True)).flatten(1)
    assert scale == Gcn(pytest.approx(x.mean().item()), pytest.approx(centred.norm(dim=1).mean().item(), rel=1e-5))
    assert not scale.exact
    pictures = scale.invert(scale.apply(x[:50]))
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert (pictures - x[:50]).abs().mean() < 0.03, "noise images have nearly one mean and one contrast"
    assert scale.invert(torch.full((1, 3, 8, 8), 1e4)).max() == 1
    assert scale.invert(torch.full((1, 3, 8, 8), -1e4)).min() == 0


def test_gcn_measures_float_images_and_refuses_none():
    train = images()
    of_floats, of_bytes = make_scale("gcn", Batch(train.float() / 255)), make_scale("gcn", Batch(train))
    assert of_floats == of_bytes
    with pytest.raises(ValueError, match="gcn: needs at least one training image"):
        make_scale("gcn", Batch(train[:0]))


def test_an_unknown_scale_is_refused():
    with pytest.raises(
        ValueError, match=r"scale: must be one of unit, signed, standard, gcn, got 'sined'; did you mean 'signed'"
    ):
        make_scale("sined", Batch(images()))


def test_integers_are_not_scaled():
    for name in SCALES:
        with pytest.raises(TypeError, match=r"images must be floating-point in \[0, 1\], got torch.uint8"):
            make_scale(name, Batch(images())).apply(images())


@dataclass(frozen=True)
class Root(Scale):
    name = "root"
    exact = True

    def apply(self, images):
        return images.sqrt()

    def invert(self, values):
        return values**2


def test_a_scale_is_added_by_one_class_and_one_line(monkeypatch):
    monkeypatch.setitem(SCALES, Root.name, Root)
    scale = make_scale("root", Batch(images()))
    assert scale.apply(torch.tensor([0.25])).item() == 0.5
    assert scale.state() == {}
    assert math.isclose(scale.invert(torch.tensor([0.5])).item(), 0.25)
