"""MAT files of level 5: read like scipy does, and refused where anything is damaged."""

import io
import random
import struct
import zlib

import numpy as np
import pytest

from pygan.data.mat import read_mat

scipy_io = pytest.importorskip("scipy.io")
loadmat, savemat = scipy_io.loadmat, scipy_io.savemat

ARRAYS = {
    "images": np.random.default_rng(0).integers(0, 9, (3, 8, 8)).astype(np.uint8),
    "labs_id": np.full((3, 1), -1),
    "folds": np.arange(15, dtype=np.int16).reshape(3, 5),
}


def saved(compressed, arrays=ARRAYS):
    file = io.BytesIO()
    savemat(file, arrays, do_compression=compressed)
    return file.getvalue()


def read(tmp_path, content, names=("images", "folds")):
    path = tmp_path / "x.mat"
    path.write_bytes(content)
    return read_mat(path, names)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_arrays_are_those_that_scipy_reads(tmp_path, dtype, compressed):
    arrays = {"a": np.arange(24).reshape(2, 3, 4).astype(dtype), "b": np.zeros((0, 5), dtype), "text": "skipped"}
    content = saved(compressed, arrays)
    found, wanted = read(tmp_path, content, ("a", "b")), loadmat(io.BytesIO(content))
    assert found.keys() == {"a", "b"}
    for name, array in found.items():
        assert array.dtype == wanted[name].dtype == dtype
        np.testing.assert_array_equal(array, wanted[name])


def test_big_endian_and_numbers_that_are_stored_in_a_smaller_type(tmp_path):
    def element(kind, data):
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    parts = element(6, struct.pack(">II", 6, 0)) + element(5, struct.pack(">ii", 2, 2))  # class double
    small = struct.pack(">HHs3x", 1, 1, b"a") + struct.pack(">HH4B", 4, 2, 1, 2, 3, 255)  # stored as uint8
    content = bytes(124) + b"\1\0MI" + element(14, parts + small)
    (array,) = read(tmp_path, content, ("a",)).values()
    assert array.dtype == np.float64
    assert array.tolist() == [[1, 3], [2, 255]]


# Of `images` in the uncompressed file, byte 128 begins the tag, 144 the flags, 160 the dimensions, 192 the values' tag.
DAMAGED = {
    "another format": (b"\x89HDF" * 64, "byte 124: expected the mark of a MAT file of level 5"),
    "version 7.3": (b"MATLAB 7.3".ljust(124) + b"\0\2IM", r"the file was saved with -v7\.3, use -v7"),
    "empty": (b"", "byte 124: expected the mark"),
    "type of the values": ((192, 0x6002), "byte 200: expected numbers that fit into uint8, got type 24578"),
    "bytes of the values": ((196, 64), "byte 200: expected 192 numbers of 1 bytes, got 64 bytes"),
    "bytes of the values beyond the matrix": ((196, 2**32 - 1), "byte 192: expected an element of at most 192 bytes"),
    "bytes of the matrix beyond the file": ((132, 2**31), "byte 128: expected an element of at most"),
    "class": ((144, 3), "byte 144: expected a matrix of real numbers, got flags 0x3"),
    "complex": ((144, 0x0809), "got flags 0x809"),
    "dimension below 0": ((160, 2**32 - 3), r"byte 160: expected sizes of at least 0, got \[-3, 8, 8\]"),
    "dimension": ((160, 2**31 - 1), "byte 200: expected 137438953408 numbers"),
    "type of the flags": ((136, 5), "expected flags, dimensions, a name and values, got elements of the types"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused_with_the_byte(tmp_path, change, message):
    content = bytearray(saved(False))
    if isinstance(change, bytes):
        content = change
    else:
        struct.pack_into("<I", content, *change)
    with pytest.raises(ValueError, match=rf"x\.mat: .*{message}"):
        read(tmp_path, content)


def test_a_damaged_compressed_matrix_is_refused(tmp_path):
    content = saved(True)
    bomb = zlib.compress(struct.pack("<II", 14, 8) + bytes(10**6))
    bomb = content[:128] + struct.pack("<II", 15, len(bomb)) + bomb
    for damaged in (content[:-1], content[:200], content[:250] + b"!" + content[251:], bomb):
        with pytest.raises(ValueError, match=r"x\.mat: byte \d+: expected"):
            read(tmp_path, damaged)


@pytest.mark.parametrize("compressed", [False, True])
def test_random_damage_is_refused_or_changes_no_shape(tmp_path, compressed):
    content = saved(compressed)
    draws = random.Random(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(content)
        for _ in range(draws.randrange(1, 4)):
            damaged[draws.randrange(120, 360)] ^= 1 << draws.randrange(8)
        try:
            found = read(tmp_path, damaged[: draws.choice([draws.randrange(len(content)), None])])
        except ValueError:
            refused += 1
        else:
            assert all(found[name].size == ARRAYS[name].size for name in found)
    assert refused > 30
