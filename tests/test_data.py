"""pygan.data.load: kinds of data, splits, ranges and what is said when something does not fit."""

import numpy as np
import pytest
import torch
from items import Items
from torch import Tensor
from torch.utils.data import IterableDataset, TensorDataset

from pygan import data
from pygan.data.splits import Splits

Image = pytest.importorskip("PIL.Image")


def bytes_(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def floats(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def rows(images):
    return sorted(map(tuple, images.flatten(1).tolist()))


# Splits


def test_a_tensor_is_split_80_10_10_and_nothing_is_lost():
    images = bytes_(103, 3, 4, 5)
    splits = data.load(images)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (83, 10, 10)
    assert rows(torch.cat([splits.train.images, splits.valid.images, splits.test.images])) == rows(images)
    assert splits.train.images.dtype == torch.uint8
    assert splits.name == "tensor"
    assert "80/10/10 at random by seed 0 into 83 train, 10 valid, 10 test" in splits.protocol


def test_the_split_depends_on_the_seed_and_on_nothing_else():
    images = bytes_(50, 2, 2)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = data.load(images, seed=3)
    assert torch.equal(torch.get_rng_state(), state), "the split must not draw from torch's default generator"
    torch.manual_seed(2)
    again, other = data.load(images, seed=3), data.load(images, seed=4)
    for split in ("train", "valid", "test"):
        assert torch.equal(getattr(first, split).images, getattr(again, split).images)
    assert not torch.equal(first.train.images, other.train.images)


def test_the_split_is_random_not_in_order():
    images = torch.arange(100, dtype=torch.uint8).view(100, 1, 1)
    assert data.load(images).test.images.flatten().tolist() != list(range(90, 100))


@pytest.mark.parametrize("n", [10, 11, 19, 20, 29])
def test_small_data_keep_two_points_for_an_error_bar(n):
    splits = data.load(bytes_(n, 2, 2))
    assert (len(splits.valid), len(splits.test)) == (2, 2)
    assert len(splits.train) == n - 4


@pytest.mark.parametrize("n", [0, 1, 9])
def test_too_few_images(n):
    with pytest.raises(ValueError, match=rf"at least 10 images.*got {n}"):
        data.load(bytes_(n, 2, 2))


def test_given_splits_are_used_as_they_are():
    train, valid, test = bytes_(30, 1, 4, 4), floats(7, 4, 4), bytes_(5, 4, 4).numpy()
    splits = data.load(train, valid=valid, test=test)
    assert torch.equal(splits.train.images, train)
    assert torch.equal(splits.valid.images, valid[:, None])
    assert torch.equal(splits.test.images, torch.from_numpy(test)[:, None])
    assert "valid = 7 images given; test = 5 images given" in splits.protocol
    assert "random" not in splits.protocol


def test_with_one_given_split_the_other_is_a_tenth():
    splits = data.load(bytes_(100, 4, 4), test=bytes_(5, 4, 4))
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (90, 10, 5)
    assert "split 90/10 at random" in splits.protocol


def test_a_named_data_set_takes_given_splits_too():
    splits = data.load("digits", valid=floats(20, 8, 8), test=floats(30, 8, 8))
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (1797, 20, 30)


@pytest.mark.parametrize("shape", [(5, 4, 5), (5, 3, 4, 4), (0, 4, 4)])
def test_given_splits_must_have_the_shape_of_train(shape):
    with pytest.raises(ValueError, match=r"valid: must have shape \[N >= 1, 1, 4, 4\] like train, got"):
        data.load(bytes_(30, 4, 4), valid=bytes_(*shape))


def test_splits_print_their_sizes():
    assert repr(data.load(bytes_(100, 3, 4, 4))) == "Splits('tensor': 80 train, 10 valid, 10 test images of [3, 4, 4])"


# Tensors and arrays


@pytest.mark.parametrize(
    ("shape", "expected"), [((20, 6), (1, 1, 6)), ((20, 4, 6), (1, 4, 6)), ((20, 2, 4, 6), (2, 4, 6))]
)
@pytest.mark.parametrize("kind", ["tensor", "array"])
def test_shapes(shape, expected, kind):
    images = floats(*shape)
    splits = data.load(images if kind == "tensor" else images.numpy(), valid=images, test=images)
    assert tuple(splits.train.images.shape[1:]) == expected
    assert torch.equal(splits.train.images.flatten(), images.flatten())
    assert splits.name == kind


@pytest.mark.parametrize("shape", [(20,), (20, 1, 2, 3, 4), (20, 0), (20, 3, 0, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"data: must have shape \[N, C, H, W\], \[N, H, W\] or \[N, d\], got \[20"):
        data.load(torch.zeros(shape))


def test_channels_last_is_noticed():
    with pytest.raises(ValueError, match=r"got \[20, 30, 40, 3\]: channels come last; permute \(0, 3, 1, 2\)"):
        data.load(np.zeros((20, 30, 40, 3), np.uint8))
    assert data.load(np.zeros((20, 30, 1, 1), np.uint8)).train.images.shape[1:] == (30, 1, 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", ">f8"])
def test_floats_become_float32(dtype):
    images = np.linspace(0, 1, 80).reshape(20, 2, 2).astype(dtype)
    train = data.load(images, valid=images, test=images).train.images
    assert train.dtype == torch.float32
    np.testing.assert_array_equal(train.numpy().ravel(), images.ravel().astype(np.float32))


def test_bfloat16_and_gradients():
    images = floats(20, 2, 2).bfloat16().requires_grad_()
    splits = data.load(images)
    assert splits.train.images.dtype == torch.float32
    assert not splits.train.images.requires_grad


def test_arrays_in_odd_memory():
    images = np.arange(80, dtype=np.uint8).reshape(20, 2, 2)
    images.flags.writeable = False
    for view in (images, images[::-1], images.T.copy().T):
        splits = data.load(view, valid=view, test=view)
        np.testing.assert_array_equal(splits.train.images.numpy()[:, 0], view)


@pytest.mark.parametrize(
    ("values", "dtype", "remedy", "scale"),
    [
        ([0, 255], "uint16", "x / 255", 255),
        ([0, 255], "int64", "x / 255", 255),
        ([0, 127], "int8", "x / 255", 255),
        ([0, 65535], "uint16", "x / 65535 if these are 16-bit pixels, else x / x.max()", 65535),
        ([0, 300], "int32", "x / 65535 if these are 16-bit pixels, else x / x.max()", 65535),
        ([0, 2**63], "uint64", "x / 65535 if these are 16-bit pixels, else x / x.max()", None),
        ([-128, 127], "int8", "(x + 128.0) / 255.0", None),
        ([-32768, 32767], "int16", "(x + 32768.0) / 65535.0", None),
        ([-3, -1], "int32", "(x + 3.0) / 2.0", None),
        ([0, 1], "int64", "x * 1.0", 1),
        ([False, True], "bool", "x * 1.0", 1),
    ],
)
def test_the_remedy_for_integers_keeps_the_picture(values, dtype, remedy, scale):
    """What is advised, done to the very values that were refused, loads and leaves no two of them alike."""
    array = np.resize(np.array(values, dtype), (20, 2, 2))
    for x in (array, torch.from_numpy(array)):
        with pytest.raises(TypeError, match=r"data: must be uint8 \(0..255\) or floats in \[0, 1\], got") as caught:
            data.load(x)
        assert str(caught.value).endswith(f"pass {remedy}")
        if isinstance(x, Tensor) and x.dtype in (torch.uint16, torch.uint32, torch.uint64):
            continue  # torch has no arithmetic for these
        for expression in remedy.replace(" if these are 16-bit pixels", "").split(", else "):
            if scale is not None or "65535 " not in expression:
                loaded = data.load(eval(expression, {"x": x})) if 2**63 not in values else None
                assert loaded is None or len(loaded.train.images.unique()) == 2


def test_what_is_no_number_is_refused():
    for array in (np.zeros((20, 4), np.complex64), np.full((20, 4), "x"), np.full((20, 4), None)):
        with pytest.raises(TypeError, match=r"data: must be uint8 \(0..255\) or floats in \[0, 1\], got [^;]*$"):
            data.load(array)


@pytest.mark.parametrize("form", ["tensor", "array", "pair", "dataset", "valid"])
def test_bytes_that_are_only_0_and_1_are_not_taken_as_black(form):
    x = bytes_(20, 4, 4) // 128
    forms = {"tensor": x, "array": x.numpy(), "pair": (x, torch.arange(20)), "dataset": TensorDataset(x)}
    with pytest.raises(ValueError, match="uint8 images of only 0 and 1 are nearly black, since 255 is white; pass x "):
        data.load(forms[form]) if form in forms else data.load(bytes_(20, 4, 4), valid=x)
    assert data.load(x * 255).train.images.max() == 255
    assert not data.load(x * 0).train.images.any(), "black is black"


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((32, 32, 3, 100), (3, 2, 0, 1)),
        ((48, 64, 3, 20), (3, 2, 0, 1)),
        ((28, 28, 1, 20), (3, 2, 0, 1)),
        ((28, 28, 60), (2, 0, 1)),
        ((20, 30, 40, 3), (0, 3, 1, 2)),
    ],
)
def test_axes_in_another_order_are_noticed(shape, axes):
    images = bytes_(*shape).numpy()
    with pytest.raises(ValueError, match=r"data: must have shape \[N, .*\], got .*permute ") as caught:
        data.load(images)
    assert f"permute {axes}" in str(caught.value)
    assert data.load(images.transpose(axes))
    with pytest.raises(ValueError, match="permute"):
        data.load(torch.from_numpy(images))


@pytest.mark.parametrize(
    "shape", [(20, 28, 28), (30, 28, 28), (28, 28, 28), (20, 8, 1, 100), (20, 1, 32, 3), (5, 5, 2)]
)
def test_axes_in_the_right_order_are_left_alone(shape):
    splits = data.load(np.resize(bytes_(*shape).numpy(), (max(10, shape[0]), *shape[1:])))
    assert splits.shape == (shape if len(shape) == 4 else (0, 1, *shape[1:]))[1:]


def test_masked_arrays_do_not_lose_their_mask():
    images = np.ma.masked_less(bytes_(20, 4, 4).numpy(), 100)
    for masked in (images, images / 255.0):
        with pytest.raises(ValueError, match=rf"data: {images.mask.sum()} values of the masked array are masked; pass"):
            data.load(masked)
    with pytest.raises(ValueError, match=r"item 0: .*masked"):
        data.load(Items(list(images)))
    whole = np.ma.masked_array(bytes_(20, 4, 4).numpy())
    assert torch.equal(data.load(whole).train.images, data.load(whole.data).train.images)
    assert torch.equal(data.load(images.filled(0)).train.images, data.load(images.filled(0)).train.images)


@pytest.mark.parametrize(
    ("scale", "shift", "found", "remedy"),
    [
        (2, -1, r"\[-1, 1\]", r"\(x \+ 1\) / 2"),
        (255, 0, r"\[0, 255\]", "x / 255"),
        (10, -5, r"\[-5, 5\]", r"\(x - x.min\(\)\) /"),
        (1, 1e-3, r"\[0.001, 1.001\]", r"x.clip\(0, 1\)"),
        (16, 0, r"\[0, 16\]", r"x / x.max\(\)"),
    ],
)
def test_a_range_error_names_the_range_and_the_remedy(scale, shift, found, remedy):
    images = torch.linspace(0, 1, 80, dtype=torch.float64).view(20, 2, 2) * scale + shift
    with pytest.raises(ValueError, match=rf"data: floats must lie in \[0, 1\], got {found}; pass {remedy}"):
        data.load(images)


def test_nan_and_infinity_are_refused():
    images = floats(20, 2, 2)
    images[7, 1, 1] = torch.nan
    with pytest.raises(ValueError, match="got NaN, first in image 7"):
        data.load(images)
    images[7, 1, 1] = torch.inf
    with pytest.raises(ValueError, match="inf"):
        data.load(images)


def test_given_splits_are_checked_and_named():
    with pytest.raises(ValueError, match=r"valid: floats must lie in \[0, 1\]"):
        data.load(floats(20, 4), valid=floats(5, 4) * 2)
    with pytest.raises(TypeError, match=r"test: must be a name.*got list"):
        data.load(floats(20, 4), test=[1, 2])


# Datasets


def test_a_dataset_of_pairs_uses_x():
    images = floats(20, 3, 4, 4)
    for dataset in (TensorDataset(images, torch.zeros(20)), TensorDataset(images), Items([[x, 1] for x in images])):
        splits = data.load(dataset, valid=images, test=images)
        assert torch.equal(splits.train.images, images)
    assert splits.name == "items"


def test_a_dataset_of_arrays_or_of_pil_images():
    arrays = bytes_(20, 5, 4, 3).numpy()
    pil = data.load(Items([(Image.fromarray(array), 0) for array in arrays]), seed=1)
    assert pil.train.images.shape == (16, 3, 5, 4)
    assert torch.equal(pil.train.images, data.load(torch.from_numpy(arrays).permute(0, 3, 1, 2), seed=1).train.images)
    assert data.load(Items([Image.fromarray(array[:, :, 0]) for array in arrays])).train.images.shape == (16, 1, 5, 4)
    assert data.load(Items(list(arrays[:, :, :, 0]))).train.images.shape == (16, 1, 5, 4)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">f8", "<f2", np.longdouble, "uint8"])
@pytest.mark.parametrize("flip", [1, -1])
def test_items_may_be_any_arrays(dtype, flip):
    images = (bytes_(20, 4, 4) if dtype == "uint8" else floats(20, 4, 4)).numpy().astype(dtype)[:, ::flip, ::flip]
    items, whole = data.load(Items(list(images))), data.load(images)
    assert torch.equal(items.train.images, whole.train.images)
    images.flags.writeable = False
    assert torch.equal(data.load(Items(list(images))).train.images, whole.train.images)


def test_items_of_several_dtypes_are_refused():
    with pytest.raises(TypeError, match=r"items must have one dtype, got torch.uint8, item 1 torch.float32"):
        data.load(Items([bytes_(2, 2), floats(2, 2)]))
    with pytest.raises(TypeError, match=r"item 1 must be a PIL image as item 0 is, got Tensor"):
        data.load(Items([Image.new("L", (2, 2)), floats(2, 2)]))


def test_a_dataset_of_anything_else():
    with pytest.raises(TypeError, match=r"item 0 must be an image or \(image, ...\), got dict"):
        data.load(Items([{"x": 1}] * 20))
    with pytest.raises(ValueError, match=r"must have one shape, got \[2, 2\], item 1 \[2, 3\]"):
        data.load(Items([torch.zeros(2, 2), torch.zeros(2, 3)]))
    with pytest.raises(ValueError, match="the Dataset is empty"):
        data.load(Items([]))

    class Stream(IterableDataset):
        def __iter__(self):
            return iter([])

    with pytest.raises(TypeError, match="a Dataset must have a length, got Stream"):
        data.load(Stream())


# Names


def test_digits():
    splits = data.load("digits")
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (1439, 179, 179)
    assert splits.train.images.shape[1:] == (1, 8, 8)
    assert splits.train.images.dtype == torch.float32
    assert splits.train.images.aminmax() == (0, 1)
    assert set((splits.train.images * 16).unique().tolist()) == set(range(17))


@pytest.mark.parametrize(
    ("wrong", "right"), [("mnits", "mnist"), ("MNIST", "mnist"), ("cifar", "cifar10"), ("digit", "digits")]
)
def test_a_wrong_name_is_answered_with_the_nearest(wrong, right):
    with pytest.raises(ValueError, match=rf"data: '{wrong}' is neither a data set .*did you mean '{right}'\?"):
        data.load(wrong)


def test_a_wrong_path_is_no_riddle(tmp_path):
    with pytest.raises(
        ValueError, match=r"neither a data set \(digits, mnist, cifar10, olivetti, .*\) nor a folder of images$"
    ):
        data.load(tmp_path / "missing")
    (tmp_path / "faces.zip").touch()
    with pytest.raises(
        ValueError, match=r"must be a folder of images, a .npy or a .npz file, got the file .*faces.zip"
    ):
        data.load(tmp_path / "faces.zip")
    with pytest.raises(TypeError, match=r"data: must be a name.*got NoneType"):
        data.load(None)


@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_an_empty_word_is_not_the_current_folder(empty):
    with pytest.raises(ValueError, match="data: must be a name or a path, got '"):
        data.load(empty)
    for split in ("valid", "test"):
        with pytest.raises(ValueError, match=f"{split}: must be a name or a path, got '"):
            data.load("digits", **{split: empty})
    with pytest.raises(FileNotFoundError, match="root: the data root must be a folder, got '"):
        data.load("mnist", root=empty)


def test_a_name_is_no_split():
    with pytest.raises(ValueError, match="valid: 'mnist' is neither"):
        data.load("digits", valid="mnist")


def test_a_npy_file(tmp_path):
    np.save(tmp_path / "faces.npy", bytes_(20, 4, 4).numpy())
    splits = data.load(str(tmp_path / "faces.npy"))
    assert splits.name == "faces"
    assert torch.equal(splits.train.images, data.load(bytes_(20, 4, 4)).train.images)


# image_size


@pytest.mark.parametrize("kind", ["tensor", "pair", "npz", "dataset", "named"])
def test_image_size_crops_and_resizes_whatever_it_is_given(tmp_path, kind, monkeypatch):
    images = bytes_(20, 3, 10, 16)
    np.savez(tmp_path / "x.npz", images=images.numpy())
    monkeypatch.setitem(data.NAMED, "toy", lambda root: data.Source("toy", data.Batch(images), "toy"))
    forms = {
        "tensor": images,
        "pair": (images, torch.arange(20)),
        "npz": tmp_path / "x.npz",
        "dataset": TensorDataset(images),
        "named": "toy",
    }
    splits = data.load(forms[kind], image_size=5, valid=images, seed=1)
    assert splits.shape == (3, 5, 5)
    assert splits.train.images.dtype == torch.uint8
    assert "from 16x10 pixels centre-cropped and resized to 5x5" in splits.protocol
    square = images[:, :, :, 3:13]
    assert torch.equal(splits.train.images, data.load(square, valid=square, image_size=5, seed=1).train.images)
    pil = Items([Image.fromarray(image.permute(1, 2, 0).numpy()) for image in square])
    expected = data.load(pil, image_size=5, valid=pil, seed=1)
    assert (splits.train.images.int() - expected.train.images.int()).abs().max() <= 1, "as Pillow does it"
    assert (splits.valid.images.int() - expected.valid.images.int()).abs().max() <= 1


def test_image_size_of_floats_stays_in_range_and_keeps_what_fits():
    x = (floats(20, 1, 9, 9) > 0.5).float()
    enlarged = data.load(x, image_size=20).train.images
    assert enlarged.shape == (16, 1, 20, 20)
    assert enlarged.aminmax() == (0, 1), "bicubic weights overshoot"
    assert torch.equal(data.load(x, image_size=9).train.images, data.load(x).train.images)
    assert data.load("digits", image_size=16).shape == (1, 16, 16)


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        (0, ValueError, "image_size: must be at least 1, got 0"),
        (-8, ValueError, "image_size: must be at least 1, got -8"),
        (8.0, TypeError, "image_size: must be an integer, the side in pixels, got 8.0"),
        (True, TypeError, "image_size: must be an integer, the side in pixels, got True"),
        ("8", TypeError, "image_size: must be an integer, the side in pixels, got '8'"),
        ((8, 8), TypeError, "image_size: must be an integer"),
        (10**6, ValueError, r"data: 20 images of 1000000x1000000 pixels need .* GiB, .*; pass image_size=\d+ or less"),
    ],
)
def test_an_impossible_image_size_is_named(size, error, message):
    with pytest.raises(error, match=message):
        data.load(bytes_(20, 4, 4), image_size=size)


def test_vectors_have_no_image_size():
    with pytest.raises(ValueError, match="image_size: data must be images to be resized, got vectors of 6 values"):
        data.load(floats(20, 6), image_size=8)


# as_float


def test_as_float():
    images = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(data.as_float(images), images.float() / 255)
    assert images.dtype == torch.uint8
    x = floats(3)
    assert data.as_float(x) is x
    with pytest.raises(TypeError, match=r"must be uint8 or float32, got torch.float64"):
        data.as_float(x.double())


def test_splits_is_frozen():
    splits = data.load(bytes_(20, 4))
    assert isinstance(splits, Splits)
    with pytest.raises(AttributeError):
        splits.train = None


def test_what_is_not_taken_is_answered_with_what_would_be():
    images = torch.rand(20, 1, 4, 4)
    with pytest.raises(TypeError, match=r"got list; torch\.stack or np\.stack makes one of many images"):
        data.load(list(images))
    with pytest.raises(TypeError, match=r"got DataLoader; pass its \.dataset"):
        data.load(torch.utils.data.DataLoader(TensorDataset(images)))
