"""All conditionals: what is known stays, what is missing varies, and one net learns both."""

import math

import pytest
import tiny
import torch
from torch.distributions import Normal

import pygan
from pygan import conditionals
from pygan.conditionals import ConditionalsSettings, known_part, log_density_of_missing

TINY = {"epochs": 2, "batch_size": 20, "noise_size": 4, "generator_hidden": (8,), "discriminator_hidden": (8,)}
TINY |= {"progress": False, "threads": 1}


def images(n: int = 80) -> torch.Tensor:
    """4x4 images, black or white as a whole."""
    return (torch.arange(n) % 2 * 255).to(torch.uint8).reshape(-1, 1, 1, 1).expand(n, 1, 4, 4).contiguous()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return conditionals.train(images(), out=tmp_path_factory.mktemp("run"), **TINY)


@pytest.mark.parametrize("kind", conditionals.KNOWN)
def test_known_pixels_stay(model, kind):
    given = torch.rand(3, 1, 4, 4)
    known = known_part(kind, model.shape)
    filled = model.fill(given, known, n=5, seed=1)
    assert filled.shape == (3, 5, 1, 4, 4)
    mask = known.expand(3, 5, 1, 4, 4)
    assert torch.equal(filled[mask], given[:, None].expand_as(filled)[mask])
    assert (filled.std(1)[:, ~known] > 0).all()  # the completions differ
    assert torch.equal(model.fill(given, known, n=5, seed=1), filled)
    assert not torch.equal(model.fill(given, known, n=5), filled)

    other = torch.where(known, given, torch.rand(3, 1, 4, 4))  # what lies under the missing part is not looked at
    assert torch.equal(model.fill(other, known, n=5, seed=1), filled)


def test_it_says_what_it_is(model):
    _, height, width = model.shape
    assert repr(model) == f"Conditionals({str(model.path)!r}: 1x{height}x{width}, {len(model.history)} epochs)"


def test_masks_may_have_several_shapes(model):
    given = torch.randint(256, (3, 1, 4, 4), dtype=torch.uint8)
    known = torch.rand(4, 4) < 0.5
    filled = model.fill(given, known, seed=0)
    assert torch.equal(model.fill(given, known[None], seed=0), filled)
    assert torch.equal(model.fill(given, known.expand(3, 1, 4, 4), seed=0), filled)
    with pytest.raises(TypeError, match=r"known: must be a bool tensor, .* got torch\.float32"):
        model.fill(given, known.float())
    with pytest.raises(ValueError, match=r"known: must have shape \[4, 4\], .* got \[3, 3\]"):
        model.fill(given, known[:3, :3])
    with pytest.raises(ValueError, match=r"images must have shape \[n, 1, 4, 4\], got \[3, 1, 2, 2\]"):
        model.fill(given[:, :, :2, :2], known)
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        model.fill(given, known, 0)


def test_the_update_follows_the_losses():
    """Both players see the known part, and move by the gradients of the logistic losses on whole images."""
    splits = pygan.data.load(torch.randint(256, (80, 1, 4, 4), dtype=torch.uint8))
    settings = ConditionalsSettings(batch_size=20, noise_size=4, generator_hidden=(8,), discriminator_hidden=(8,))
    learner = conditionals._Learner(splits, settings, 0, torch.device("cpu"))
    net, generator = learner.discriminator.eval(), learner.generator  # eval: no dropout
    seen: dict[str, list[torch.Tensor]] = {}
    for name, optimizer in zip(("d", "g"), learner.optimizers, strict=True):
        optimizer.step = lambda gradients, *_, name=name: seen.update({name: list(gradients)})
    torch.manual_seed(1)
    learner.update(0)

    torch.manual_seed(1)
    learner.batches.position = 0
    real = learner.batches().images
    known = conditionals._draw_known(real).float()
    noise = torch.empty(40, 4).uniform_(-(3**0.5), 3**0.5)
    given = torch.cat([(real * known).flatten(1), known.flatten(1)], 1)
    fake, other = (known * real + (1 - known) * generator(torch.cat([z, given], 1)) for z in noise.chunk(2))
    d_real, d_fake = (net(torch.cat([images, known], 1)).sigmoid() for images in (real, fake))
    pairs = ((real, fake), (real, other), (fake, other))
    near, far, apart = (torch.linalg.vector_norm(a - b, dim=(1, 2, 3)).mean() for a, b in pairs)
    d_loss = -d_real.log().mean() - (1 - d_fake).log().mean()
    g_loss = -d_fake.log().mean() + (near + far - apart) / 2
    torch.testing.assert_close(seen["d"], list(torch.autograd.grad(d_loss, list(net.parameters()), retain_graph=True)))
    torch.testing.assert_close(seen["g"], list(torch.autograd.grad(g_loss, list(generator.parameters()))))


def test_a_training_resumes_bit_for_bit(model, tmp_path):
    with tiny.killed_after(conditionals._Learner, 4):
        conditionals.train(images(), out=tmp_path, **TINY)
    again = conditionals.train(images(), out=tmp_path, resume=True, **TINY)
    assert all(map(torch.equal, again.generator.parameters(), model.generator.parameters()))


def test_known_parts():
    left, right, pixels, box = (known_part(kind, (3, 4, 6)) for kind in conditionals.KNOWN)
    assert torch.equal(left, ~right)
    assert left.sum() == 12
    assert left[:, :, 0].all()
    assert (~box).nonzero().amin(0).tolist() == [0, 1, 1]
    assert (~box).sum() == 2 * 4
    assert 0 < pixels.sum() < 24
    with pytest.raises(ValueError, match="kind must be one of 'left', 'right', 'pixels', 'box', got 'lift'"):
        known_part("lift", (1, 4, 4))


def test_masks_in_training_are_of_all_kinds():
    known = conditionals._draw_known(torch.zeros(500, 2, 6, 6))
    assert torch.equal(known[:, 0], known[:, 1])
    assert 0.35 < known.float().mean() < 0.65
    left = known_part("left", (1, 6, 6))
    assert (known[:, :1] == left).flatten(1).all(1).any()
    assert (~known).flatten(1).all(1).any()  # nothing is known: plain samples


def test_log_density_of_missing():
    image, known = torch.rand(1, 1, 2, 2), torch.tensor([[True, False], [True, False]])
    completions = torch.rand(1, 3, 1, 2, 2)
    window = Normal(completions[0, :, 0].double(), 0.3).log_prob(image[0].double())
    expected = window[:, :, 1].sum(1).logsumexp(0) - math.log(3)
    torch.testing.assert_close(log_density_of_missing(image, known, completions, 0.3), expected[None])
    with pytest.raises(ValueError, match="sigma must be greater than 0 and finite, got 0"):
        log_density_of_missing(image, known, completions, 0)


def test_a_picture_shows_what_is_known(model, tmp_path):
    from PIL import Image

    model.save_picture(tmp_path / "filled.png", images(4), known_part("left", model.shape), n=3)
    with Image.open(tmp_path / "filled.png") as picture:
        width, height = picture.size
    assert width / height == pytest.approx(5 / 4, rel=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"completions": torch.rand(2, 1, 4, 4)}, r"completions must have shape \[2, n >= 1, 1, 4, 4\], got"),
        ({"completions": torch.rand(1, 3, 1, 4, 4)}, "completions must have shape"),
        ({"completions": torch.rand(2, 3, 1, 1, 1)}, "completions must have shape"),
        ({"completions": torch.rand(2, 0, 1, 4, 4)}, "completions must have shape"),
        ({"completions": torch.zeros(2, 3, 1, 4, 4, dtype=torch.uint8)}, "completions must be floating point"),
        ({"images": torch.rand(1, 4, 4)}, "images must have shape"),
        ({"sigma": math.nan}, "sigma must be greater than 0 and finite, got nan"),
        ({"known": torch.tensor(True)}, "known: must have shape"),
        ({"known": torch.ones(4, 1, dtype=torch.bool)}, "known: must have shape"),
    ],
)
def test_nothing_is_stretched_to_fit(change, message):
    arguments = {
        "images": torch.rand(2, 1, 4, 4),
        "known": known_part("left", (1, 4, 4)),
        "completions": torch.rand(2, 3, 1, 4, 4),
        "sigma": 0.2,
    }
    assert log_density_of_missing(**arguments).shape == (2,)
    with pytest.raises((TypeError, ValueError), match=message):
        log_density_of_missing(**{**arguments, **change})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.full((2, 1, 4, 4), math.nan), r"images must lie in \[0, 1\]"),
        (torch.full((2, 1, 4, 4), 200.0), r"images must lie in \[0, 1\]"),
        (torch.rand(1, 4, 4), "images must have shape"),
        (torch.rand(2, 1, 4, 4).numpy(), "images must be a"),
    ],
)
def test_images_are_looked_at(model, given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        model.fill(given, known_part("left", model.shape))


def test_the_energy_score_wants_completions_that_vary_as_the_data_do():
    """One pixel from {0, 1}: its score is least for completions from {0, 1} too, not for their mean or one value."""

    def score(*values: float) -> float:
        drawn = torch.tensor([[x, a, b] for x in (0.0, 1.0) for a in values for b in values])
        return conditionals.energy_score(*drawn.T.reshape(3, -1, 1, 1, 1)).item()

    assert score(0.0, 1.0) == pytest.approx(0.25, abs=1e-3)
    assert score(0.5) == pytest.approx(0.5, abs=1e-3)
    assert score(0.0) == pytest.approx(0.5, abs=1e-3)
    same = torch.rand(3, 1, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(conditionals.energy_score(torch.rand(3, 1, 2, 2), same, same), [same])
    assert gradient.isfinite().all()  # where both completions agree
