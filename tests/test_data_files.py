"""Files of data sets: MNIST's IDX, CIFAR-10's binary edition, .npy; where they are found, and what damage is called."""

import contextlib
import gzip
import hashlib
import io
import math
import re
import struct
import tarfile
import zipfile
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from pygan import data
from pygan.data import arrays, cifar10, files, mnist, olivetti

pooch, requests = pytest.importorskip("pooch"), pytest.importorskip("requests")
hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies

SHAPE = (3, 4, 5)
PIXELS = bytes(range(60))
IDX = struct.pack(">4I", 0x803, *SHAPE) + PIXELS


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty user's cache, no data root, and no network."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(pooch, "os_cache", lambda name: folder / name)
    monkeypatch.delenv("PYGAN_DATA", raising=False)

    def refuse(self, url, output_file, pooch, check_only=False):
        raise requests.ConnectionError("no network in tests")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", refuse)
    return folder / "pygan"


def serve(monkeypatch, contents):
    """Makes pooch receive contents[url] (bytes); returns the list of addresses that were asked for."""
    asked = []

    def download(self, url, output_file, pooch, check_only=False):
        asked.append(url)
        if url not in contents:
            raise requests.HTTPError("404")
        output_file.write(contents[url])

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", download)
    return asked


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# IDX


def test_idx(tmp_path):
    images = mnist.read_idx(write(tmp_path / "x.gz", gzip.compress(IDX)), SHAPE)
    assert images.shape == SHAPE
    assert bytes(images.flatten().tolist()) == PIXELS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(IDX)[:-20], "expected a whole gzip file of 76 bytes unpacked"),
        (IDX, "expected a whole gzip file of 76 bytes unpacked, got: Not a gzipped file"),
        (b"", "expected a header of 16 bytes at offset 0, got 0"),
        (gzip.compress(IDX[:15]), "expected a header of 16 bytes at offset 0, got 15"),
        (gzip.compress(struct.pack(">4I", 0x801, *SHAPE) + PIXELS), "expected magic number 2051 at offset 0, got 2049"),
        (gzip.compress(struct.pack(">4I", 0x803, 4, 4, 5) + PIXELS), "expected count 3 at offset 4, got 4"),
        (gzip.compress(struct.pack(">4I", 0x803, 3, 9, 5) + PIXELS), "expected rows 4 at offset 8, got 9"),
        (
            gzip.compress(struct.pack(">4I", 0x803, 3, 4, 2**32 - 1) + PIXELS),
            "expected columns 5 at offset 12, got 429",
        ),
        (gzip.compress(IDX[:-1]), "expected 60 bytes of data at offset 16, got 59"),
        (gzip.compress(IDX + b"\0"), "expected 60 bytes of data at offset 16, got more"),
    ],
)
def test_broken_idx_is_named(tmp_path, content, message):
    path = write(tmp_path / "x.gz", content)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {message}')}"):
        mnist.read_idx(path, SHAPE)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120), st.integers(0, 120), st.integers(0, 120), st.booleans())
def test_fuzzed_idx_gives_the_image_or_a_value_error(tmp_path_factory, noise, start, length, inside):
    whole = IDX if inside else gzip.compress(IDX)
    damaged = whole[:start] + noise + whole[start + length :]
    path = write(tmp_path_factory.getbasetemp() / "fuzz" / "x.gz", gzip.compress(damaged) if inside else damaged)
    with contextlib.suppress(ValueError):
        assert mnist.read_idx(path, SHAPE).shape == SHAPE


# MNIST


def idx_file(seed, *shape):
    values = np.random.default_rng(seed).integers(0, 2, math.prod(shape), dtype=np.uint8) * (
        255 if len(shape) == 3 else 1
    )
    header = struct.pack(f">{1 + len(shape)}I", 0x800 + len(shape), *shape)
    return gzip.compress(header + values.tobytes(), compresslevel=1)


@pytest.fixture(scope="module")
def fake_mnist():
    return {
        "train-images-idx3-ubyte.gz": idx_file(0, 60_000, 28, 28),
        "train-labels-idx1-ubyte.gz": idx_file(1, 60_000),
        "t10k-images-idx3-ubyte.gz": idx_file(2, 10_000, 28, 28),
        "t10k-labels-idx1-ubyte.gz": idx_file(3, 10_000),
    }


def adopt(monkeypatch, module, contents):
    monkeypatch.setattr(module, "_SHA256", {name: sha256(content) for name, content in contents.items()})


def test_mnist_is_split_in_file_order(cache, tmp_path, monkeypatch, fake_mnist):
    adopt(monkeypatch, mnist, fake_mnist)
    for name, content in fake_mnist.items():
        write(tmp_path / "root" / "mnist" / name, content)
    splits = data.load("mnist", root=tmp_path / "root", seed=5)
    whole = np.frombuffer(gzip.decompress(fake_mnist["train-images-idx3-ubyte.gz"])[16:], np.uint8)
    assert splits.train.images.shape == (50_000, 1, 28, 28)
    assert splits.test.images.shape == (10_000, 1, 28, 28)
    assert np.array_equal(torch.cat([splits.train.images, splits.valid.images]).numpy().ravel(), whole)
    labels = np.frombuffer(gzip.decompress(fake_mnist["train-labels-idx1-ubyte.gz"])[8:], np.uint8)
    assert np.array_equal(torch.cat([splits.train.labels, splits.valid.labels]).numpy(), labels)
    assert "first 50,000" in splits.protocol
    assert not cache.exists(), "a data root that has the files must do"


def test_a_wrong_checksum_is_named(cache, tmp_path, monkeypatch, fake_mnist):
    adopt(monkeypatch, mnist, fake_mnist)
    other = {**fake_mnist, "t10k-images-idx3-ubyte.gz": idx_file(9, 10_000, 28, 28)}
    for name, content in other.items():
        write(tmp_path / "mnist" / name, content)
    monkeypatch.setenv("PYGAN_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte.gz: expected sha256 .* got .*the file is damaged"):
        data.load("mnist")


def test_mnist_is_downloaded_once_into_the_cache(cache, tmp_path, monkeypatch, fake_mnist):
    adopt(monkeypatch, mnist, fake_mnist)
    second = mnist._MIRRORS[1]  # the first mirror is dead
    asked = serve(monkeypatch, {second + name: content for name, content in fake_mnist.items()})
    (tmp_path / "root").mkdir()
    monkeypatch.setenv("PYGAN_DATA", str(tmp_path / "root"))
    data.load("mnist")
    assert len(asked) == 8
    assert sorted(path.name for path in (cache / "mnist").iterdir()) == sorted(fake_mnist)
    assert not any((tmp_path / "root").iterdir()), "a data root is read only"
    data.load("mnist")
    assert len(asked) == 8


def test_a_download_with_a_wrong_checksum_never_arrives(cache, monkeypatch, fake_mnist):
    adopt(monkeypatch, mnist, fake_mnist)
    serve(monkeypatch, {mirror + name: b"<html>" for mirror in mnist._MIRRORS for name in fake_mnist})
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded \(.*: ValueError; .*: ValueError\)"):
        data.load("mnist")
    assert not list((cache / "mnist").iterdir())


class Endless:
    """What requests.get returns from a server that never stops sending, or a disk that is full after one block."""

    headers: ClassVar = {}

    def __init__(self, error=None):
        self.sent, self.error = 0, error

    def raise_for_status(self):
        pass

    def iter_content(self, chunk_size):
        while self.sent < 64 << 20:  # long enough to be called endless
            self.sent += 1 << 16
            yield bytes(1 << 16)
            if self.error:
                raise self.error


@pytest.mark.parametrize("name", ["mnist", "cifar10", "olivetti"])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (None, "more than 200,000 bytes"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (requests.ConnectionError("reset"), "ConnectionError"),
    ],
)
def test_a_download_that_does_not_end_well_leaves_nothing(cache, monkeypatch, name, error, message):
    monkeypatch.undo()
    monkeypatch.setattr(pooch, "os_cache", lambda name: cache.parent / name)
    monkeypatch.setenv("PYGAN_DATA", "")
    monkeypatch.setattr(mnist, "_LIMIT", 200_000)
    for module, remote in ((cifar10, "_ARCHIVE"), (olivetti, "_MAT")):
        monkeypatch.setattr(module, remote, replace(getattr(module, remote), limit=200_000))
    answers = []
    monkeypatch.setattr(requests, "get", lambda url, **keywords: answers.append(Endless(error)) or answers[-1])
    with pytest.raises(FileNotFoundError, match=f"could not be downloaded .*: {message}"):
        data.load(name)
    assert answers
    assert all(answer.sent <= 4 << 16 for answer in answers)
    assert not any(cache.rglob("*.*")), "no file, and no part of one"


def test_the_limits_of_downloads_leave_room():
    """The sizes of the published files, in bytes."""
    assert mnist._LIMIT > 9_912_422
    assert cifar10._ARCHIVE.limit > 170_052_171
    assert olivetti._MAT.limit > 400 * 64 * 64


@pytest.mark.parametrize(
    ("name", "file"), [("mnist", "train-images-idx3-ubyte.gz"), ("cifar10", "cifar-10-binary.tar.gz")]
)
def test_an_offline_machine_is_told_which_file_to_put_where(cache, name, file):
    with pytest.raises(FileNotFoundError) as caught:
        data.load(name)
    message = str(caught.value)
    assert f"{name}: {file} is not on this machine and could not be downloaded" in message
    assert "ConnectionError" in message
    assert re.search(rf"Fetch https://\S+/{file} elsewhere \(sha256 [0-9a-f]{{64}}\)", message)
    assert f"put it at {cache / name / file}; or set $PYGAN_DATA to a folder that holds {name}/" in message


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_a_data_root_that_is_no_folder(cache, tmp_path, monkeypatch, how):
    missing = str(tmp_path / "missing")
    if how == "environment":
        monkeypatch.setenv("PYGAN_DATA", missing)
    with pytest.raises(
        FileNotFoundError, match=r"root: the data root \(root= or \$PYGAN_DATA\) is not a folder: .*missing"
    ):
        data.load("mnist", root=missing if how == "argument" else None)


def test_the_argument_wins_over_the_environment(cache, tmp_path, monkeypatch):
    for root in ("a", "b"):
        write(tmp_path / root / "set" / "file", b"")
    monkeypatch.setenv("PYGAN_DATA", str(tmp_path / "b"))
    assert files.locate("set", ["file"], tmp_path / "a", lambda folder: None) == [tmp_path / "a" / "set" / "file"]
    assert files.locate("set", ["file"], None, lambda folder: None) == [tmp_path / "b" / "set" / "file"]


# CIFAR-10


def records(count, seed=0):
    content = np.random.default_rng(seed).integers(0, 256, (count, 3073), dtype=np.uint8)
    content[:, 0] %= 10
    return content


def test_records(tmp_path):
    content = records(4)
    found = cifar10.read_records(write(tmp_path / "x.bin", content.tobytes()), 4)
    np.testing.assert_array_equal(found, content)


def test_broken_records_are_named(tmp_path):
    content = records(4)
    path = write(tmp_path / "x.bin", content.tobytes()[:-1])
    with pytest.raises(ValueError, match=re.escape(f"{path}: expected 12,292 bytes (4 records of 3,073), got 12,291")):
        cifar10.read_records(path, 4)
    content[2, 0] = 10
    write(path, content.tobytes())
    with pytest.raises(ValueError, match=re.escape(f"{path}: expected a label 0..9 at offset 6,146, got 10")):
        cifar10.read_records(path, 4)


def test_cifar10_is_unpacked_into_the_cache(cache, monkeypatch):
    monkeypatch.setattr(cifar10, "_RECORDS", 20)
    contents = {name: records(20, seed).tobytes() for seed, name in enumerate(cifar10._SHA256)}
    adopt(monkeypatch, cifar10, contents)
    members = {f"cifar-10-batches-bin/{name}": content for name, content in contents.items()}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in {"../../escape.bin": b"!", "cifar-10-batches-bin/readme.html": b"...", **members}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    url = "https://example.org/cifar.tar.gz"
    monkeypatch.setattr(cifar10, "_ARCHIVE", files.Remote("cifar.tar.gz", sha256(packed.getvalue()), (url,), 1 << 20))
    asked = serve(monkeypatch, {url: packed.getvalue()})
    for _ in range(2):
        splits = data.load("cifar10")
    assert asked == [url]
    assert sorted(path.name for path in (cache / "cifar10").iterdir()) == sorted(contents)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (80, 20, 20)
    for split, image, name in [
        ("train", 40, "data_batch_3.bin"),
        ("valid", 0, "data_batch_5.bin"),
        ("test", 0, "test_batch.bin"),
    ]:
        assert bytes(getattr(splits, split).images[image].flatten().tolist()) == contents[name][1:3073]
        assert getattr(splits, split).labels[image] == contents[name][0]


# .npy


def npy(array, **keywords):
    file = io.BytesIO()
    np.save(file, array, **keywords)
    return file.getvalue()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["uint8", "float32", ">f8"])
def test_npy(tmp_path, order, dtype):
    array = np.asarray(np.arange(24).reshape(2, 3, 4), dtype=dtype, order=order)
    np.testing.assert_array_equal(arrays.read_npy(write(tmp_path / "x.npy", npy(array))), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a .npy header at offset 0"),
        (b"PK\x03\x04 an npz file", "expected a .npy header at offset 0"),
        (npy(np.zeros((5, 4), np.float32))[:-1], "expected 80 bytes for float32 [5, 4] at offset 128, got 79"),
        (npy(np.zeros((5, 4), np.float32)) + b"\0", "expected 80 bytes for float32 [5, 4] at offset 128, got 81"),
        (
            npy(np.array([{}], dtype=object), allow_pickle=True),
            "expected numbers, got object, which numpy stores as a pickle",
        ),
    ],
)
def test_broken_npy_is_named(tmp_path, content, message):
    path = write(tmp_path / "x.npy", content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        arrays.read_npy(path)


def test_a_header_that_promises_the_earth_is_not_believed(tmp_path):
    whole = npy(np.zeros((5, 4), np.float32)).replace(b"(5, 4), }" + b" " * 12, b"(999999999999, 4), }  ")
    with pytest.raises(ValueError, match=r"expected 15,999,999,999,984 bytes"):
        arrays.read_npy(write(tmp_path / "x.npy", whole))


NPY = npy(np.zeros((3, 4), np.float32))


def compressed(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["npy", "npz"]), st.binary(max_size=40), st.integers(0, 600), st.integers(0, 40))
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_fuzzed_arrays_load_or_give_an_error_that_names_the_file(tmp_path_factory, kind, noise, start, length):
    whole = NPY if kind == "npy" else compressed(images=np.zeros((12, 4), np.float32), labels=np.arange(12) % 3)
    start %= len(whole)
    path = tmp_path_factory.getbasetemp() / "fuzz" / f"x.{kind}"
    write(path, whole[:start] + noise + whole[start + length :])
    message = None
    try:
        data.load(path, valid=path, test=path)
    except (ValueError, TypeError) as error:
        message = str(error)
    assert message is None or str(path) in message or message.startswith(("data:", "valid:"))


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-3, -4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 10**30)}".replace("10**30", "1" + "0" * 30),
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "0," * 70 + ")}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 9223372036854775807)}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3, 4)}",
        "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (3, 4)}",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (3, 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 'x'}",
        "(" * 200,
    ],
)
def test_headers_that_lie_name_the_file(tmp_path, header):
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n" + bytes(4 * 12)
    path = write(tmp_path / "x.npy", content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: ")):
        arrays.read_npy(path)


# .npz


def test_npz(tmp_path):
    images, labels = np.arange(160, dtype=np.uint8).reshape(10, 4, 4), np.arange(10)
    for names in ({"labels": labels}, {"targets": labels}, {}):
        found, targets = arrays.read_npz(write(tmp_path / "x.npz", compressed(images=images, other=labels, **names)))
        np.testing.assert_array_equal(found, images)
        assert (targets is None) == (not names)
        assert targets is None or (targets == labels).all()
    alone = arrays.read_npz(write(tmp_path / "x.npz", compressed(arr_0=images)))  # numpy.savez("x.npz", images)
    np.testing.assert_array_equal(alone[0], images)
    assert alone[1] is None


def zipped(content, name="images.npy"):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a whole .npz file, got: File is not a zip file"),
        (compressed(images=np.arange(99))[:-30], "expected a whole .npz file, got: "),
        (
            compressed(x=np.arange(9), y=np.arange(9)),
            "expected an array `images` (and, if there are labels, `labels`), "
            "got x, y; save with numpy.savez(path, images=x, labels=y)",
        ),
        (zipped(NPY[:-1]), "images.npy: expected 48 bytes for float32 [3, 4] at offset 128, got 47"),
        (zipped(npy(np.array([{}], dtype=object), allow_pickle=True)), "images.npy: expected numbers, got object"),
        (zipped(b"no array"), "images.npy: expected a .npy header at offset 0"),
    ],
)
def test_broken_npz_is_named(tmp_path, content, message):
    path = write(tmp_path / "x.npz", content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        data.load(path)


def test_a_zip_bomb_is_refused_by_its_header(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "LARGEST", 1 << 20)
    path = write(tmp_path / "x.npz", compressed(images=np.zeros((1 << 10, 1 << 11), np.uint8)))
    with pytest.raises(ValueError, match=r"x.npz: images.npy: 2,097,152 bytes exceed the limit of"):
        data.load(path)


# The real files


def test_real_mnist(data_root):
    splits = data.load("mnist", root=data_root)
    images = data.as_float(torch.cat([splits.train.images, splits.valid.images]))
    assert images.mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert images.std().item() == pytest.approx(0.3081, abs=5e-5)


def test_real_cifar10(data_root):
    if not (data_root / "cifar10" / "data_batch_1.bin").exists():
        pytest.skip("PYGAN_DATA holds no binary edition of CIFAR-10")
    splits = data.load("cifar10", root=data_root)
    means = torch.cat([splits.train.images, splits.valid.images]).float().div_(255).mean((0, 2, 3))
    assert means.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-4)
