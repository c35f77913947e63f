"""Generators to take away: what is in the file, and that it makes the images that the run makes."""

import errno
import importlib
import json
import os

import pytest
import tiny
import torch

from pygan.export import load_generator
from pygan.folder import DamagedError
from pygan.train import train

safetensors = pytest.importorskip("safetensors")
pytest.importorskip("safetensors.torch")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny.run(tmp_path_factory.mktemp("export") / "run", averaging=0.9)


def test_the_run_folder_has_the_generator_that_was_judged(run):
    path = run.path / "generator.safetensors"
    state = safetensors.torch.load_file(path)
    assert state.keys() == run.generator.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in run.generator.state_dict().items())
    with safetensors.safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["pygan"])
    assert (about["shape"], about["noise"], about["noise_size"]) == ([1, 4, 4], "uniform", 4)
    assert about["recipe"] == json.loads(json.dumps(run.recipe.flat()))


def test_it_makes_the_images_of_the_run_without_its_folder(run, tmp_path):
    path = run.export(tmp_path / "far" / "GENERATOR.SafeTensors")
    noise = run.noise(5, seed=1)
    assert torch.equal(load_generator(path)(noise), run.generate(noise))


@pytest.mark.parametrize("conditional", [False, True])
def test_the_model_card_says_how_to_use_the_generator(run, tmp_path, monkeypatch, conditional):
    if conditional:
        data = tiny.images(), torch.arange(60) % 3
        settings = {"recipe": "conditional2014", "epochs": 1, "evaluation_samples": 50, "noise_size": 4}
        run = train(data, out=tmp_path / "run", progress=False, conditional=True, **settings)
    card = (run.path / "README.md").read_text()
    assert f"| {run.log_likelihood().mean:.2f} +- " in card
    seen = len(run.splits.valid)
    assert seen < 1000, "it says how many images chose sigma, not how many the protocol allows"
    assert f"sigma from the validation split's first {seen} images" in card
    monkeypatch.chdir(run.path)
    names = {}
    exec(card.split("```python")[1].split("```")[0], names)
    assert names["images"].shape == (16, 1, 4, 4)


def test_a_generator_of_the_users_own(tmp_path):
    def mine() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Sigmoid())

    run = tiny.run(tmp_path / "run", generator=mine())
    path = run.path / "generator.safetensors"
    with pytest.raises(ValueError, match="pass one as generator="):
        load_generator(path)
    noise = run.noise(5, seed=1)
    assert torch.equal(load_generator(path, mine())(noise), run.generate(noise))


def test_torch_export(run, tmp_path):
    path = run.export(tmp_path / "generator.pt2")
    noise = run.noise(5, seed=1)
    torch.testing.assert_close(torch.export.load(path).module()(noise), run.generate(noise))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_onnx(run, tmp_path):
    pytest.importorskip("onnxscript", reason="ONNX files need the packages onnx and onnxscript")
    onnx = pytest.importorskip("onnx", reason="ONNX files need the packages onnx and onnxscript")
    reference = importlib.import_module("onnx.reference")
    path = run.export(tmp_path / "generator.onnx")
    onnx.checker.check_model(path)
    program, noise = reference.ReferenceEvaluator(str(path)), run.noise(5, seed=1)
    (images,) = program.run(None, {program.input_names[0]: noise.numpy()})
    torch.testing.assert_close(torch.from_numpy(images), run.generate(noise))
    assert [file.name for file in tmp_path.iterdir()] == ["generator.onnx"], "one file, weights included"


def test_an_export_in_on_epoch_does_not_change_the_run(tmp_path):
    def train_with(name, on_epoch):
        torch.manual_seed(0)
        generator = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Dropout(0.5), torch.nn.Sigmoid())
        return tiny.run(tmp_path / name, generator=generator, on_epoch=on_epoch)

    def export(run):
        before = run.generator.training
        run.export(tmp_path / "generator.pt2")
        modes.append((before, run.generator.training))

    modes = []
    assert train_with("exported", export).history == train_with("plain", None).history
    assert modes == [(True, True)] * 2


@pytest.mark.parametrize("suffix", [".safetensors", ".pt2", ".onnx"])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_full_disk_leaves_the_old_file_and_nothing_else(run, tmp_path, monkeypatch, suffix):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if suffix == ".onnx":
        pytest.importorskip("onnxscript", reason="ONNX files need the packages onnx and onnxscript")
    path = tmp_path / f"generator{suffix}"
    path.write_text("old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=f"No space left on device: '.*{path.name}'"):
        run.export(path)
    assert [(file, file.read_text()) for file in tmp_path.iterdir()] == [(path, "old")]


def test_other_suffixes_and_damaged_files_are_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"path must end in \.safetensors, \.pt2, \.onnx"):
        run.export(tmp_path / "generator.pkl")
    (tmp_path / "generator.safetensors").write_bytes(b"no")
    with pytest.raises(DamagedError, match="Export it again"):
        load_generator(tmp_path / "generator.safetensors")
