"""torch-fidelity stands in a module of our own here: the extra is not installed for tests, and there is no network."""

import hashlib
import sys
import types

import pytest
import torch

from pygan.data.files import Remote
from pygan.evaluate import InceptionDistances, fidelity, inception_distances

pooch = pytest.importorskip("pooch")

IMAGES = torch.randint(0, 256, (5, 3, 6, 6), dtype=torch.uint8)


@pytest.fixture
def calls(monkeypatch):
    """The calls of calculate_metrics."""
    found = []

    def calculate_metrics(**arguments):
        found.append(arguments)
        return {
            "frechet_inception_distance": 1.5,
            "kernel_inception_distance_mean": 0.25,
            "kernel_inception_distance_std": 0.125,
        }

    monkeypatch.setitem(sys.modules, "torch_fidelity", types.SimpleNamespace(calculate_metrics=calculate_metrics))
    return found


@pytest.fixture
def weights(monkeypatch, tmp_path):
    """A data root with a file in place of the published weights."""
    content = b"weights"
    remote = Remote(
        "weights.pth", hashlib.sha256(content).hexdigest(), ("https://example.invalid/weights.pth",), 1 << 20
    )
    monkeypatch.setattr(fidelity, "_WEIGHTS", remote)
    path = tmp_path / "inception" / remote.name
    path.parent.mkdir()
    path.write_bytes(content)
    return path


def test_what_torch_fidelity_is_asked(calls, weights, tmp_path):
    grey = torch.rand(7, 1, 6, 6)
    assert inception_distances(IMAGES, grey, root=tmp_path) == InceptionDistances(1.5, 0.25, 0.125, 5)
    (asked,) = calls
    assert (asked["fid"], asked["kid"], asked["kid_subset_size"], asked["cuda"]) == (True, True, 5, False)
    assert asked["feature_extractor_weights_path"] == str(weights)
    assert torch.equal(torch.stack(list(map(asked["input1"].__getitem__, range(5)))), IMAGES)
    assert (len(asked["input1"]), len(asked["input2"])) == (5, 7)
    image = asked["input2"][3]
    assert image.dtype == torch.uint8
    assert torch.equal(image, (grey[3] * 255).round().to(torch.uint8).expand(3, 6, 6))


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ImportError, match=r'install it by pip install "\.\[metrics\]"'):
        inception_distances(IMAGES, IMAGES)


@pytest.mark.usefixtures("calls")
def test_without_the_weights(monkeypatch, tmp_path):
    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(pooch, "retrieve", no_network)
    monkeypatch.setattr(pooch, "os_cache", lambda _: tmp_path)
    monkeypatch.delenv("PYGAN_DATA", raising=False)
    where = tmp_path / "inception" / "weights-inception-2015-12-05-6726825d.pth"
    with pytest.raises(FileNotFoundError, match=f"could not be downloaded .* put it at {where}"):
        inception_distances(IMAGES, IMAGES)


def test_other_weights_never_reach_torch_fidelity(calls, weights, tmp_path):
    weights.write_bytes(b"other")
    with pytest.raises(ValueError, match="expected sha256"):
        inception_distances(IMAGES, IMAGES, root=tmp_path)
    assert calls == []


@pytest.mark.parametrize("shape", [(5, 2, 6, 6), (1, 3, 6, 6), (5, 6, 6)])
def test_refused(shape):
    with pytest.raises(ValueError, match=r"fake must have shape \[n >= 2, 1 or 3, H, W\], got"):
        inception_distances(IMAGES, torch.zeros(shape))
    with pytest.raises(ValueError, match=r"real must lie in \[0, 1\], got \[0, 2\]"):
        inception_distances(torch.tensor([0.0, 2.0]).view(2, 1, 1, 1).expand(2, 3, 6, 6), IMAGES)
