"""The optimisers of `pygan.optim` and the moving average."""

import pytest
import torch
from torch import nn

from pygan.nn import Maxout
from pygan.optim import OPTIMIZERS, Adam, Momentum, MomentumSettings, MovingAverage, RMSprop


def test_momentum_is_the_rule_of_the_2014_code() -> None:
    """The rate is inside the velocity: a later change of it does not rescale what has gathered."""
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(1.0)
    optimizer = Momentum(module)
    gradient = [torch.ones(1, 1)]
    optimizer.step(gradient, lr=0.1, momentum=0.5)
    assert module.weight.item() == pytest.approx(0.9)
    optimizer.step(gradient, lr=0.01, momentum=0.5)
    assert module.weight.item() == pytest.approx(0.9 - 0.05 - 0.01)


def test_momentum_is_v_m_v_minus_lr_g() -> None:
    module = nn.Linear(1, 1, bias=False)
    optimizer, expected, velocity = Momentum(module), module.weight.item(), 0.0
    for gradient, lr, momentum in [(1.0, 0.1, 0.5), (-2.0, 0.05, 0.6), (0.5, 0.01, 0.7)]:
        optimizer.step([torch.tensor([[gradient]])], lr, momentum)
        velocity = momentum * velocity - lr * gradient
        expected += velocity
        assert module.weight.item() == pytest.approx(expected, rel=1e-6)


def test_adam_is_torchs_with_the_rate_of_each_step() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    optimizer, reference = Adam(ours, (0.5, 0.99)), torch.optim.Adam(theirs.parameters(), betas=(0.5, 0.99))
    for lr in (0.1, 0.05):
        gradients = [torch.randn_like(parameter) for parameter in ours.parameters()]
        optimizer.step(gradients, lr, 0.9)
        reference.param_groups[0]["lr"] = lr
        for parameter, gradient in zip(theirs.parameters(), gradients, strict=True):
            parameter.grad = gradient
        reference.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_adam_is_torchs_and_goes_on_from_its_state() -> None:
    ours, torchs = nn.Linear(3, 2), nn.Linear(3, 2)
    torchs.load_state_dict(ours.state_dict())
    reference = torch.optim.Adam(torchs.parameters(), lr=0.01, betas=(0.5, 0.9), fused=True)
    optimizer = Adam(ours, (0.5, 0.9))
    for i in range(6):
        if i == 3:
            state = {name: tensor.clone() for name, tensor in optimizer.state_dict().items()}
            optimizer = Adam(ours, (0.5, 0.9))
            optimizer.load_state_dict(state)
        gradients = [torch.randn_like(parameter) for parameter in ours.parameters()]
        for parameter, gradient in zip(torchs.parameters(), gradients, strict=True):
            parameter.grad = gradient.clone()
        reference.step()
        optimizer.step(gradients, lr=0.01, momentum=0.0)
    for a, b in zip(ours.parameters(), torchs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_rmsprop_is_torchs_with_the_rate_of_each_step_and_goes_on_from_its_state() -> None:
    ours, torchs = nn.Linear(3, 2), nn.Linear(3, 2)
    torchs.load_state_dict(ours.state_dict())
    reference, optimizer = torch.optim.RMSprop(torchs.parameters(), alpha=0.9), RMSprop(ours, 0.9)
    for lr in (0.1, 0.05, 0.01):
        state = {name: tensor.clone() for name, tensor in optimizer.state_dict().items()}
        optimizer = RMSprop(ours, 0.9)
        optimizer.load_state_dict(state)
        gradients = [torch.randn_like(parameter) for parameter in ours.parameters()]
        reference.param_groups[0]["lr"] = lr
        for parameter, gradient in zip(torchs.parameters(), gradients, strict=True):
            parameter.grad = gradient.clone()
        reference.step()
        optimizer.step(gradients, lr, momentum=0.9)
    for one, other in zip(ours.parameters(), torchs.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert set(optimizer.state_dict()) == {"weight.step", "weight.square_avg", "bias.step", "bias.square_avg"}


def test_the_average_forgets_the_start_and_then_decays_as_told() -> None:
    module = nn.Linear(1, 1, bias=False)
    averaged = MovingAverage(module, 0.99)
    for update in range(2000):
        module.weight.data.fill_(float(update))
        averaged.update(module)
        if update == 100:  # an average over the last quarter lags by a fifth
            assert averaged.module.weight.item() == pytest.approx(80, abs=0.5)
    assert averaged.module.weight.item() == pytest.approx(1999 - 99, abs=0.5)  # the lag of decay .99


def test_the_average_of_buffers_and_of_counters() -> None:
    module = nn.BatchNorm1d(1)
    averaged = MovingAverage(module, 0.9)
    for mean in (1.0, 2.0):
        module.running_mean.fill_(mean)
        module.num_batches_tracked += 1
        averaged.update(module)
    assert averaged.module.running_mean.item() == pytest.approx(1.8)  # the second update weighs 4 / 5
    assert averaged.module.num_batches_tracked == 2
    assert averaged.n_averaged == 2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_update_rule_keeps_to_the_interface(name: str) -> None:
    """Its state exists from the start, is named after the parameters, and leaves frozen ones out."""
    module = nn.Linear(3, 2)
    module.bias.requires_grad_(False)
    optimizer = OPTIMIZERS[name]().make(module)
    assert OPTIMIZERS[name].name == name
    assert list(optimizer.parameters) == ["weight"]
    before = optimizer.state_dict()
    assert before
    assert all(key.startswith("weight.") for key in before)
    weight = module.weight.detach().clone()
    optimizer.step([torch.ones(2, 3)], 0.1, 0.5)
    assert (module.weight < weight).all()
    assert not module.bias.grad
    assert all(tensor is before[key] for key, tensor in optimizer.state_dict().items())  # only ever written to


def test_the_momentum_of_an_epoch() -> None:
    settings = MomentumSettings(momentum=0.2, momentum_final=0.6, momentum_epochs=5)
    assert [settings.momentum_at(epoch) for epoch in (0, 1, 4, 9)] == pytest.approx([0.2, 0.3, 0.6, 0.6])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_bound_on_column_norms_holds_in_every_layout(memory_format: torch.memory_format) -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(2, 3), Maxout(4, 3, 2)).to(memory_format=memory_format)
    optimizer = Momentum(layers, 0.1)
    for gradient in (0.0, 1.0):
        optimizer.step([torch.full_like(p, gradient) for p in layers.parameters()], 0.1, 0.5)
        for weight in (layers[0].weight.flatten(1), layers[1].weight, layers[2].weight.flatten(0, 1)):
            torch.testing.assert_close(weight.norm(dim=1), torch.full((len(weight),), 0.1))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_layout_of_the_memory_makes_no_difference(name: str) -> None:
    """Nor does that of the gradients: torch's fused Adam would pair numbers by their place in memory."""
    results = []
    for place in (
        lambda t: t.clone(),
        lambda t: t.clone(memory_format=torch.channels_last),
        lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
        lambda t: t.repeat_interleave(2, 1)[:, ::2],  # with gaps
    ):
        torch.manual_seed(0)
        module = nn.Conv2d(3, 4, 2, bias=False)
        module.weight = nn.Parameter(place(module.weight.detach()))
        optimizer = OPTIMIZERS[name]().make(module)
        for change in (lambda t: t, lambda t: t.clone(memory_format=torch.channels_last)):
            optimizer.step([change(torch.randn(4, 3, 2, 2))], 0.1, 0.5)
        results.append(module.weight.detach())
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])


def test_weights_that_are_computed_cannot_be_bounded():
    player = nn.Sequential(nn.Linear(3, 2), nn.utils.parametrizations.weight_norm(nn.Linear(2, 1)))
    with pytest.raises(ValueError, match=r"max_column_norm: cannot bound 1\.weight, which is computed"):
        Momentum(player, max_column_norm=1.0)
