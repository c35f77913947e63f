"""Labels from every kind of data, the classes that name them, and a data set that is added from outside."""

import hashlib

import numpy as np
import pytest
import tiny
import torch
from items import Items
from torch.utils.data import TensorDataset

import pygan
from pygan import data
from pygan.data import Batch, Source, olivetti
from pygan.data.labels import encode, translate

Image = pytest.importorskip("PIL.Image")


def bytes_(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def numbered(n, classes=3):
    """Images whose pixels are all their number, and labels: the number modulo `classes`."""
    numbers = torch.arange(n)
    return numbers.to(torch.uint8).view(n, 1, 1, 1).expand(n, 1, 2, 2).clone(), numbers % classes


def assert_labels_follow_images(splits, label_of):
    """Every image of `numbered` still has the class that `label_of(number)` names."""
    numbers = []
    for split in (splits.train, splits.valid, splits.test):
        numbers += split.images[:, 0, 0, 0].tolist()
        assert split.labels.dtype == torch.int64
        names = [splits.classes[label] for label in split.labels]
        assert names == [label_of(number) for number in split.images[:, 0, 0, 0].tolist()]
    assert sorted(numbers) == list(range(len(numbers)))


# Batch


def test_a_batch_is_indexed_as_one():
    images, labels = numbered(10)
    batch = Batch(images, labels)
    for index in (slice(2, 7), torch.tensor([5, 1, 1]), labels == 2):
        assert torch.equal(batch[index].images, images[index])
        assert torch.equal(batch[index].labels, labels[index])
    assert len(batch[3:]) == 7
    assert Batch(images)[3:].labels is None
    assert repr(batch) == "Batch(torch.uint8 images [10, 1, 2, 2], labels)"


def test_a_batch_refuses_labels_that_do_not_fit():
    images, labels = numbered(10)
    with pytest.raises(TypeError, match=r"labels must be int64, got torch.int32"):
        Batch(images, labels.int())
    for wrong in (labels[:9], labels[:, None]):
        with pytest.raises(ValueError, match=r"labels must have shape \[10\], got"):
            Batch(images, wrong)


# Where labels come from


@pytest.mark.parametrize("kind", ["tensors", "arrays", "list", "npz", "dataset", "labels of shape [1]", "numpy items"])
def test_labels_follow_their_images_through_the_split(tmp_path, kind):
    images, labels = numbered(40)
    forms = {
        "tensors": (images, labels),
        "arrays": (images.numpy(), labels.numpy().astype(np.uint8)),
        "list": (images, labels.tolist()),
        "npz": tmp_path / "x.npz",
        "dataset": TensorDataset(images, labels),
        "labels of shape [1]": TensorDataset(images, labels[:, None]),
        "numpy items": Items([(image.numpy(), np.int32(label)) for image, label in zip(images, labels, strict=True)]),
    }
    np.savez_compressed(tmp_path / "x.npz", images=images.numpy(), labels=labels.numpy())
    splits = data.load(forms[kind])
    assert splits.classes == ("0", "1", "2")
    assert_labels_follow_images(splits, lambda number: str(number % 3))
    assert repr(splits).endswith("images of [1, 2, 2] in 3 classes)")


def test_data_without_labels_have_none():
    images, labels = numbered(20)
    for unlabelled in (images, TensorDataset(images), TensorDataset(images, labels.float()), Items([*images])):
        splits = data.load(unlabelled)
        assert (splits.classes, splits.train.labels, splits.test.labels) == (None, None, None)


def test_labels_that_are_not_used_are_mentioned():
    images, labels = numbered(20)
    floats = data.load(TensorDataset(images, labels.float()))
    assert "tensordataset: 20 images (labels not used: no integers)" in floats.protocol
    some = Items([(image, int(label) if label else None) for image, label in zip(images, labels, strict=True)])
    assert "(labels not used: 7 items have none)" in data.load(some).protocol


def test_numbers_that_are_no_indices_become_indices_and_stay_as_names():
    images, labels = numbered(30)
    splits = data.load((images, labels * 10 - 10))  # -10, 0, 10
    assert splits.classes == ("-10", "0", "10")
    assert_labels_follow_images(splits, lambda number: str(number % 3 * 10 - 10))


def test_a_dataset_may_name_its_classes():
    images, labels = numbered(30)
    items = list(zip(images, labels.tolist(), strict=True))
    assert data.load(Items(items, ["cat", "dog", "bird", "unseen"])).classes == ("cat", "dog", "bird", "unseen")
    assert data.load(Items(items, ["cat", "dog"])).classes == ("0", "1", "2"), "too few names"


def test_sub_folders_are_classes(tmp_path):
    images, labels = numbered(30)
    for image, label, name in zip(images, labels, range(30), strict=True):
        folder = tmp_path / "abc"[label] / ("deep" if name % 2 else "")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(folder / f"{name}.png")
    splits = data.load(tmp_path)
    assert splits.classes == ("a", "b", "c")
    assert_labels_follow_images(splits, lambda number: "abc"[number % 3])
    Image.fromarray(images[0, 0].numpy()).save(tmp_path / "loose.png")
    assert data.load(tmp_path).classes is None, "not all images lie in a sub-folder"


def test_one_sub_folder_is_no_class(tmp_path):
    for name in range(12):
        (tmp_path / "all").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "all" / f"{name}.png")
    assert data.load(tmp_path).classes is None


def test_split_folders_share_the_classes_of_train(tmp_path):
    for path in ("train/cat", "train/dog", "test/dog", "val/dog", "val/fox"):
        (tmp_path / path).mkdir(parents=True)
        for name in range(12):
            Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / path / f"{name}.png")
    splits = data.load(tmp_path)
    assert splits.classes == ("cat", "dog")
    assert splits.test.labels.tolist() == [1] * 12
    assert splits.valid.labels is None
    assert "in val/ (labels not used: valid has classes that train does not have)" in splits.protocol


def test_given_splits_are_matched_by_the_names_of_the_classes():
    images, labels = numbered(30)
    splits = data.load((images, labels + 5), valid=(images[:4], [7, 7, 5, 6]), test=images[:3])
    assert splits.classes == ("5", "6", "7")
    assert splits.valid.labels.tolist() == [2, 2, 0, 1]
    assert splits.test.labels is None
    stranger = data.load((images, labels + 5), valid=(images[:4], [7, 7, 5, 8]))
    assert stranger.valid.labels is None
    assert "valid has classes that train does not have" in stranger.protocol


def test_named_data_sets_have_labels(data_root):
    for name, classes, first in (("mnist", 10, [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]), ("digits", 10, None)):
        splits = data.load(name, root=data_root)
        assert splits.classes == tuple(map(str, range(classes)))
        assert first is None or splits.train.labels[:10].tolist() == first
        assert all(len(split.labels) == len(split) for split in (splits.train, splits.valid, splits.test))


# What does not fit


def test_encode():
    assert encode([2, 0, 2], 3, "data")[1] == ("0", "2")
    assert encode(np.array([[1], [0]]), 2, "data")[0].tolist() == [1, 0]
    assert encode(torch.tensor([True, False]), 2, "data")[1] == ("0", "1")


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.zeros(20), TypeError, "data: labels must be integers, got float32"),
        (["cat"] * 20, TypeError, "data: labels must be integers, got <U3"),
        (torch.zeros(19).long(), ValueError, r"data: labels must have shape \[20\], one for each image, got \[19\]"),
        (5, ValueError, r"one for each image, got \[\]"),
        (
            torch.eye(20).long(),
            ValueError,
            r"data: labels must have shape \[20\], got \[20, 20\]; pass labels.argmax\(1\)",
        ),
    ],
)
def test_wrong_labels_are_named(labels, error, message):
    with pytest.raises(error, match=message):
        data.load((bytes_(20, 4, 4), labels))


def test_translate():
    labels = torch.tensor([0, 2, 2])
    assert translate(labels, ("a", "b", "c"), ("c", "x", "a")).tolist() == [2, 0, 0]
    assert translate(labels, ("a", "b", "c"), ("a", "b")) is None
    assert translate(labels[:0], ("a", "b"), ("c",)).tolist() == []


# Olivetti


def write_faces(root, name, faces):
    from scipy.io import savemat

    (root / "olivetti").mkdir(exist_ok=True)
    path = root / "olivetti" / name
    if name.endswith(".npz"):
        np.savez(path, images=faces)
    else:  # column by column, as published
        savemat(path, {"faces": faces.transpose(0, 2, 1).reshape(400, 4096).T})
    return path


@pytest.mark.parametrize("name", ["olivetti_faces.npz", "olivettifaces.mat"])
def test_olivetti_reads_both_files_to_the_same_faces(tmp_path, monkeypatch, name):
    faces = bytes_(400, 64, 64).numpy()
    path = write_faces(tmp_path, name, faces)
    monkeypatch.setattr(olivetti, "_PIXELS_SHA256", hashlib.sha256(faces.tobytes()).hexdigest())
    monkeypatch.setattr(
        olivetti, "_MAT", olivetti.Remote("olivettifaces.mat", hashlib.sha256(path.read_bytes()).hexdigest(), (), 0)
    )
    source = olivetti.load(tmp_path)
    assert torch.equal(source.train.images[:, 0], torch.from_numpy(faces))
    assert source.train.labels[[0, 9, 10, 399]].tolist() == [0, 0, 1, 39]
    splits = data.load("olivetti", root=tmp_path)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (320, 40, 40)
    assert len(splits.classes) == 40


@pytest.mark.parametrize("name", ["olivetti_faces.npz", "olivettifaces.mat"])
def test_other_olivetti_files_are_refused(tmp_path, name):
    write_faces(tmp_path, name, bytes_(400, 64, 64).numpy())
    with pytest.raises(ValueError, match=rf"{name}: expected .*sha256 .* the file is damaged"):
        data.load("olivetti", root=tmp_path)


def test_real_olivetti(data_root):
    images = data.load("olivetti", root=data_root).train.images
    assert images.shape == (320, 1, 64, 64)
    assert images.max() == 242


# A data set of one's own


def load_toy(root):
    images, labels = numbered(40, 2)
    return Source("toy", Batch(images, labels), "toy: 40 squares of one gray", classes=("even", "odd"))


def test_a_data_set_is_added_by_one_function_and_one_line(monkeypatch):
    monkeypatch.setitem(data.NAMED, "toy", load_toy)
    splits = data.load("toy")
    assert_labels_follow_images(splits, lambda number: ("even", "odd")[number % 2])
    assert splits.protocol.startswith("toy: 40 squares of one gray; split 80/10/10")
    with pytest.raises(ValueError, match=r"neither a data set \(.*, toy\)"):
        data.load("toyy")


def test_a_data_set_of_ones_own_trains_resumes_and_loads(monkeypatch, tmp_path):
    images = bytes_(60, 1, 4, 4)
    monkeypatch.setitem(data.NAMED, "toy", lambda root: Source("toy", Batch(images), "toy: noise"))
    tiny.run(tmp_path / "run", "toy", epochs=2)
    run = tiny.run(tmp_path / "run", "toy", epochs=3, resume=True)
    assert [entry["epoch"] for entry in run.history] == [1, 2, 3]
    assert pygan.load(tmp_path / "run").log_likelihood() == run.log_likelihood()


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (
            (torch.zeros(20, 1, 2, 2).double(), None, None),
            TypeError,
            "images must be uint8 or float32, got torch.float64",
        ),
        ((torch.zeros(20, 2, 2), None, None), ValueError, r"images must have shape \[N, C, H, W\], got \[20, 2, 2\]"),
        ((torch.full((20, 1, 2, 2), 9.0), None, None), ValueError, r"floats must lie in \[0, 1\], got \[9, 9\]"),
        ((*numbered(20), None), ValueError, r"expected classes, which name them, got labels in 0..2"),
        ((*numbered(20), ("a", "b")), ValueError, r"expected labels in 0..1, got labels in 0..2"),
    ],
)
def test_a_loader_that_is_wrong_is_told(monkeypatch, source, error, message):
    images, labels, classes = source
    monkeypatch.setitem(data.NAMED, "toy", lambda root: Source("toy", Batch(images, labels), "toy", classes=classes))
    with pytest.raises(error, match=f"toy: train: {message}"):
        data.load("toy")
