"""The Maxout layer: its parameters, its dropout, its place among torch's modules."""

import pytest
import torch
from torch import nn

from pygan import _core
from pygan.nn import Maxout
from pygan.ops import reference


def test_parameters_start_as_those_of_linear() -> None:
    layer = Maxout(100, 40, 5)
    assert layer.weight.shape == (40, 5, 100)
    assert layer.bias.shape == (40, 5)
    for parameter in (layer.weight, layer.bias):
        assert parameter.abs().max() <= 0.1
        assert parameter.abs().max() > 0.09
    before = layer.weight.clone()
    layer.reset_parameters()
    assert not torch.equal(layer.weight, before)


def test_without_dropout_it_is_the_op() -> None:
    layer, x = Maxout(6, 4, 3), torch.randn(2, 5, 6)
    assert torch.equal(layer(x), reference.maxout(x, layer.weight, layer.bias))


def test_dropout_of_the_input_while_training() -> None:
    layer, x = Maxout(1000, 1, 1, dropout=0.25).double(), torch.ones(1, 1000, dtype=torch.float64)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    kept = layer(x).item() * 0.75  # what is kept counts 1 / 0.75 each
    assert kept == pytest.approx(round(kept))
    assert 650 < kept < 850
    assert layer(x) != layer(x)
    assert layer.eval()(x).item() == pytest.approx(1000)


def test_state_dict_and_deep_models() -> None:
    model, x = nn.Sequential(Maxout(5, 4, 2), Maxout(4, 1, 3)), torch.randn(7, 5)
    twin = nn.Sequential(Maxout(5, 4, 2), Maxout(4, 1, 3))
    twin.load_state_dict(model.state_dict())
    assert torch.equal(model(x), twin(x))
    model(x).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_it_takes_what_layers_of_torch_take() -> None:
    layer = Maxout(5, 4, 2, bias=False, dtype=torch.float64, impl="reference")
    assert layer.bias is None
    assert list(layer.state_dict()) == ["weight"]
    x = torch.randn(3, 5, dtype=torch.float64)
    assert torch.equal(layer(x), reference.maxout(x, layer.weight))
    assert repr(layer) == "Maxout(5, units=4, pieces=2, dropout=0.0, bias=False)"
    layer.reset_parameters()
    meta = Maxout(5, 4, 2, device="meta")
    assert meta.weight.is_meta
    assert meta.bias.is_meta
    with pytest.raises(ValueError, match="Maxout: impl must be 'auto', 'native' or 'reference', got 'fast'"):
        Maxout(5, 4, 2, impl="fast")


def test_impl_reaches_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the native core was called")

    layer = Maxout(5, 4, 2, dropout=0.5, impl="reference")
    for name in ("dropout", "maxout_pool", "maxout_grad_input", "maxout_grad_weight"):
        monkeypatch.setattr(_core, name, refuse)
    layer(torch.randn(20, 5)).sum().backward()
    layer.impl = "native"
    with pytest.raises(AssertionError, match="the native core was called"):
        layer(torch.randn(20, 5))


def test_it_prints_its_sizes() -> None:
    assert repr(Maxout(5, 4, 2, dropout=0.5)) == "Maxout(5, units=4, pieces=2, dropout=0.5)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, 2), "in_features must be at least 1, got 0"),
        ((5, 0, 2), "units must be at least 1, got 0"),
        ((5, 4, 0), "pieces must be at least 1, got 0"),
        ((5, 4, 257), "pieces must be at most 256, got 257"),
        ((5, 4, 2, 1.0), r"dropout must be in \[0, 1\), got 1\.0"),
        ((5, 4, 2, -0.1), r"dropout must be in \[0, 1\), got -0\.1"),
    ],
)
def test_bad_sizes(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match="Maxout: " + message):
        Maxout(*arguments)
