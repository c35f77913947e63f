"""The optimisers of `pygan.optim` and the moving average."""

import pytest
import torch
from torch import nn

from pygan.optim import Adam, Momentum, MovingAverage


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
